"""What was asked for by whom, and what went wrong: the values that statistics are made of."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from proxy.core.agents import Agent
from proxy.core.cache_status import FROM_CACHE
from proxy.core.figures import Bucket, Dimension, Sums
from proxy.names import METADATA, companion_of, is_distribution, version_of

#: The cache statuses of answers that an upstream was waited for.
WAITED = frozenset({"miss", "refreshed", "collapsed", "range", "head"})
PAGES, FILES = "pages", "files"
_AREAS = {"simple": PAGES, "files": FILES, "packages": FILES}


class Subject(Struct, frozen=True, cache_hash=True):
    """What a request is for: a page or a file of *project* (normalised), or something of the whole index; ``""`` for none.

    *area* is the first segment of its path below the index.  It is hashed for each request, so its hash is remembered.
    """

    index: str
    area: str
    project: str = ""
    filename: str = ""


class Visit(NamedTuple):
    """What is the same of requests that are counted together.

    *client* is an address, *word* the cache status or the code of the problem.
    """

    subject: Subject
    method: str
    status: int
    word: str
    client: str
    agent: Agent


class Amount:
    """How many requests, what they were sent (bytes of bodies), and what they took (seconds)."""

    __slots__ = ("bytes", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0
        self.seconds = 0.0


def count(bucket: Bucket, visit: Visit, amount: Amount) -> None:
    """Count *amount* of *visit* into *bucket*.

    A project and a file count only where there is one: clients can invent any number of names.
    """
    subject, agent = visit.subject, visit.agent
    index, project, filename = subject.index, subject.project, subject.filename
    area = _AREAS.get(subject.area, subject.area)
    tally = _tally(visit, amount)
    bucket.count(Dimension.ANSWERS, (index, area, visit.word), tally)
    bucket.count(Dimension.CLIENTS, (agent.client, agent.version), tally)
    bucket.count(Dimension.PYTHONS, (agent.python,), tally)
    bucket.count(Dimension.CI, ({True: "ci", False: "not ci", None: "not stated"}[agent.ci],), tally)
    if area in (PAGES, FILES):
        bucket.count(Dimension.ADDRESSES, (visit.client, area), tally)
    if not project or not 200 <= visit.status < 400:
        return
    bucket.count(Dimension.PROJECTS, (index, project), tally)
    file = companion_of(filename, METADATA) or filename
    version = version_of(file) if file else None
    if version is not None:
        bucket.count(Dimension.VERSIONS, (index, project, str(version)), tally)
    if area == FILES and visit.method == "GET" and visit.status == 200 and is_distribution(filename):
        bucket.count(Dimension.DOWNLOADS, (index, project, filename, f"{agent.client}/{agent.version}"), tally)
        bucket.count(Dimension.REQUESTERS, (visit.client, filename), tally)


def _tally(visit: Visit, amount: Amount) -> Sums:
    tally = Sums(amount.requests, amount.bytes, failed=amount.requests if visit.status >= 500 else 0)
    if visit.word in FROM_CACHE:
        tally.hits, tally.hit_bytes, tally.hit_seconds = amount.requests, amount.bytes, amount.seconds
        tally.stale = amount.requests if visit.word == "stale" else 0
    elif visit.word in WAITED:
        tally.waited, tally.waited_seconds = amount.requests, amount.seconds
    return tally


def problem_with(visit: Visit) -> str | None:
    """What went wrong with *visit*; ``None`` when nothing did."""
    if visit.status >= 500:
        return f"answered {visit.status}: {visit.word}"
    return "served stale" if visit.word == "stale" else None

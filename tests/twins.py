"""In-memory twins of the ports that floors above storage and upstream are tested with."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from proxy.errors import Attempt, NotFound, UpstreamFailed
from proxy.interfaces import IUpstreams, Receive
from proxy.model import (
    Condition,
    DocumentReply,
    File,
    FileFacts,
    Head,
    Page,
    PageFound,
    PageReply,
    Record,
    Validators,
    Wanted,
    body_digest,
)

BASE = "https://pypi.example/simple/"


def found(project: str, files: list[File], now: float, serial: int | None = None, **head: Any) -> PageFound:
    """A page as an upstream of the name ``pypi`` would deliver it, its body real PEP 691 JSON."""
    document = {
        "meta": {"api-version": "1.0"},
        "name": project,
        "files": [{"filename": file.filename, "url": file.url, "hashes": dict(file.hashes)} for file in files],
    }
    body = msgspec.json.encode(document)
    heading = Head(
        True,
        "pypi",
        f"{BASE}{project}/",
        now,
        digest=body_digest(body),
        content_type="application/vnd.pypi.simple.v1+json",
        etag=f'"{body_digest(body)[:8]}"',
        serial=serial,
        **head,
    )
    return PageFound(Record(heading, body), Page(project, tuple(files)))


@implementer(IUpstreams)
@define
class ScriptedUpstreams:
    """Upstreams whose every answer the test gives: each page request and fetch waits in a list until it is answered."""

    state: Condition = Condition.UP
    pause: float = 0.0
    told_slow: int = 0
    pages: list[tuple[str, Validators | None, Deferred[PageReply]]] = field(factory=list)
    fetches: list[tuple[Wanted, Any, Deferred[None]]] = field(factory=list)
    sizes: dict[str, FileFacts] = field(factory=dict)
    distrusted: list[tuple[str, str]] = field(factory=list)
    preferred: set[str] = field(factory=set)

    def condition(self) -> Condition:
        return self.state

    def retry_in(self) -> float:
        return self.pause

    def spare(self) -> bool:
        return self.state is Condition.UP

    def outranks(self, upstream: str, other: str) -> bool:
        return upstream in self.preferred

    def distrust(self, upstream: str, why: str) -> None:
        self.distrusted.append((upstream, why))

    def last_modified(self) -> float | None:
        return None

    def slow(self, waited: float) -> None:
        self.told_slow += 1
        self.state = Condition.SUSPECT

    async def page(self, project: str, known: Validators | None) -> PageReply:
        answer: Deferred[PageReply] = Deferred()
        self.pages.append((project, known, answer))
        return await answer

    async def document(self, path: str, known: Validators | None) -> DocumentReply:
        raise UpstreamFailed(path, [Attempt("pypi", "not scripted", 0.0)])

    async def companion(self, wanted: Wanted, known: Validators | None) -> DocumentReply:
        raise UpstreamFailed(wanted.name, [Attempt("pypi", "not scripted", 0.0)])

    async def projects(self, known: Validators | None, receive: Receive) -> DocumentReply:
        raise UpstreamFailed("the list of projects", [Attempt("pypi", "not scripted", 0.0)])

    async def fetch(self, wanted: Wanted, sink: Any) -> None:
        done: Deferred[None] = Deferred()
        self.fetches.append((wanted, sink, done))
        await done
        await sink.finish()

    async def facts(self, wanted: Wanted) -> FileFacts:
        try:
            return self.sizes[wanted.name]
        except KeyError:
            raise NotFound(wanted.name) from None

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> Any:
        raise UpstreamFailed(wanted.name, [Attempt("pypi", "not scripted", 0.0)])

    async def close(self) -> None:
        self.pages.clear()
        self.fetches.clear()

    # -- what tests say

    def answer(self, reply: PageReply | Exception, at: int = -1) -> None:
        """Answer a waiting page request (the last one asked)."""
        answer = self.pages[at][2]
        if isinstance(reply, Exception):
            answer.errback(reply)
        else:
            answer.callback(reply)

    def deliver(self, data: bytes, at: int = -1) -> None:
        """Deliver *data* as the whole of a waiting fetch."""
        _, sink, done = self.fetches[at]
        sink.begin(FileFacts(len(data)))
        sink.write(data)
        done.callback(None)

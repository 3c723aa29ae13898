"""One look: what is to be had is read, resolved, fetched and, if it is to stay, pinned.

The command, the running proxy and ``export`` look alike; what differs is in :class:`Goal` and in where they find the proxy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from twisted.internet.threads import deferToThread

from proxy.errors import ProxyError
from proxy.warm.choosing import Choice
from proxy.warm.fetching import Fetcher
from proxy.warm.inputs import Group, Problem, lately, read_arguments, read_input
from proxy.warm.progress import Quiet
from proxy.warm.report import WarmReport
from proxy.warm.resolving import Resolver, Wishes
from proxy.warm.run import Plan, Run
from proxy.warm.targets import Target

#: An operation by name, with its arguments: :meth:`proxy.administration.operations.Administration.perform`.
Perform = Callable[..., Awaitable[Any]]


class Goal(Struct, frozen=True, kw_only=True):
    """What to have, and how."""

    #: Requirements (PEP 508), as arguments of a command.
    requirements: tuple[str, ...] = ()
    #: Requirement and lock files.
    files: Sequence[Path] = ()
    #: All projects that clients asked for within so many seconds.
    recent: float | None = None
    #: None: all platforms.
    targets: tuple[Target, ...]
    choice: Choice = field(default_factory=Choice)
    wishes: Wishes = field(default_factory=Wishes)
    #: So many of the newest versions of every named project as well.
    latest: int = 0
    dry: bool = False
    pin: bool = False
    #: Requests at once.
    jobs: int = 4


class Warmed(Struct, frozen=True):
    """The proxy that is looked at: the URL of its index, with a slash at its end, and how to have operations performed."""

    url: str
    perform: Perform
    #: Whether it is another process than this one.
    remote: bool = False


async def look(goal: Goal, warmed: Warmed, cache: Path, progress: Quiet, reactor: Any) -> WarmReport:
    """Have all that is the *goal*; *cache* is a directory of uv's, which may be there from the look before.

    Raises Unreachable when the proxy does not answer, and ProxyError when it does not tell what was asked for lately.
    """
    groups = await _groups(goal, warmed)
    plan = Plan(groups, goal.targets, goal.choice, goal.latest, goal.dry)
    fetcher = Fetcher(warmed.url, goal.jobs, reactor)
    try:
        with progress:
            resolver = Resolver(warmed.url, cache, goal.wishes, reactor)
            report = await Run(plan, fetcher, resolver, progress, reactor.seconds).go()
    finally:
        await fetcher.close()
    if goal.pin and not goal.dry:
        await _pin(warmed, report)
    return report


async def _groups(goal: Goal, warmed: Warmed) -> list[Group]:
    groups = [read_arguments(goal.requirements)] if goal.requirements else []
    groups += [await deferToThread(read_input, file) for file in goal.files]
    if goal.recent is not None:
        names = await warmed.perform("recent", seconds=goal.recent)
        groups += [lately(names)] if names else []
    return groups


async def _pin(warmed: Warmed, report: WarmReport) -> None:
    for outcome in report.there:
        try:
            await warmed.perform("pin", project=outcome.project, which=outcome.filename)
        except ProxyError as error:
            report.problems.append(Problem(outcome.filename, f"cannot be pinned: {error}"))

"""The list of projects of a group, made of those of its members: lines on disk, as a proxy index has them.

A list of the public index has 700,000 names.  They are gone through in a worker thread, once for each state of the members'
lists and of the claims.  In memory are 8 bytes for each name of the members that come before the last one: a hash, which tells
names apart that several members have.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from proxy.cache.listing import ShownList, lines_behind, lines_file
from proxy.core.cache_status import CacheStatus
from proxy.errors import StorageFailed
from proxy.interfaces import Clock, IBytesSource, IOffload, IProjectsView
from proxy.mechanism.flight import Flights, uninterrupted
from proxy.policy.policy import Policy
from proxy.repository.membership import Membership
from proxy.simple.projects import lines_of, named_lines
from proxy.storage.lists import ListFiles

Views = Sequence[tuple[str, IProjectsView]]


class GroupList:
    """The list of the group *name*, kept in *lists*."""

    def __init__(self, name: str, lists: ListFiles, offload: IOffload, clock: Clock) -> None:
        self._lists = lists
        self._offload = offload
        self._shown = ShownList(name, Policy(), lists, offload, clock, lambda: None)
        self._makes: Flights[None] = Flights()
        #: What claims amount to, and their generation.
        self._claims: tuple[int, str] | None = None

    def close(self) -> None:
        """Stop what is under way."""
        self._makes.close()
        self._shown.close()
        self._lists.close()

    async def of(self, views: Views, membership: Membership) -> IProjectsView:
        """The list of *membership*, made of its members' *views*, hosted ones first.  Raises StorageFailed, Overloaded."""
        inputs = [membership.rules, await self._of_claims(membership), *(f"{name} {view.state}" for name, view in views)]
        digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
        lines = await self._lists.open(lines_file(digest))
        if lines is None:
            await self._makes.join(digest, lambda: self._make(digest, views, membership))
        else:
            lines.close()
        hosted = bool(membership.hosted)
        ttls = [view.status.ttl or 0 for _, view in views]
        status = CacheStatus(True, own=True) if hosted else CacheStatus(True, ttl=min(ttls, default=0))
        return await self._shown.view(digest, status, None)

    async def _of_claims(self, membership: Membership) -> str:
        if not membership.hosted:
            return ""
        generation = membership.claims.generation
        if self._claims is None or self._claims[0] != generation:
            self._claims = generation, await self._offload.run(_digest_of_claims, membership)
        return self._claims[1]

    async def _make(self, digest: str, views: Views, membership: Membership) -> None:
        # The descriptors stay open until the thread is done with them, also if nobody waits any more.
        await uninterrupted(self._made(digest, views, membership))

    async def _made(self, digest: str, views: Views, membership: Membership) -> None:
        sources: list[tuple[str, IBytesSource]] = []
        try:
            for name, view in views:
                sources.append((name, await view.lines()))
            await self._lists.write(lines_file(digest), lambda out: _write(sources, membership, out))
        except OSError as error:
            raise StorageFailed(f"cannot store the list of projects: {error.strerror}") from error
        finally:
            for _, source in sources:
                source.close()
        await self._lists.keep_only(digest)


def _digest_of_claims(membership: Membership) -> str:
    return hashlib.sha256("\n".join(sorted(membership.claims.names(membership.hosted))).encode()).hexdigest()


def _write(sources: Sequence[tuple[str, IBytesSource]], membership: Membership, out: BinaryIO) -> None:
    """Write the lines of *sources*, by member, that *membership* shows: each project once.  Blocks."""
    out.write(lines_of(()))
    with ExitStack() as stack:
        lists = [(name, stack.enter_context(lines_behind(source.fileno()))) for name, source in sources]
        out.writelines(merged_lines(lists, membership.shows))


def merged_lines(lists: Sequence[tuple[str, Iterable[bytes]]], shows: Callable[[str, str], bool]) -> Iterator[bytes]:
    """The lines of projects in *lists*, by member, that each member *shows*; of those that several have the first one."""
    seen = array("q")
    for number, (member, lines) in enumerate(lists, 1):
        new = array("q")
        for project, line in named_lines(lines):
            if shows(member, project) and not _holds(seen, mark := hash(project)):
                if number < len(lists):
                    new.append(mark)
                yield line
        seen = array("q", sorted((*seen, *new)))


def _holds(marks: array[int], mark: int) -> bool:
    """Whether *mark* is among *marks*, which are sorted."""
    place = bisect_left(marks, mark)
    return place < len(marks) and marks[place] == mark

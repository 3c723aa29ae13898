"""The list of projects of a group, made of those of its members: lines on disk, as a proxy index has them.

A list of the public index has 700,000 names.  They are gone through in a worker thread, once for each state of the members'
lists and of the claims.  In memory is a hash of each name of the members that come before the last one, which tells what
several members have: some 70 bytes per name, and nothing of the last list, which is the long one nearly always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from proxy.cache.listing import ShownList, lines_behind, lines_file
from proxy.core.cache_status import CacheStatus
from proxy.core.claims import Reservation
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
        #: The generation of claims, what they amount to, and its digest.
        self._claims: tuple[int, Reservation, str] | None = None

    def close(self) -> None:
        """Stop what is under way."""
        self._makes.close()
        self._shown.close()
        self._lists.close()

    async def of(self, views: Views, membership: Membership) -> IProjectsView:
        """The list of *membership*, made of its members' *views*, hosted ones first.  Raises StorageFailed, Overloaded."""
        reservation, reserved = await self._reserved(membership)
        inputs = [membership.rules, reserved, *(f"{name} {view.state}" for name, view in views)]
        digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
        lines = await self._lists.open(lines_file(digest))
        if lines is None:
            await self._makes.join(digest, lambda: self._make(digest, views, membership, reservation))
        else:
            lines.close()
        hosted = bool(membership.hosted)
        ttls = [view.status.ttl or 0 for _, view in views]
        status = CacheStatus(True, own=True) if hosted else CacheStatus(True, ttl=min(ttls, default=0))
        return await self._shown.view(digest, status, None)

    async def _reserved(self, membership: Membership) -> tuple[Reservation, str]:
        """What is reserved now, and its digest."""
        generation = membership.generation
        if self._claims is None or self._claims[0] != generation:
            reservation = membership.reservation
            self._claims = generation, reservation, await self._offload.run(reservation.digest)
        return self._claims[1:]

    async def _make(self, digest: str, views: Views, membership: Membership, reservation: Reservation) -> None:
        # The descriptors stay open until the thread is done with them, also if nobody waits any more.
        await uninterrupted(self._made(digest, views, membership, reservation))

    async def _made(self, digest: str, views: Views, membership: Membership, reservation: Reservation) -> None:
        sources: list[tuple[str, IBytesSource]] = []
        try:
            for name, view in views:
                sources.append((name, await view.lines()))
            await self._lists.write(lines_file(digest), lambda out: _write(sources, membership, reservation, out))
        except OSError as error:
            raise StorageFailed(f"cannot store the list of projects: {error.strerror}") from error
        finally:
            for _, source in sources:
                source.close()
        await self._lists.keep_only(digest)


def _write(
    sources: Sequence[tuple[str, IBytesSource]], membership: Membership, reservation: Reservation, out: BinaryIO
) -> None:
    """Write the lines of *sources*, by member, that *membership* shows: each project once.  Blocks."""
    out.write(lines_of(()))
    with ExitStack() as stack:
        lists = [
            (stack.enter_context(lines_behind(source.fileno())), membership.shown(name, reservation))
            for name, source in sources
        ]
        out.writelines(merged_lines(lists))


def merged_lines(lists: Sequence[tuple[Iterable[bytes], Callable[[str], bool]]]) -> Iterator[bytes]:
    """The lines of projects in *lists*, each with what tells which are shown; of those that several have the first one."""
    seen: set[int] = set()
    for number, (lines, is_shown) in enumerate(lists, 1):
        new: set[int] = set()
        for project, line in named_lines(lines):
            mark = hash(project)
            if mark not in seen and is_shown(project):
                if number < len(lists):
                    new.add(mark)
                yield line
        seen = seen | new if seen else new

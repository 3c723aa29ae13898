"""Groups put together by hand: of shelves, which stand for hosted indexes, and of the proxy indexes of a service."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from msgspec import Struct

from proxy.cache.claims import ClaimBook
from proxy.cache.records import PAGES, PROJECTS, HeadedRecords
from proxy.interfaces import IRepository, IVersionedRecords
from proxy.mechanism.offload import Inline
from proxy.repository.claiming import Claims, Kept, Neighbourhood, Neighbours, neighbourhood
from proxy.repository.group import GroupRepository
from proxy.repository.grouplist import GroupList
from proxy.repository.membership import Membership
from proxy.storage.lists import ListFiles
from tests.inprocess import Running


class Grouped(Struct, frozen=True):
    """A group, and what says which names belong to its hosted members."""

    repository: GroupRepository
    claims: Claims
    book: ClaimBook

    async def claimed(self, index: str, *projects: str) -> None:
        """Have *index* claim *projects*, as it does with their first files."""
        for project in projects:
            await self.claims.claim(index, project, "a test")


def a_group(
    directory: Path,
    records: IVersionedRecords,
    members: Mapping[str, IRepository],
    owns: Mapping[str, Collection[str]],
    *,
    name: str = "all",
    merge: Collection[str] = (),
    service: Running | None = None,
    steady: Callable[[], float] = time.monotonic,
) -> Grouped:
    """The group *name* of *members*, in their order; those that *owns* has patterns for, or none, are hosted.

    The list is kept below *directory*.  What the proxies of *service* are known to serve holds names.
    """
    book = ClaimBook(records, owns)
    beside = neighbourhood([(tuple(members), merge)], owns) if service is not None else Neighbourhood()

    def kept(index: str) -> Kept:
        assert service is not None
        pages, projects = (HeadedRecords(kind, index, service.service.caches.records, Inline()) for kind in (PAGES, PROJECTS))
        return Kept(pages, projects, service.service.storage.lists(index, Inline()))

    neighbours = Neighbours(beside, kept, Inline())
    claims = Claims(book, neighbours, time.time)
    hosted = tuple(each for each in members if each in owns)
    proxies = tuple(each for each in members if each not in owns)
    lists = ListFiles(directory / "lists", Inline(), lambda folder: folder.mkdir(parents=True, exist_ok=True))
    projects = GroupList(name, lists, Inline(), time.time)
    membership = Membership(name, hosted, proxies, frozenset(merge), claims)
    return Grouped(GroupRepository(membership, members, projects, Inline(), steady), claims, book)

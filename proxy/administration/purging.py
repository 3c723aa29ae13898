"""Taking things out: files with the ledger entries of their names, and records of pages; what is in memory of them goes too.

Names go first, then bytes that no name is left for: who asks in between is given what upstream states under the name now.  What
an operator has pinned stays, and so do its names, and its page: without that installers do not find it while upstream is down.
Bytes that cannot be removed lose their names and are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from proxy.administration.parts import IndexParts, Proxied, Stores, chosen_proxied, project_name
from proxy.administration.stock import Named, by_project, recorded_by_project
from proxy.cache.ledger import means
from proxy.cache.records import DOCUMENTS, PAGES, PROJECTS, page_of
from proxy.errors import BadRequest, NotFound, ProxyError, StorageFailed
from proxy.interfaces import Clock, Report
from proxy.model import NO_BYTES


class Purging:
    """Purges, and refreshes of pages.  *clock* tells how long ago a file was used."""

    def __init__(self, indexes: Mapping[str, IndexParts], stores: Stores, clock: Clock) -> None:
        self._indexes = indexes
        self._stores = stores
        self._clock = clock

    async def purge(
        self,
        report: Report,
        project: str,
        which: str | None = None,
        page_only: bool = False,
        index: str | None = None,
        dry: bool = False,
    ) -> dict[str, Any]:
        """Remove all of *project*, or the files of it that *which* means (a version or a file name), or its page alone.

        With all of it the page goes only where no file of the project is pinned; ``pages_kept`` are those that stay.
        With *dry* nothing is removed and the answer is what would be.  Raises BadRequest, NotFound.
        """
        if page_only and which is not None:
            raise BadRequest(f"a page is of the whole project: purge the page of {project}, or {which}")
        wanted = project_name(project)
        self._refuse_own(index, project)
        indexes = chosen_proxied(self._indexes, index)
        pinned = set() if page_only else await self._pinned(wanted)
        pages_kept: list[str] = []
        going = indexes if which is None else {}
        for name in pinned & going.keys():
            head = await going[name].pages.remembered(wanted)
            if head is not None and head.found:
                pages_kept.append(name)
                del going[name]
        doomed = [] if page_only else await self._recorded(wanted, which, index)
        if dry:
            pages = [name for name, each in going.items() if await _has_page(each, wanted)]
            removed = await self._foretold(await self._plan(doomed))
        else:
            pages, removed = await self._purged(going, wanted, doomed, page_only=page_only)
        if not (pages or pages_kept or removed["removed"] or removed["pinned"]):
            for name in await self._own(wanted):
                self._refuse_own(name, project)
            what = "page of " if page_only else f"{which} of " if which is not None else "thing of "
            raise NotFound(f"no {what}{wanted} is kept here")
        return {**removed, "pages": _of_indexes(pages, wanted), "pages_kept": _of_indexes(pages_kept, wanted), "dry": dry}

    async def purge_unused(self, report: Report, seconds: float, dry: bool = False) -> dict[str, Any]:
        """Remove every file that was not used for so many *seconds*; with *dry* only tell which."""
        before = self._clock() - seconds
        files = await self._stores.usage.files()
        doomed = {file.sha256: file.size for file in files if file.used < before}
        named = [each async for found in by_project(self._stores.ledger) for each in found if each.entry.sha256 in doomed]
        without_name = doomed.keys() - {each.entry.sha256 for each in named}
        unnamed = {sha256: doomed[sha256] for sha256 in without_name}
        plan = await self._plan([each for each in named if not self._has_its_own(each.index)])
        removed = await (self._foretold(plan) if dry else self._carried_out(plan))
        others = _Deleted(list(unnamed.values())) if dry else await self._delete(unnamed)
        removed["files"] += len(others.freed)
        removed["bytes"] += sum(others.freed)
        removed["left"] += others.left
        return {**removed, "pages": [], "pages_kept": [], "dry": dry}

    async def purge_index(self, report: Report, index: str, dry: bool = False) -> dict[str, Any]:
        """Forget all of *index*, which is not configured any more; with *dry* only tell what that is.

        Its ledger entries and pages, what is pinned of it, and the files that no other name stands for.  Raises BadRequest for
        an index that is configured, NotFound when nothing is known of it.
        """
        if index in self._indexes:
            raise BadRequest(
                f"the index {index} is configured: name the projects to purge, or take it out of the configuration"
            )
        if not index or "/" in index:
            raise BadRequest(f"{index!r} is no name of an index")
        recorded = recorded_by_project(self._stores.ledger, index)
        names = [each async for found in recorded for each in found]
        keys = [key for kind in (PAGES, DOCUMENTS, PROJECTS) for key in await self._stores.records.keys(f"{kind}/{index}/")]
        if not (names or keys):
            raise NotFound(f"nothing is known of an index named {index!r}; pypiproxy ls lists what is stored of each")
        plan = await self._plan(names, but=index)
        if dry:
            removed = await self._foretold(plan)
        else:
            await self._stores.pinned.forget(index)
            removed = await self._carried_out(plan)
            for key in keys:
                await self._stores.records.delete(key)
            await self._stores.ledger.sightings.forget(index)
        pages = [project for key in keys if (project := page_of(key)) is not None]
        return {
            **removed,
            "pages": [{"index": index, "project": project} for project in pages],
            "pages_kept": [],
            "dry": dry,
        }

    async def refresh(self, report: Report, project: str, index: str | None = None) -> list[dict[str, Any]]:
        """Ask upstream for the page of *project* now, on every index that keeps one, or on the *index* named.

        Raises NotFound when no index is named and none keeps it: who asks upstreams for a name tells them the name.  Raises
        BadRequest for a name that belongs to a hosted index in a group with that one.
        """
        wanted = project_name(project)
        indexes = chosen_proxied(self._indexes, index)
        if index is None and len(indexes) > 1:
            indexes = {name: each for name, each in indexes.items() if await each.pages.remembered(wanted) is not None}
            if not indexes:
                raise NotFound(f"no index keeps a page of {wanted}: name the index to fetch it from")
        reserved = [name for name, each in indexes.items() if await each.reserved(wanted)]
        if reserved and len(reserved) == len(indexes):
            raise BadRequest(
                f"{wanted} belongs to a hosted index in a group with {', '.join(reserved)}: no upstream is told of it; "
                "pypiproxy claims list says whose it is"
            )
        asked = {name: each for name, each in indexes.items() if name not in reserved}
        return [{"index": name, "project": wanted, **await _refreshed(each, wanted)} for name, each in asked.items()]

    # -- inside ----------------------------------------------------------------------------------------------------------

    async def _pinned(self, project: str) -> set[str]:
        """The indexes in which a file of *project* is pinned."""
        pinned = await self._stores.pinned.files()
        digests = {each.sha256 for each in pinned}
        found = {each.index for each in pinned if each.project == project}
        found |= {index for index, name in await self._stores.pinned.projects() if name == project}
        async for those in by_project(self._stores.ledger, project=project):
            found |= {each.index for each in those if each.entry.sha256 in digests}
        return found

    async def _recorded(self, project: str, which: str | None, index: str | None) -> list[Named]:
        """The names of *project* that *which* means, but for those that come from no upstream."""
        recorded = recorded_by_project(self._stores.ledger, index, project)
        return [
            each
            async for found in recorded
            for each in found
            if means(which, each.filename) and not self._has_its_own(each.index)
        ]

    def _has_its_own(self, index: str) -> bool:
        """Whether what *index* has comes from no upstream: nothing would bring it back."""
        return index in self._indexes and self._indexes[index].proxied is None

    async def _own(self, project: str) -> list[str]:
        """The indexes that have *project* from no upstream."""
        recorded = recorded_by_project(self._stores.ledger, project=project)
        return sorted({each.index async for found in recorded for each in found if self._has_its_own(each.index)})

    def _refuse_own(self, index: str | None, project: str) -> None:
        """Raise BadRequest if *index* has no upstream."""
        if index is not None and self._has_its_own(index):
            raise BadRequest(
                f"purge removes what upstream has too, and nothing of the index {index}: "
                f"pypiproxy delete {index} {project} removes files from it"
            )

    async def _purged(
        self, going: Mapping[str, Proxied], project: str, doomed: Sequence[Named], *, page_only: bool
    ) -> tuple[list[str], dict[str, Any]]:
        """Forget the pages of *project* in the indexes *going*, and remove what is *doomed*; what went of both."""
        pages: list[str] | None = None
        try:
            pages = await _forget_pages(going, project)
        except StorageFailed:
            if page_only:
                raise
        removed = await self._carried_out(await self._plan(doomed))
        if pages is None:
            pages = await _forget_pages(going, project)  # there was no room on the disk for that before files went
        return pages, removed

    async def _plan(self, doomed: Sequence[Named], but: str | None = None) -> _Plan:
        """What becomes of the names *doomed*: what is pinned stays, and so do bytes that have another name.

        What is pinned in the index *but* does not count.
        """
        protected = await self._stores.pinned.digests(but)
        pinned = [each for each in doomed if each.entry.sha256 in protected]
        going = [each for each in doomed if each.entry.sha256 not in protected]
        sizes = {each.entry.sha256: each.entry.size for each in going if each.entry.sha256 != NO_BYTES}
        names = {(each.index, each.project, each.name) for each in going}
        if sizes:
            async for found in by_project(self._stores.ledger):
                for each in found:
                    if (each.index, each.project, each.name) not in names:
                        sizes.pop(each.entry.sha256, None)  # it has another name
        return _Plan(going, pinned, sizes)

    async def _foretold(self, plan: _Plan) -> dict[str, Any]:
        """What carrying out *plan* would remove."""
        there = await self._stores.files.present(plan.sizes)
        return _summed(plan.going, plan.pinned, _Deleted([size for sha256, size in plan.sizes.items() if sha256 in there]))

    async def _carried_out(self, plan: _Plan) -> dict[str, Any]:
        try:
            await self._forget_names(plan.going)
        except StorageFailed:
            deleted = await self._delete(plan.sizes)  # a full disk takes no record before there is room for one
            if not deleted.freed:
                raise
            await self._forget_names(plan.going)
        else:
            deleted = await self._delete(plan.sizes)
        return _summed(plan.going, plan.pinned, deleted)

    async def _forget_names(self, going: Iterable[Named]) -> None:
        places: dict[tuple[str, str], set[str]] = {}
        for each in going:
            places.setdefault((each.index, each.project), set()).add(each.name)
        for place, gone in places.items():
            await self._stores.ledger.remove(*place, gone)

    async def _delete(self, sizes: Mapping[str, int]) -> _Deleted:
        """Delete bytes (digests with their sizes), but for those that an operator has just pinned."""
        deleted = _Deleted()
        for sha256, size in sizes.items():
            async with self._stores.pinned.lock:
                try:
                    if not self._stores.pinned.holds(sha256) and await self._stores.files.delete(sha256):
                        deleted.freed.append(size)
                except StorageFailed as error:
                    deleted.left.append({"sha256": sha256, "size": size, "error": str(error)})
        return deleted


class _Plan(Struct, frozen=True):
    """Names that go, names that are *pinned* and stay, and the bytes that go: their sizes, by sha256."""

    going: Sequence[Named]
    pinned: Sequence[Named]
    sizes: Mapping[str, int]


class _Deleted(Struct, frozen=True):
    """The sizes of the files that went, and those that cannot be removed, with the reason."""

    freed: list[int] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)


def _summed(removed: Iterable[Named], pinned: Iterable[Named], deleted: _Deleted) -> dict[str, Any]:
    return {
        "removed": [each.values() for each in removed],
        "pinned": [each.values() for each in pinned],
        "files": len(deleted.freed),
        "bytes": sum(deleted.freed),
        "left": deleted.left,
    }


def _of_indexes(names: Iterable[str], project: str) -> list[dict[str, str]]:
    return [{"index": name, "project": project} for name in names]


async def _forget_pages(indexes: Mapping[str, Proxied], project: str) -> list[str]:
    """Forget the pages of *project* in *indexes*; the names of those that had one."""
    return [name for name, each in indexes.items() if await _forget_page(each, project)]


async def _has_page(index: Proxied, project: str) -> bool:
    return await index.pages.load(project) is not None


async def _forget_page(index: Proxied, project: str) -> bool:
    """Forget the page and the documents beside it; whether there was a page."""
    await index.documents.forget(project)
    return await index.pages.forget(project)


async def _refreshed(index: Proxied, project: str) -> dict[str, Any]:
    before = await index.pages.remembered(project)
    try:
        head = await index.pages.refresh(project)
    except ProxyError as error:
        return {"outcome": "failed", "error": str(error), "serial": None}
    if not head.found:
        return {"outcome": "missing", "error": None, "serial": None}
    if before is None or not before.found:
        return {"outcome": "new", "error": None, "serial": head.serial}
    return {"outcome": "unchanged" if before.digest == head.digest else "changed", "error": None, "serial": head.serial}

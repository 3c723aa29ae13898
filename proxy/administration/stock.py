"""What is in a data directory: names with the bytes they stand for, and the bytes that are there.

The ledger is the source of names, the tree of files that of bytes.  A name whose bytes are not there was evicted, or they were
lost; bytes without a name belong to a record that was lost.  Bytes that may not be read are neither stored nor missing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from proxy import __version__
from proxy.administration.parts import IndexParts, Observed, Stores, Working, chosen, project_name
from proxy.cache.ledger import Ledger
from proxy.cache.records import page_of
from proxy.errors import NotFound
from proxy.interfaces import Report
from proxy.model import NO_BYTES, CommittedFile, LedgerEntry
from proxy.names import filename_of, version_of


class Named(Struct, frozen=True):
    """A name, and what is known of its bytes."""

    index: str
    project: str
    name: str
    entry: LedgerEntry

    @property
    def title(self) -> str:
        """What the file or companion is called, without the digest that tells companions apart."""
        return self.name.rpartition("/")[2]

    @property
    def filename(self) -> str:
        return filename_of(self.name)

    def values(self) -> dict[str, Any]:
        """What every answer about it says."""
        return {
            "index": self.index,
            "project": self.project,
            "filename": self.title,
            "sha256": self.entry.sha256 or None,
            "size": self.entry.size,
        }


async def by_project(ledger: Ledger, index: str | None = None, project: str | None = None) -> AsyncIterator[list[Named]]:
    """The names of all projects, project by project; or of one *index*, of one *project* (normalised).

    An index may not be configured any more.  All names together may be too many for the memory.
    """
    async for everything in recorded_by_project(ledger, index, project):
        found = [each for each in everything if each.entry.sha256 != NO_BYTES]
        if found:
            yield found


async def recorded_by_project(
    ledger: Ledger, index: str | None = None, project: str | None = None
) -> AsyncIterator[list[Named]]:
    """As :func:`by_project`, with the companions of which it is known that they do not exist."""
    for place in await ledger.places():
        if index in (None, place[0]) and project in (None, place[1]):
            entries = await ledger.peek(*place)
            yield [Named(*place, name, entry) for name, entry in entries.items()]


class _Moments(Struct):
    """The first and the last of some points in time."""

    first: float | None = None
    last: float | None = None

    def add(self, moment: float) -> None:
        self.first = moment if self.first is None else min(self.first, moment)
        self.last = moment if self.last is None else max(self.last, moment)


class Stock:
    """Lists and sums."""

    def __init__(
        self, indexes: Mapping[str, IndexParts], stores: Stores, working: Working, observed: Observed, default: str | None
    ) -> None:
        self._indexes = indexes
        self._default = default
        self._stores = stores
        self._working = working
        self._observed = observed

    async def ls(self, report: Report, project: str | None = None, index: str | None = None) -> list[dict[str, Any]]:
        """Every project with the number of its stored files and their bytes; of one *project*, every file.  Raises NotFound."""
        if index is not None:
            chosen(self._indexes, index)
        stored = {file.sha256: file for file in await self._stores.usage.files()}
        if project is None:
            ledger = self._stores.ledger
            return [_summed(found, stored, await self._unreadable(found)) async for found in by_project(ledger, index)]
        wanted = project_name(project)
        pinned = await self._stores.pinned.digests()
        rows = [
            _row(each, stored.get(each.entry.sha256), each.entry.sha256 in pinned, unreadable.get(each.entry.sha256))
            async for found in by_project(self._stores.ledger, index, wanted)
            for unreadable in [await self._unreadable(found)]
            for each in sorted(found, key=lambda each: each.title)
        ]
        if not rows:
            raise NotFound(f"nothing of {wanted} is stored here")
        return rows

    async def recent(self, report: Report, seconds: float, index: str | None = None) -> list[str]:
        """The projects of which a file was used within the last *seconds*, sorted.

        Of indexes that ask no upstream, only those that clients get from the default index; and none whose name belongs to
        another index.  Who fetches them again from the default index tells no upstream of private names.
        """
        since = self._working.clock() - seconds
        used = {file.sha256 for file in await self._stores.usage.files() if file.used >= since}
        named = by_project(self._stores.ledger, index)
        places = {(each.index, each.project) async for found in named for each in found if each.entry.sha256 in used}
        return sorted({project for name, project in places if await self._may_be_asked_for(name, project)})

    async def _may_be_asked_for(self, index: str, project: str) -> bool:
        """Whether the default index may be asked for *project* because *index* has files of it."""
        parts = self._indexes.get(index)
        if parts is not None and parts.proxied is not None:
            return not await parts.proxied.reserved(project)
        return self._default is not None and index in self._indexes[self._default].repository.leaves

    async def stats(self, report: Report, top: int = 10, seconds: float = 86400.0) -> dict[str, Any]:
        """Sums over everything, the *top* projects by bytes, what the service that answers is, and its figures of *seconds*.

        Raises BadRequest.
        """
        statistics = await self._observed.statistics(seconds, top)
        files = await self._stores.usage.files()
        stored = {file.sha256: file for file in files}
        projects = []
        moments = _Moments()
        named: set[str] = set()
        unreadable: dict[str, str] = {}
        async for found in by_project(self._stores.ledger):
            refused = await self._unreadable(found)
            unreadable.update(refused)
            projects.append(_summed(found, stored, refused))
            for each in found:
                if each.entry.sha256 in stored:
                    named.add(each.entry.sha256)
                    moments.add(each.entry.committed_at)
        keys = await self._stores.records.keys("")
        return {
            "directory": str(self._stores.directory),
            "version": __version__,
            "running_since": self._observed.since,
            "max_size": self._stores.max_size,
            "saved": self._observed.saved(),
            **await self._working.work.run(_of_files, files, named),
            "projects": len(projects),
            "missing": sum(each["missing"] for each in projects),
            "unreadable": {"files": len(unreadable), "why": sorted(set(unreadable.values()))},
            "oldest": moments.first,
            "newest": moments.last,
            "largest": sorted(projects, key=lambda each: -each["bytes"])[: max(0, top)],
            "free": await self._stores.files.free(),
            "records": len(keys),
            "pages": sum(1 for key in keys if page_of(key) is not None),
            "answered": self._observed.answered(),
            "statistics": statistics,
            "degraded": [{"reason": each.reason.value, "words": each.words} for each in await self._observed.look()],
        }

    async def _unreadable(self, found: Sequence[Named]) -> Mapping[str, str]:
        """Those of the bytes of *found* that cannot be read, by sha256, with the reason."""
        return await self._stores.files.unreadable([each.entry.sha256 for each in found])


def _row(each: Named, stored: CommittedFile | None, pinned: bool, unreadable: str | None) -> dict[str, Any]:
    version = version_of(each.filename)
    return {
        **each.values(),
        "version": None if version is None else str(version),
        "committed_at": each.entry.committed_at,
        "stored": stored is not None and unreadable is None,
        "unreadable": unreadable,
        "last_used": None if stored is None else stored.used,
        "pinned": pinned,
    }


def _summed(found: Sequence[Named], stored: Mapping[str, CommittedFile], unreadable: Mapping[str, str]) -> dict[str, Any]:
    """What is there of one project."""
    readable = [each for each in found if each.entry.sha256 not in unreadable]
    there = [stored[each.entry.sha256] for each in readable if each.entry.sha256 in stored]
    return {
        "index": found[0].index,
        "project": found[0].project,
        "files": len(there),
        "bytes": sum(file.size for file in there),
        "missing": len(readable) - len(there),
        "unreadable": len(found) - len(readable),
        "last_used": max((file.used for file in there), default=None),
    }


def _of_files(files: Sequence[CommittedFile], named: Collection[str]) -> dict[str, Any]:
    """What the tree says by itself, and which files in it are not *named*."""
    unnamed = [file.size for file in files if file.sha256 not in named]
    return {
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "unnamed": {"files": len(unnamed), "bytes": sum(unnamed)},
        "longest_unused": min((file.used for file in files), default=None),
    }

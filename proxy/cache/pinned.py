"""Pinned files, which are never evicted: those that an operator pinned, and what nothing can fetch again.

A project may be pinned as such: then all that the ledger knows of it is, what is stored later too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from msgspec import Struct
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.cache.ledger import Ledger, means
from proxy.cache.private_bytes import PrivateBytes
from proxy.interfaces import IFileStore, IVersionedRecords
from proxy.model import NO_BYTES, Change
from proxy.names import filename_of

#: Index and project.
_Place = tuple[str, str]

#: The first part of the keys of the book: one record for each of them, which says nothing more.
_FOLDER = "pinned"
#: The first part of the keys of pinned projects.
_PROJECTS = "pinned-project"


class PinnedFile(Struct, frozen=True, order=True):
    """One pinned name, and the bytes it stands for.  A file and its companions are pinned under the file's name."""

    index: str
    project: str
    filename: str
    sha256: str


class PinnedBook:
    """All pinned files of a data directory.  The files of the indexes named *hosted* never go, pinned or not.

    *private* is told of what is guarded for them.
    """

    log = Logger()

    def __init__(
        self,
        records: IVersionedRecords,
        ledger: Ledger,
        store: IFileStore,
        hosted: Collection[str] = frozenset(),
        private: PrivateBytes | None = None,
    ) -> None:
        self._private = private
        self._records = records
        self._ledger = ledger
        self._store = store
        self._pinned: frozenset[PinnedFile] | None = None
        self._bytes: frozenset[str] = frozenset()
        self._projects: frozenset[_Place] | None = None
        #: The bytes of pinned projects, when they were last asked for.
        self._of_projects: frozenset[str] = frozenset()
        self._hosted = hosted
        #: Bytes that are about to be named in a hosted index, and those of which that was said since all were looked at.
        self._guarded: Counter[str] = Counter()
        self._recent: set[str] = set()
        #: Held while a file is evicted and while the book changes: what is reported as pinned has not just gone.
        self.lock = DeferredLock()

    def configure(self, hosted: Collection[str]) -> None:
        """From now on the files of the indexes named *hosted* never go."""
        self._hosted = hosted

    async def pin(self, index: str, project: str, which: str | None = None) -> list[str]:
        """Pin files of *project* (normalised) that are stored now: all of them, or those of the version or name *which*.

        Companions are pinned with their file, not where they alone are stored.  Returns the names of the files, sorted; none
        when nothing of that kind is stored.  Raises StorageFailed.
        """
        entries = await self._ledger.peek(index, project)
        wanted = [
            PinnedFile(index, project, filename, entry.sha256)
            for name, entry in entries.items()
            if entry.sha256 != NO_BYTES and means(which, filename := filename_of(name))
        ]
        async with self.lock:
            there = {each for each in wanted if await self._is_stored(each.sha256)}
            files = {each.filename for each in there if (entry := entries.get(each.filename)) and entry.sha256 == each.sha256}
            there = {each for each in there if each.filename in files}
            await self._write((await self._all()) | there)
        return sorted({each.filename for each in there})

    async def pin_project(self, index: str, project: str) -> list[str]:
        """Pin all of *project* (normalised), what is stored later too.

        Returns the names of the files that are stored now, sorted.  Raises StorageFailed.
        """
        async with self.lock:
            projects = await self.projects()
            await self._records.apply([Change(_project_key((index, project)), b"")])
            self._projects = projects | {(index, project)}
        return await self.pin(index, project)

    async def add(self, files: Iterable[PinnedFile]) -> None:
        """Keep *files*, whether they are stored yet or not (for those that are made here and can be fetched nowhere)."""
        async with self.lock:
            await self._write((await self._all()) | frozenset(files))

    async def unpin_project(self, index: str, project: str) -> bool:
        """Do not pin what is stored of *project* later; what is pinned of it stays pinned.  Whether the project was pinned."""
        async with self.lock:
            projects = await self.projects()
            if (index, project) not in projects:
                return False
            await self._records.apply([Change(_project_key((index, project)), None)])
            self._projects = projects - {(index, project)}
        await self.digests()
        return True

    async def unpin(self, index: str, project: str, which: str | None = None) -> list[str]:
        """Let files of *project* go again, all or those that *which* means as in `pin`.  Returns their names, sorted."""
        async with self.lock:
            pinned = await self._all()
            gone = {each for each in pinned if (each.index, each.project) == (index, project) and means(which, each.filename)}
            await self._write(pinned - gone)
        return sorted({each.filename for each in gone})

    async def files(self) -> list[PinnedFile]:
        """All pinned files, those of pinned projects among them, sorted by index, project and file name."""
        found = set(await self._all())
        for index, project in await self.projects():
            entries = await self._ledger.peek(index, project)
            names = ((filename_of(name), entry.sha256) for name, entry in entries.items() if entry.sha256 != NO_BYTES)
            found |= {PinnedFile(index, project, *each) for each in names}
        return sorted(found)

    async def projects(self) -> frozenset[_Place]:
        """(index, project) of the projects that are pinned as such."""
        if self._projects is None:
            rows = await self._records.scan(f"{_PROJECTS}/")
            found = (row.key.split("/") for row in rows)
            self._projects = frozenset((each[1], each[2]) for each in found if len(each) == 3)
        return self._projects

    async def digests(self, but: str | None = None) -> frozenset[str]:
        """The sha256 of everything that must not be evicted: pinned files, what came later under their names, hosted files.

        What is pinned in the index *but* does not count.  Raises StorageFailed while that cannot be told.
        """
        settled = {each for each in self._recent if not self._guarded[each]}
        pinned = [each for each in await self._all() if each.index != but]
        found = {each.sha256 for each in pinned}
        names: dict[_Place, set[str]] = {}
        for each in pinned:
            names.setdefault((each.index, each.project), set()).add(each.filename)
        for place, filenames in names.items():
            entries = await self._ledger.peek(*place)
            found |= {entry.sha256 for name, entry in entries.items() if filename_of(name) in filenames}
        of_projects: set[str] = set()
        for place in await self.projects():
            if place[0] != but:
                entries = await self._ledger.peek(*place)
                of_projects |= {entry.sha256 for entry in entries.values() if entry.sha256 != NO_BYTES}
        for place in await self._ledger.places() if self._hosted else ():
            if place[0] in self._hosted:
                entries = await self._ledger.peek(*place)
                of_projects |= {each.sha256 for each in entries.values() if each.gone_at is None}
        if but is None:
            self._of_projects = frozenset(of_projects)
            self._recent -= {each for each in settled if not self._guarded[each]}
        return frozenset(found | of_projects | self._recent)

    def guard(self, sha256: str) -> None:
        """These bytes stay, until as often :meth:`unguard` was called; no ledger entry names them yet."""
        if self._private is not None:
            self._private.add(sha256)
        self._guarded[sha256] += 1
        self._recent.add(sha256)

    def unguard(self, sha256: str) -> None:
        """The ledger names these bytes by now, or they may go."""
        self._guarded[sha256] -= 1
        if self._guarded[sha256] <= 0:
            del self._guarded[sha256]

    async def forget(self, index: str) -> None:
        """Pin nothing of *index* any more.  Raises StorageFailed."""
        async with self.lock:
            pinned, projects = await self._all(), await self.projects()
            await self._write(frozenset(each for each in pinned if each.index != index))
            gone = [place for place in projects if place[0] == index]
            if gone:
                await self._records.apply([Change(_project_key(place), None) for place in gone])
                self._projects = projects - frozenset(gone)
        await self.digests()

    def holds(self, sha256: str) -> bool:
        """Whether these bytes are pinned under any name, as far as the book has been read (as it has after `digests`)."""
        return sha256 in self._bytes or sha256 in self._of_projects or sha256 in self._recent

    async def _all(self) -> frozenset[PinnedFile]:
        if self._pinned is None:
            rows = await self._records.scan(f"{_FOLDER}/")
            self._set(frozenset(PinnedFile(*row.key.split("/")[1:]) for row in rows if row.key.count("/") == 4))
        assert self._pinned is not None
        return self._pinned

    def _set(self, pinned: frozenset[PinnedFile]) -> None:
        self._pinned = pinned
        self._bytes = frozenset(each.sha256 for each in pinned)

    async def _write(self, pinned: frozenset[PinnedFile]) -> None:
        before = await self._all()
        changes = [Change(_key(each), b"") for each in pinned - before] + [Change(_key(each), None) for each in before - pinned]
        if changes:
            await self._records.apply(changes)
            self._set(pinned)

    async def _is_stored(self, sha256: str) -> bool:
        source = await self._store.open(sha256)
        if source is not None:
            source.close()
        return source is not None


def _project_key(place: _Place) -> str:
    return "/".join((_PROJECTS, *place))


def _key(pinned: PinnedFile) -> str:
    return f"{_FOLDER}/{pinned.index}/{pinned.project}/{pinned.filename}/{pinned.sha256}"

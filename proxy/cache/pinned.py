"""Pinned files, which are never evicted: those that an operator pinned, and what nothing can fetch again."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.cache.ledger import Ledger, means
from proxy.interfaces import IFileStore, IVersionedRecords
from proxy.model import NO_BYTES, Change
from proxy.names import filename_of

#: The first part of the keys of the book: one record for each of them, which says nothing more.
_FOLDER = "pinned"


@frozen(slots=True, order=True)
class PinnedFile:
    """One pinned name, and the bytes it stands for.  A file and its companions are pinned under the file's name."""

    index: str
    project: str
    filename: str
    sha256: str


class PinnedBook:
    """All pinned files of a data directory."""

    log = Logger()

    def __init__(self, records: IVersionedRecords, pins: Ledger, store: IFileStore) -> None:
        self._records = records
        self._pins = pins
        self._store = store
        self._kept: frozenset[PinnedFile] | None = None
        self._bytes: frozenset[str] = frozenset()
        #: Held while a file is evicted and while the book changes: what is told to be kept has not just gone.
        self.lock = DeferredLock()

    async def keep(self, index: str, project: str, which: str | None = None) -> list[str]:
        """Keep files of *project* (normalised) that are stored now: all of them, or those of the version or name *which*.

        Companions are kept with their file, not where they alone are stored.  Returns the names of the files, sorted; none when
        nothing of that kind is stored.  Raises StorageFailed.
        """
        pins = await self._pins.peek(index, project)
        wanted = [
            PinnedFile(index, project, filename, pin.sha256)
            for name, pin in pins.items()
            if pin.sha256 != NO_BYTES and means(which, filename := filename_of(name))
        ]
        async with self.lock:
            there = {each for each in wanted if await self._is_stored(each.sha256)}
            files = {each.filename for each in there if (pin := pins.get(each.filename)) and pin.sha256 == each.sha256}
            there = {each for each in there if each.filename in files}
            await self._write((await self._all()) | there)
        return sorted({each.filename for each in there})

    async def add(self, files: Iterable[PinnedFile]) -> None:
        """Keep *files*, whether they are stored yet or not (for those that are made here and can be fetched nowhere)."""
        async with self.lock:
            await self._write((await self._all()) | frozenset(files))

    async def release(self, index: str, project: str, which: str | None = None) -> list[str]:
        """Let files of *project* go again, all or those that *which* means as in `keep`.  Returns their names, sorted."""
        async with self.lock:
            kept = await self._all()
            gone = {each for each in kept if (each.index, each.project) == (index, project) and means(which, each.filename)}
            await self._write(kept - gone)
        return sorted({each.filename for each in gone})

    async def kept(self) -> list[PinnedFile]:
        """All that is kept, sorted by index, project and file name."""
        return sorted(await self._all())

    async def digests(self) -> frozenset[str]:
        """The sha256 of everything that must not be evicted: kept files, and what came later under their names.

        Raises StorageFailed while that cannot be told.
        """
        kept = await self._all()
        found = set(self._bytes)
        names: dict[tuple[str, str], set[str]] = {}
        for each in kept:
            names.setdefault((each.index, each.project), set()).add(each.filename)
        for place, filenames in names.items():
            pins = await self._pins.peek(*place)
            found |= {pin.sha256 for name, pin in pins.items() if filename_of(name) in filenames}
        return frozenset(found)

    def holds(self, sha256: str) -> bool:
        """Whether these bytes are kept under any name, as far as the book has been read (as it has after `digests`)."""
        return sha256 in self._bytes

    async def _all(self) -> frozenset[PinnedFile]:
        if self._kept is None:
            rows = await self._records.scan(f"{_FOLDER}/")
            self._set(frozenset(PinnedFile(*row.key.split("/")[1:]) for row in rows if row.key.count("/") == 4))
        assert self._kept is not None
        return self._kept

    def _set(self, kept: frozenset[PinnedFile]) -> None:
        self._kept = kept
        self._bytes = frozenset(each.sha256 for each in kept)

    async def _write(self, kept: frozenset[PinnedFile]) -> None:
        before = await self._all()
        changes = [Change(_key(each), b"") for each in kept - before] + [Change(_key(each), None) for each in before - kept]
        if changes:
            await self._records.apply(changes)
            self._set(kept)

    async def _is_stored(self, sha256: str) -> bool:
        source = await self._store.open(sha256)
        if source is not None:
            source.close()
        return source is not None


def _key(pinned: PinnedFile) -> str:
    return f"{_FOLDER}/{pinned.index}/{pinned.project}/{pinned.filename}/{pinned.sha256}"

"""Pinned files, which are never evicted: those that an operator pinned, and what nothing can fetch again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from attrs import frozen
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.cache.ledger import Ledger, filename_of, means
from proxy.interfaces import IFileStore, IRecordStore
from proxy.model import NO_BYTES

#: Where the book is in the record store.
KEY = "kept"


@frozen(slots=True, order=True)
class PinnedFile:
    """One pinned name, and the bytes it stands for.  A file and its companions are pinned under the file's name."""

    index: str
    project: str
    filename: str
    sha256: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[PinnedFile])


class PinnedBook:
    """All pinned files of a data directory."""

    log = Logger()

    def __init__(self, records: IRecordStore, pins: Ledger, store: IFileStore) -> None:
        self._records = records
        self._pins = pins
        self._store = store
        self._kept: frozenset[PinnedFile] | None = None
        self._bytes: frozenset[str] = frozenset()
        #: Held while a file is evicted and while the book changes: what is told to be kept has not just gone.
        self.lock = DeferredLock()

    async def keep(self, index: str, project: str, which: str | None = None) -> list[str]:
        """Keep files of *project* (normalised) that are stored now: all of them, or those of the version or name *which*.

        Returns their names, sorted; none when nothing of that kind is stored.  Raises StorageFailed.
        """
        pins = await self._pins.peek(index, project)
        wanted = [
            PinnedFile(index, project, filename, pin.sha256)
            for name, pin in pins.items()
            if pin.sha256 != NO_BYTES and means(which, filename := filename_of(name))
        ]
        async with self.lock:
            there = {each for each in wanted if await self._is_stored(each.sha256)}
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
            data = await self._records.get(KEY)
            try:
                self._set(frozenset(_decoder.decode(data) if data is not None else ()))
            except msgspec.MsgspecError as error:
                self._set(frozenset())
                self.log.error("which files are pinned cannot be read and starts anew, pin them again: {error}", error=error)
        assert self._kept is not None
        return self._kept

    def _set(self, kept: frozenset[PinnedFile]) -> None:
        self._kept = kept
        self._bytes = frozenset(each.sha256 for each in kept)

    async def _write(self, kept: frozenset[PinnedFile]) -> None:
        if kept != self._kept:
            await self._records.set(KEY, _encoder.encode(sorted(kept)))
            self._set(kept)

    async def _is_stored(self, sha256: str) -> bool:
        source = await self._store.open(sha256)
        if source is not None:
            source.close()
        return source is not None


def readable(value: bytes) -> bool:
    """Whether *value* is a record of kept files."""
    try:
        _decoder.decode(value)
    except msgspec.MsgspecError:
        return False
    return True

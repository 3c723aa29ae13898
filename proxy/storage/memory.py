"""The in-memory twins of the stores: the same contract, gone with the process."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from zope.interface import implementer

from proxy.core.bounded import BoundedTable
from proxy.interfaces import Clock, IBytesSource, IFileStore, IPartialFile, IRecordStore, IVersionedRecords
from proxy.model import Change, CommittedFile, Versioned
from proxy.settings import MIB
from proxy.storage.whole import WholeFile, anonymous


@implementer(IRecordStore)
class MemoryRecords:
    """A dictionary."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    async def set(self, key: str, value: bytes) -> None:
        self._values[key] = bytes(value)

    async def set_all(self, values: Mapping[str, bytes]) -> None:
        for key, value in values.items():
            await self.set(key, value)

    async def delete(self, key: str) -> bool:
        return self._values.pop(key, None) is not None

    async def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._values if key.startswith(prefix))

    async def close(self) -> None:
        self._values.clear()


@implementer(IRecordStore)
class RecentRecords:
    """The records that were last used, of at most *limit* bytes."""

    def __init__(self, limit: int) -> None:
        self._values: BoundedTable[str, bytes] = BoundedTable(limit, len)

    async def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    async def set(self, key: str, value: bytes) -> None:
        self._values.put(key, bytes(value))

    async def set_all(self, values: Mapping[str, bytes]) -> None:
        for key, value in values.items():
            await self.set(key, value)

    async def delete(self, key: str) -> bool:
        there = self._values.get(key) is not None
        self._values.discard(key)
        return there

    async def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._values if key.startswith(prefix))

    async def close(self) -> None:
        self._values = BoundedTable(0, len)


@implementer(IVersionedRecords)
class MemoryVersioned:
    """A dictionary.  *clock* tells the time, in seconds since the epoch."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._version = 0
        self._records: dict[str, tuple[Versioned, float]] = {}

    async def read(self, key: str) -> Versioned | None:
        return self._there(key)

    async def scan(self, prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        keys = sorted(key for key in self._records if key.startswith(prefix) and key > after)
        return [found for key in keys if (found := self._there(key)) is not None][:limit]

    async def scan_all(self, prefixes: Sequence[str]) -> list[list[Versioned]]:
        return [await self.scan(each) for each in prefixes]

    async def branches(self, prefix: str) -> list[str]:
        rest = (each.key.removeprefix(prefix).partition("/") for each in await self.scan(prefix))
        return sorted({head for head, slash, _ in rest if slash})

    async def apply(self, changes: Sequence[Change]) -> int | None:
        for each in changes:
            found = self._there(each.key)
            if each.expects not in (None, 0 if found is None else found.version):
                return None
        self._version += 1
        for each in changes:
            if each.value is None:
                self._records.pop(each.key, None)
            else:
                expires = math.inf if each.expires is None else each.expires
                self._records[each.key] = Versioned(each.key, bytes(each.value), self._version), expires
        return self._version

    async def close(self) -> None:
        self._records.clear()

    def _there(self, key: str) -> Versioned | None:
        record, expires = self._records.get(key, (None, 0.0))
        return record if expires > self._clock() else None


@implementer(IPartialFile)
class MemoryPartial:
    """An anonymous file (``memfd``)."""

    def __init__(self, store: MemoryFiles, key: str, left: bytes) -> None:
        self._store = store
        self._key = key
        self._descriptor = os.memfd_create(key)
        self.size = 0
        marks, self.whole = store.marks.get(key, ({}, None)) if left else ({}, None)
        self.marks: Mapping[int, str] = dict(marks)
        self.write(left)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> None:
        self.size += os.pwrite(self._descriptor, data, self.size)

    def copy(self, descriptor: int, size: int) -> None:
        self.write(os.pread(descriptor, size, 0))

    def truncate(self, size: int = 0) -> None:
        os.ftruncate(self._descriptor, size)
        self.size = size

    def mark(self, sha256: str, whole: int | None) -> None:
        marks, _ = self._store.marks.get(self._key, ({}, None))
        self._store.marks[self._key] = {**marks, self.size: sha256}, whole

    def unchanged(self, descriptor: int) -> bool:
        return True

    def read_all(self) -> Iterator[bytes]:
        for offset in range(0, self.size, MIB):
            yield os.pread(self._descriptor, MIB, offset)

    def commit(self, sha256: str) -> None:
        self._store.files[sha256] = b"".join(self.read_all())
        self._store.marks.pop(self._key, None)
        self._store.changes += 1

    def discard(self) -> None:
        self._store.left.pop(self._key, None)
        self._store.marks.pop(self._key, None)

    def suspend(self) -> None:
        self._store.left[self._key] = b"".join(self.read_all())

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@implementer(IFileStore)
class MemoryFiles:
    """Committed files as bytes by digest, and when they were used; suspended partial files by key."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left: dict[str, bytes] = {}
        self.marks: dict[str, tuple[Mapping[int, str], int | None]] = {}
        self.changes = 0
        self.times: dict[str, float] = {}
        self.quarantine: dict[str, bytes] = {}
        #: Bytes that can be stored in all.
        self.space = 2**40

    async def open(self, sha256: str, size: int | None = None) -> WholeFile | None:
        data = self.files.get(sha256)
        if data is not None and size not in (None, len(data)):
            await self.set_aside(sha256)
            return None
        return None if data is None else anonymous(data, sha256)

    async def open_first(self, candidates: Sequence[tuple[str, int | None]]) -> WholeFile | None:
        for sha256, size in candidates:
            if (found := await self.open(sha256, size)) is not None:
                return found
        return None

    async def unchecked(self, sha256: str) -> WholeFile | None:
        return await self.open(sha256)

    async def present(self, digests: Collection[str]) -> frozenset[str]:
        return frozenset(digests) & self.files.keys()

    async def unreadable(self, digests: Collection[str]) -> Mapping[str, str]:
        return {}

    async def begin(self, key: str, *, resume: bool) -> MemoryPartial:
        left = self.left.pop(key, b"")
        return MemoryPartial(self, key, left if resume else b"")

    async def delete(self, sha256: str) -> bool:
        self.changes += 1
        return self.files.pop(sha256, None) is not None

    async def set_aside(self, sha256: str, source: IBytesSource | None = None) -> None:
        if sha256 in self.files:
            self.quarantine[sha256] = self.files.pop(sha256)
            self.changes += 1

    async def walk(self) -> list[tuple[str, int]]:
        return sorted((file.sha256, file.size) for file in await self.inventory())

    async def inventory(self) -> list[CommittedFile]:
        return [CommittedFile(sha256, len(data), self.times.get(sha256, 0.0)) for sha256, data in self.files.items()]

    async def touch(self, times: Mapping[str, float]) -> None:
        self.times |= {sha256: used for sha256, used in times.items() if sha256 in self.files}

    async def sweep(self) -> int:
        doomed = [key for key in self.left if not resumable(key)]
        for key in doomed:
            del self.left[key]
        return len(doomed)

    async def free(self) -> int:
        return self.space - sum(map(len, self.files.values()))

    async def abandon(self, before: float) -> int:
        if before <= 0.0:  # when anything was left is not known: it counts as long ago
            return 0
        size = sum(map(len, self.left.values()))
        self.left.clear()
        return size

    async def close(self) -> None:
        self.files.clear()
        self.left.clear()


def resumable(key: str) -> bool:
    """Whether a partial file under *key* can be gone on with: only a known digest can tell whether its bytes still belong."""
    algorithm, dash, _ = key.partition("-")
    return bool(dash) and algorithm in hashlib.algorithms_available

"""Records that nothing can bring back, in two databases: what one of them loses, the other one still knows.

A value is read from the first one.  Where that has none, or one that cannot be read, the second one is asked, and what it knows
goes back to the first.  So a damaged database costs nothing, and nobody has to wait for a copy to be made at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from proxy.errors import StorageFailed
from proxy.interfaces import IRecordStore
from proxy.storage.database import Starved

#: Under this key each database remembers that it was compared with the other one.
_COMPARED = ".compared"
#: Under this key the first database remembers, over a crash too, that the second one may be behind.
_UNEQUAL = ".unequal"


@implementer(IRecordStore)
class DoubledRecords:
    """The records of *first* and, as a second copy, of *second*.

    *readable* says of a key and a value whether that is what should be there.  *prefixes* are those of all keys.
    """

    log = Logger()

    def __init__(
        self,
        first: IRecordStore,
        second: IRecordStore,
        readable: Callable[[str, bytes], bool],
        prefixes: tuple[str, ...],
    ) -> None:
        self._first = first
        self._second = second
        self._readable = readable
        self._prefixes = prefixes
        #: Keys that the second database did not take.
        self._behind: set[str] = set()
        #: Changes that have not ended.
        self._changing = 0
        #: Whether the first database remembers that the second one may be behind.
        self._noted = False
        #: Whether that was so before this process changed anything, ``None`` when nobody has looked yet.
        self._left_unequal: bool | None = None

    async def get(self, key: str) -> bytes | None:
        """The value under *key*, or ``None``.  Raises StorageFailed while neither database can say."""
        failed: StorageFailed | None = None
        value: bytes | None = None
        try:
            value = await self._first.get(key)
        except StorageFailed as error:
            failed = error
        if value is not None and self._readable(key, value):
            return value
        known = await self._known(key, value, failed)
        if known is None:
            return value
        if failed is None:
            self.log.warn("{key} was lost and is taken from its second copy", key=key)
            await self._put_back(key, known)
        return known

    async def _known(self, key: str, damaged: bytes | None, failed: StorageFailed | None) -> bytes | None:
        """What the second database knows of *key*, for which the first one has *damaged*, nothing, or *failed*.

        Raises StorageFailed when that alone could have told.
        """
        try:
            value: bytes | None = await self._second.get(key)
        except StorageFailed:
            if failed is not None:
                raise failed from None
            if damaged is not None or await self._has_lost(key):
                raise
            return None
        if value is not None and self._readable(key, value):
            return value
        if failed is not None:
            raise failed
        return None

    async def _has_lost(self, key: str) -> bool:
        """Whether the first database may once have known more of *key*: it is a new one, or lists what it does not give."""
        return await self._first.get(_COMPARED) is None or key in await self._first.keys(key)

    async def _put_back(self, key: str, value: bytes) -> None:
        try:
            await self._first.set(key, value)
        except StorageFailed as error:
            self.log.error("{key} is known from its second copy alone: {error}", key=key, error=error)

    async def set(self, key: str, value: bytes) -> None:
        self._changing += 1
        try:
            await self._note()
            # Both at the same time: a download waits for it.
            copying = Deferred.fromCoroutine(self._second_set(key, value))
            try:
                await self._first.set(key, value)
            finally:
                await copying
        finally:
            self._changing -= 1

    async def _note(self) -> None:
        """Let the first database remember that the second one may be behind, until `mend` has found that it is not."""
        if self._noted:
            return
        with suppress(StorageFailed):  # whoever changes something is told by that change
            await self._was_unequal()
            await self._first.set(_UNEQUAL, b"")
            self._noted = True

    async def _was_unequal(self) -> bool:
        if self._left_unequal is None:
            self._left_unequal = await self._first.get(_UNEQUAL) is not None
        return self._left_unequal

    async def _second_set(self, key: str, value: bytes) -> None:
        try:
            await self._second.set(key, value)
        except StorageFailed as error:
            if not self._behind:
                self.log.error("{key} has no second copy until that can be written: {error}", key=key, error=error)
            self._behind.add(key)
        else:
            self._behind.discard(key)

    async def delete(self, key: str) -> bool:
        # In this order: after a crash in between, or a failure, the record is as it was.
        await self._second.delete(key)
        self._behind.discard(key)
        return bool(await self._first.delete(key))

    async def keys(self, prefix: str) -> list[str]:
        try:
            found = await self._first.keys(prefix)
        except StorageFailed:
            return await self._second.keys(prefix)
        if await self._first.get(_COMPARED) is None:
            found = sorted({*found, *await self._second.keys(prefix)})
        return found

    async def mend(self) -> None:
        """Give each database what the other one lacks, and what it did not take before.  Raises StorageFailed."""
        unequal, self._noted = await self._was_unequal(), False
        for key in sorted(self._behind):
            value = await self._first.get(key)
            if value is None:
                self._behind.discard(key)
            else:
                await self._second_set(key, value)
        compared = await self._first.get(_COMPARED), await self._second.get(_COMPARED)
        if None in compared or unequal:
            if None in compared and compared != (None, None):
                self.log.error("a database was lost: what nothing else knows is taken from its second copy")
            for here, there in ((self._first, self._second), (self._second, self._first)):
                for prefix in self._prefixes:
                    for key in await here.keys(prefix):
                        await self._copy(key, here, there)
            for each in (self._first, self._second):
                await each.set(_COMPARED, b"")
            self._left_unequal = False
        noted = await self._first.get(_UNEQUAL) is not None
        if noted and not (self._noted or self._changing or self._behind):
            await self._first.delete(_UNEQUAL)

    async def _copy(self, key: str, here: IRecordStore, there: IRecordStore) -> None:
        """Give *there* what *here* knows, unless it knows something itself; where they differ, the first one is right."""
        value = await here.get(key)
        if value is None or not self._readable(key, value):
            return
        other = await there.get(key)
        if other is None or not self._readable(key, other) or (here is self._first and other != value):
            await there.set(key, value)

    async def close(self) -> None:
        await self._first.close()
        await self._second.close()


@implementer(IRecordStore)
class SpareRecords:
    """The records of *records* that can be fetched again; in memory as long as *records* takes none.

    *memory* is such a store, bounded.  What cannot be read counts as lost, unless only this process has no room to read it.
    """

    def __init__(self, records: IRecordStore, memory: IRecordStore) -> None:
        self._records = records
        self._memory = memory

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self._memory.get(key)
        if value is not None:
            return value
        try:
            value = await self._records.get(key)
        except Starved:
            raise  # who took it for lost would remove it
        except StorageFailed:
            return None
        return value

    async def set(self, key: str, value: bytes) -> None:
        try:
            await self._records.set(key, value)
        except StorageFailed:
            await self._memory.set(key, value)
            raise
        await self._memory.delete(key)

    async def delete(self, key: str) -> bool:
        there = await self._memory.delete(key)
        return bool(await self._records.delete(key)) or there

    async def keys(self, prefix: str) -> list[str]:
        unwritten = await self._memory.keys(prefix)
        if not unwritten:
            return await self._records.keys(prefix)
        try:
            return sorted({*unwritten, *await self._records.keys(prefix)})
        except StorageFailed:
            return unwritten

    async def close(self) -> None:
        await self._records.close()
        await self._memory.close()

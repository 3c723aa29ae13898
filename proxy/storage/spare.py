"""Records that can be fetched again, in memory as long as the disk takes none."""

from __future__ import annotations

from collections.abc import Mapping

from zope.interface import implementer

from proxy.errors import StorageFailed
from proxy.interfaces import IRecordStore
from proxy.storage.database import Starved


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

    async def set_all(self, values: Mapping[str, bytes]) -> None:
        try:
            await self._records.set_all(values)
        except StorageFailed:
            await self._memory.set_all(values)
            raise
        for key in values:
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

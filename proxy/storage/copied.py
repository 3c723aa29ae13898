"""Versioned records as they are now, for those who only read while a proxy works on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from zope.interface import implementer

from proxy.errors import StorageFailed
from proxy.interfaces import Clock, IOffload, IVersionedRecords
from proxy.model import Change, Versioned
from proxy.storage.halves import copied
from proxy.storage.table import Row, Table, versioned

T = TypeVar("T")


@implementer(IVersionedRecords)
class CopiedVersioned:
    """A copy of the records in *first*, or else in *second*.  Raises StorageFailed when none can be made of what is there."""

    def __init__(self, first: Path, second: Path, offload: IOffload, clock: Clock) -> None:
        self.name = first.name
        self._offload = offload
        self._clock = clock
        try:
            self._copy = copied(first) or copied(second)
        except StorageFailed:
            self._copy = copied(second)
            if self._copy is None:
                raise

    async def read(self, key: str) -> Versioned | None:
        row: Row | None = await self._offload.run(self._asked, lambda rows: rows.get(key, self._clock()), None)
        return versioned(row) if row is not None and row.sound else None

    async def scan(self, prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        rows: list[Row] = await self._offload.run(
            self._asked, lambda rows: rows.scan(prefix, after, limit, self._clock()), list[Row]()
        )
        return [versioned(row) for row in rows if row.sound]

    async def scan_all(self, prefixes: Sequence[str]) -> list[list[Versioned]]:
        return [await self.scan(each) for each in prefixes]

    async def branches(self, prefix: str) -> list[str]:
        return await self._offload.run(self._asked, lambda rows: rows.branches(prefix, self._clock()), list[str]())

    async def apply(self, changes: Sequence[Change]) -> int | None:
        raise StorageFailed("nothing can be written to a copy")

    async def look(self) -> str | None:
        """A copy is as it is."""
        return None

    async def copy_to(self, directory: Path) -> None:
        raise StorageFailed("a copy is not copied: ask the proxy that works on the original")

    async def close(self) -> None:
        if self._copy is not None:
            self._copy.close()

    def _asked(self, question: Callable[[Table], T], nothing: T) -> T:
        if self._copy is None:
            return nothing
        try:
            return question(self._copy.table)
        except sqlite3.Error as error:
            raise StorageFailed(f"the copy of the ledger cannot be read: {error}") from error

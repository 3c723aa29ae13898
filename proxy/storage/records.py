"""Records in diskcache: small mutable values in SQLite that survive a restart.

diskcache pickles what it does not know and unpickles what it finds (CVE-2025-69872), so :class:`BytesOnly` stores bytes under
text keys and refuses any row that claims to be a pickle.  There is no eviction: its default would drop data at 1 GiB.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from diskcache import Cache, Disk
from diskcache.core import MODE_BINARY, MODE_RAW
from twisted.logger import Logger
from zope.interface import implementer

from proxy.errors import StorageFailed
from proxy.interfaces import IOffload, IRecordStore


class Refused(Exception):
    """A row in the database is not one that this proxy wrote."""


class BytesOnly(Disk):  # type: ignore[misc]  # diskcache has no types
    """A :class:`diskcache.Disk` that neither pickles nor unpickles."""

    def put(self, key: Any) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"keys are text, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise Refused("a key in the record database is a pickle")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if read or not isinstance(value, bytes):
            raise TypeError(f"values are bytes, not {type(value).__name__}")
        return super().store(value, False, key)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if read or mode not in (MODE_RAW, MODE_BINARY):
            raise Refused("a value in the record database is a pickle")
        fetched = super().fetch(mode, filename, value, False)
        if not isinstance(fetched, bytes):
            raise Refused("a value in the record database is not bytes")
        return fetched


@implementer(IRecordStore)
class DiskRecords:
    """One diskcache under *directory* (mode 0700)."""

    log = Logger()

    def __init__(self, directory: Path, offload: IOffload) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(directory, 0o700)
        self._offload = offload
        try:
            self._cache = Cache(
                str(directory), disk=BytesOnly, eviction_policy="none", cull_limit=0, size_limit=2**62, timeout=60, statistics=0
            )
        except sqlite3.DatabaseError as error:
            raise StorageFailed(
                f"the record database {directory} cannot be read ({error}): move it away and start again; files are kept"
            ) from error
        # Each thread has a connection of its own; this one is of no more use, and nothing else would ever close it.
        self._cache.close()

    async def get(self, key: str) -> bytes | None:
        return await self._offload.run(self._get, key)

    def _get(self, key: str) -> bytes | None:
        try:
            value: bytes | None = self._cache.get(key)
        except (Refused, sqlite3.DatabaseError, OSError) as error:
            # A record that cannot be read is fetched again: a broken cache must not break a build.
            self.log.error("record {key} cannot be read and is asked for anew: {error}", key=key, error=error)
            return None
        return value

    async def set(self, key: str, value: bytes) -> None:
        await self._offload.run(self._guarded, self._cache.set, key, value)

    async def delete(self, key: str) -> bool:
        return bool(await self._offload.run(self._guarded, self._cache.delete, key))

    async def keys(self, prefix: str) -> list[str]:
        return await self._offload.run(self._guarded, self._keys, prefix)

    def _keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._cache.iterkeys() if key.startswith(prefix))

    def _guarded(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except (sqlite3.DatabaseError, OSError) as error:
            raise StorageFailed(f"the record database did not take {args[0]}: {error}") from error

    async def close(self) -> None:
        await self._offload.run(self._cache.close)

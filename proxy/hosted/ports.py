"""What a hosted index asks of the cache beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from proxy.model import LedgerEntry


class FirstDigests(Protocol):
    """The ledger: which bytes each name was first given, for ever."""

    async def of(self, index: str, project: str) -> Mapping[str, LedgerEntry]:
        """The entries of a project; while they cannot be read, what was entered meanwhile."""

    async def peek(self, index: str, project: str) -> Mapping[str, LedgerEntry]:
        """The entries of a project.  Raises StorageFailed."""

    async def add_all(self, index: str, project: str, entries: Mapping[str, LedgerEntry]) -> None:
        """Enter what is not there already, for good.  Raises StorageFailed."""

    async def put(self, index: str, project: str, name: str, entry: LedgerEntry) -> None:
        """Enter *name* in place of what is there."""


class RoomForFiles(Protocol):
    """The limits of the store."""

    def committed(self, sha256: str, size: int) -> None:
        """Told of each file that was stored."""

    async def make_room(self, needed: int) -> bool:
        """Told that *needed* bytes are to be stored and do not fit: whether trying again is worth it."""


class Guarding(Protocol):
    """What keeps bytes from being evicted that the ledger does not name yet."""

    def guard(self, sha256: str) -> None:
        """These bytes stay, as often as this is said."""

    def unguard(self, sha256: str) -> None:
        """The ledger names them by now, or nobody wants them."""

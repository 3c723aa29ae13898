"""What is cached of a project: since when, when it was last used, and whether it is pinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook
from proxy.cache.usage import UsageBook


class CachedFile(Struct, frozen=True):
    """A file whose bytes are stored: its *size* (bytes), *since* when and last *used* when (seconds since 1970)."""

    size: int
    since: float
    used: float
    pinned: bool


class CachedFiles:
    """Reads *ledger*, *usage* and *pinned*."""

    def __init__(self, ledger: Ledger, usage: UsageBook, pinned: PinnedBook) -> None:
        self._ledger = ledger
        self._usage = usage
        self._pinned = pinned

    async def of(self, indexes: Sequence[str], project: str) -> Mapping[str, CachedFile]:
        """The files of *project* (normalised) in *indexes* that are stored, by name.  Raises StorageFailed."""
        entries = {
            name: entry
            for index in reversed(indexes)
            for name, entry in (await self._ledger.peek(index, project)).items()
            if "/" not in name and entry.gone_at is None
        }
        stored = await self._usage.files_of({each.sha256 for each in entries.values()})
        pinned = await self._pinned.digests()
        return {
            name: CachedFile(file.size, entry.committed_at, file.used, entry.sha256 in pinned)
            for name, entry in entries.items()
            if (file := stored.get(entry.sha256)) is not None
        }

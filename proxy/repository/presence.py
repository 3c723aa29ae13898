"""What of a project is in the store: all that an offline index has to offer."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxy.cache.entries import Entries
from proxy.core.bounded import BoundedTable
from proxy.interfaces import IFileStore, IOffload
from proxy.model import Page
from proxy.repository.offered import may_be_there
from proxy.settings import MIB

#: What may be remembered of what is there; one digest, and the rest of an entry, weigh so much (bytes).
_MEMORY, _DIGEST, _ENTRY = 16 * MIB, 180, 1000


class There(Struct, frozen=True):
    """The sha256 of what is there; ``state`` names this very set."""

    digests: frozenset[str]
    state: str


class _Known(Struct, frozen=True):
    """What was there when the store, the page and the ledger entries stood like this."""

    changes: int
    page: str
    entries: Entries
    there: There


class Presence:
    """What is there of the projects of one index."""

    def __init__(self, store: IFileStore, offload: IOffload) -> None:
        self._store = store
        self._offload = offload
        self._known: BoundedTable[str, _Known] = BoundedTable(
            _MEMORY, lambda known: _ENTRY + _DIGEST * len(known.there.digests)
        )

    def at_hand(self, project: str, page: str, entries: Entries) -> There | None:
        """What is there of *project*, whose page has the digest *page*, if no file came or went since it was looked for."""
        known = self._known.get(project)
        if known is None or known.changes != self._store.changes or known.page != page or known.entries is not entries:
            return None
        return known.there

    async def of(self, project: str, page: str, entries: Entries, load: Callable[[], Awaitable[Page]]) -> There:
        """The same, looked for if need be; *load* gives the page."""
        there = self.at_hand(project, page, entries)
        if there is None:
            changes = self._store.changes
            names = await self._offload.run(may_be_there, await load(), entries)
            digests = await self._store.present(names)
            there = There(digests, hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16])
            self._known.put(project, _Known(changes, page, entries, there))
        return there

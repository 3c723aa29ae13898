"""What of a project is in the store: all that an offline index has to offer.

All indexes share the store.  Bytes that only others have, which this index may not serve, are not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from proxy.cache.entries import Entries
from proxy.cache.private_bytes import PrivateBytes
from proxy.core.bounded import BoundedTable
from proxy.interfaces import IFileStore, IOffload
from proxy.model import LedgerEntry, Page
from proxy.repository.offered import may_be_there
from proxy.settings import MIB

#: What may be remembered of what is there; one digest, and the rest of an entry, weigh so much (bytes).
_MEMORY, _DIGEST, _ENTRY = 16 * MIB, 180, 1000


class There(Struct, frozen=True):
    """The sha256 of what is there; ``state`` names this very set."""

    digests: frozenset[str]
    state: str


class _Known(Struct, frozen=True):
    """What was there when the store, what is for others, the page and the ledger entries stood like this."""

    changes: tuple[int, int]
    page: str
    entries: Entries
    there: There


class Presence:
    """What is there of the projects of one index.  *private* knows what in the *store* is for other indexes."""

    def __init__(self, store: IFileStore, private: PrivateBytes, offload: IOffload) -> None:
        self._store = store
        self._private = private
        self._offload = offload
        self._known: BoundedTable[str, _Known] = BoundedTable(
            _MEMORY, lambda known: _ENTRY + _DIGEST * len(known.there.digests)
        )

    def at_hand(self, project: str, page: str, entries: Entries) -> There | None:
        """What is there of *project*, whose page has the digest *page*, if no file came or went since it was looked for."""
        known = self._known.get(project)
        if known is None or known.changes != self._changes() or known.page != page or known.entries is not entries:
            return None
        return known.there

    async def of(self, project: str, page: str, entries: Entries, load: Callable[[], Awaitable[Page]]) -> There:
        """The same, looked for if need be; *load* gives the page."""
        there = self.at_hand(project, page, entries)
        if there is None:
            changes = self._changes()
            names, unproven = await self._offload.run(_wanted, await load(), entries)
            digests = await self._store.present(names)
            digests -= frozenset(await self._private.held_of(digests & unproven))
            there = There(digests, hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:16])
            self._known.put(project, _Known(changes, page, entries, there))
        return there

    def _changes(self) -> tuple[int, int]:
        return self._store.changes, self._private.changes


def _wanted(page: Page, entries: Mapping[str, LedgerEntry]) -> tuple[frozenset[str], frozenset[str]]:
    """The sha256 of all that may be there, and those of them that the index has by the word of its *page* alone."""
    names = may_be_there(page, entries)
    return names, names.difference(entry.sha256 for entry in entries.values())

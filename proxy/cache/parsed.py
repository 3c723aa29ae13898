"""Parsed pages at hand: what metadata, files and prefetching ask of a page is looked up in them, and parsing takes long.

All proxy indexes share the room for them, so one that is asked for everything is not confined to its part of what others do
not use.
"""

from __future__ import annotations

from msgspec import Struct

from proxy.core.bounded import BoundedTable
from proxy.model import Page
from proxy.simple.parse import weight


class _Parsed(Struct, frozen=True):
    page: Page
    weight: int


class ParsedPages:
    """The parsed pages of all who keep some, at most *memory* bytes of them: those that were not asked for longest go first."""

    def __init__(self, memory: int) -> None:
        self._pages: BoundedTable[tuple[object, str], _Parsed] = BoundedTable(memory, lambda parsed: parsed.weight)

    def get(self, owner: object, digest: str) -> Page | None:
        """The page of *owner* whose body has *digest*, if it is at hand."""
        found = self._pages.get((owner, digest))
        return None if found is None else found.page

    def put(self, owner: object, digest: str, page: Page, body: bytes) -> None:
        """*owner* has parsed *body*, which has *digest*, and found *page*."""
        self._pages.put((owner, digest), _Parsed(page, weight(page, body)))

    def forget(self, owner: object) -> None:
        """Drop all pages of *owner*."""
        for key in [each for each in self._pages if each[0] is owner]:
            self._pages.discard(key)

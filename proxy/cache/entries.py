"""The ledger entries of one project, all at once: a page needs all of them."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.model import EMPTY, NO_BYTES, LedgerEntry

#: What an entry weighs in memory besides its text, roughly, in bytes; a project without entries weighs one.
_ENTRY_WEIGHT = 600


class Entries(dict[str, LedgerEntry]):
    """The entries of one project by file name, companions under :func:`companion_name`.  Never changed once made.

    *removals*: how often names were removed from them.
    """

    def __init__(self, entries: Mapping[str, LedgerEntry] = EMPTY, removals: int = 0) -> None:
        super().__init__(entries)
        self._removals = removals
        self._known = self._known_size = 0
        self.weight = _ENTRY_WEIGHT
        for name, entry in entries.items():
            self._count(name, entry, 1)
        self._name_state()

    def _name_state(self) -> None:
        #: Names what is known of companions beyond their page, and which removals came before: another state, another offer.
        self.state_of_companions = f"{self._known}.{self._known_size}.{self._removals}"

    def _count(self, name: str, entry: LedgerEntry, sign: int) -> None:
        self.weight += sign * (_ENTRY_WEIGHT + len(name) + len(entry.url))
        # What a page states of a companion is no news when it has been fetched; that it is not to be had is.
        if "/" in name and (not entry.stated or entry.sha256 == NO_BYTES):
            self._known += sign
            self._known_size += sign * entry.size

    def changed(self, changes: Mapping[str, LedgerEntry | None], removals: int) -> Entries:
        """These entries with *changes* (``None``: without the name).  Looks at those alone, however many there are."""
        changed = Entries(removals=removals)
        dict.update(changed, self)
        changed.weight, changed._known, changed._known_size = self.weight, self._known, self._known_size
        for name, entry in changes.items():
            before = changed.pop(name, None)
            if before is not None:
                changed._count(name, before, -1)
            if entry is not None:
                changed[name] = entry
                changed._count(name, entry, 1)
        changed._name_state()
        return changed


NO_ENTRIES = Entries()

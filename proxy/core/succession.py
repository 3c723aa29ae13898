"""Whether a page that upstream has sent takes the place of the one that is kept: one pure decision.

A stand-in never overrules the preferred upstream, an index does not go back in time unnoticed, and a page does not lose all of
its files by an accident.  What may be true after all is believed once the same upstream has said it for
:data:`CONFIRMED_AFTER` seconds, or when an operator asks.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from proxy.core.bounded import BoundedTable
from proxy.model import Head

#: Seconds for which the same upstream has to say what is doubted.
CONFIRMED_AFTER = 600.0

#: What may be remembered of doubts (bytes).
_MEMORY = 1_000_000


class Doubt(enum.Enum):
    """Why a page is not taken in place of the one that is kept."""

    OLDER = "its serial is lower than that of the page that is kept"
    LAGS = "it is an older page than that of another upstream"
    OTHER_BYTES = "it states other digests than the preferred upstream did"
    LACKS_FILES = "it is a stand-in's, and lacks files that the preferred upstream has"
    EMPTIED = "it has no files any more"

    @property
    def may_be_true(self) -> bool:
        """Whether it is believed when it is confirmed."""
        return self in (Doubt.OLDER, Doubt.EMPTIED)


class Candidate(Struct, frozen=True):
    """What is known of the new page beside its head.

    ``preferred``: its upstream is preferred to that of the page that is kept, or that one is configured no more.
    ``stands_in``: the page that is kept is that of a preferred upstream.  ``other_bytes`` and ``lacks_files``: held against the
    page that is kept, it states other digests, or lacks files.  ``emptied``: it has no files, no project status says why, and
    the page that is kept has some.
    """

    preferred: bool = False
    stands_in: bool = False
    other_bytes: bool = False
    lacks_files: bool = False
    emptied: bool = False


def doubt(kept: Head | None, new: Head, candidate: Candidate) -> Doubt | None:
    """Why *new* is not to take the place of *kept*; ``None``: it is.

    Serials of one upstream are compared only if they are of the same URL: another URL may be that of another index.
    """
    if kept is None or not kept.found:
        return None
    same = new.upstream == kept.upstream
    comparable = new.place == kept.place if same else not candidate.preferred
    if comparable and goes_back(kept, new):
        return Doubt.OLDER if same else Doubt.LAGS
    if not same and candidate.other_bytes:
        return Doubt.OTHER_BYTES
    if candidate.stands_in and candidate.lacks_files:
        return Doubt.LACKS_FILES
    return Doubt.EMPTIED if candidate.emptied else None


def goes_back(kept: Head | None, new: Head) -> bool:
    """Whether the serial of *new* is lower than that of *kept*, as far as both state one."""
    if kept is None or not kept.found or kept.serial is None or new.serial is None:
        return False
    return new.serial < kept.serial


class Doubts:
    """What has been doubted, of which key, since when.  The time is told, in seconds of a steady clock."""

    def __init__(self) -> None:
        self._since: BoundedTable[str, tuple[Doubt, str, float]] = BoundedTable(_MEMORY, lambda since: 300, len)

    def stands(self, key: str, doubted: Doubt | None, upstream: str, now: float, *, forced: bool) -> bool:
        """Whether what *upstream* says of *key* is still not to be believed, because it is *doubted*.

        *forced*: an operator asked for it, who is believed in everything but other bytes under known names.
        """
        if doubted is None:
            self._since.discard(key)
            return False
        if not forced and not doubted.may_be_true:
            return True
        if doubted is Doubt.OTHER_BYTES:
            return True
        known = self._since.get(key)
        if known is None or known[:2] != (doubted, upstream):
            self._since.put(key, known := (doubted, upstream, now))
        if not forced and now - known[2] < CONFIRMED_AFTER:
            return True
        self._since.discard(key)
        return False

    def forget(self, key: str) -> None:
        """What is said of *key* is not doubted any more."""
        self._since.discard(key)

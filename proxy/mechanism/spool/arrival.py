"""How much of a file has arrived, and what of that may be seen: the one place that knows the state of a download."""

from __future__ import annotations

import os

from twisted.python.failure import Failure

from proxy.core.wheels import OpenFile, SparseFile
from proxy.mechanism.spool.passing import WINDOW, Passing
from proxy.mechanism.spool.reader import HOLD
from proxy.mechanism.spool.states import GIVEN_UP, HIDDEN, TAKING, SpoolEvent, SpoolState, after
from proxy.mechanism.spool.writer import Writer
from proxy.settings import KIB

#: Files up to this size are read for all who waited for them at once (bytes).
SMALL = 64 * KIB


class Arrival:
    """The file that *writer* writes; *total* is its size as far as that is known (bytes)."""

    def __init__(self, writer: Writer, total: int | None) -> None:
        self.name = writer.name
        self.total = total
        #: The digest of the whole, once it is known.
        self.sha256: str | None = None
        #: What readers meet once a download that was given up has been seen to.
        self.failure: Failure | None = None
        #: What does not fit on the disk, when it is full.
        self.passing: Passing | None = None
        self._writer = writer
        self._state = SpoolState.ARRIVING
        #: What each reader asks at each step, and follows from the state.
        self._is_hidden = self._is_complete = False
        self._whole: bytes | None = None

    # -- where it stands -----------------------------------------------------------------------------------------------------

    def happened(self, event: SpoolEvent) -> None:
        """Go over to the state that follows *event*.  Raises ValueError for what cannot happen now."""
        self._state = state = after(self._state, event)
        self._is_hidden = state in HIDDEN
        self._is_complete = state is SpoolState.COMPLETE

    def is_taking(self) -> bool:
        """Whether bytes that come are taken."""
        return self._state in TAKING

    def is_hidden(self) -> bool:
        """Whether what has arrived is not to be trusted."""
        return self._is_hidden

    def is_complete(self) -> bool:
        """Whether all of it is here and right."""
        return self._is_complete

    def is_given_up(self) -> bool:
        """Whether no more of it will come although it is not complete."""
        return self._state in GIVEN_UP

    def is_sized(self, total: int | None) -> None:
        """It has *total* bytes, as far as that is known by now."""
        self.total = total

    def overflow(self, passing: Passing) -> None:
        """The disk takes no more; what comes is in *passing*."""
        self.passing = passing
        self.happened(SpoolEvent.OVERFLOWED)

    def empty(self, total: int | None) -> None:
        """Nothing has arrived, and the size is *total* as far as that is known."""
        self.passing = None
        self.total = total
        self.happened(SpoolEvent.EMPTIED)

    def end(self, sha256: str) -> None:
        """All of it has arrived, and is right."""
        self.sha256 = sha256
        self.total = self.written
        self.happened(SpoolEvent.COMPLETED)

    def fail(self, failure: Failure) -> None:
        """It was given up because of *failure*, and what had arrived has been seen to."""
        self.failure = failure
        self.happened(SpoolEvent.SETTLED)

    # -- what there is -------------------------------------------------------------------------------------------------------

    @property
    def written(self) -> int:
        """Bytes that are on the disk or have passed."""
        return self._writer.stored if self.passing is None else self.passing.end

    def visible(self) -> int:
        """The position up to which clients may see the file now."""
        if self._is_hidden:
            return 0
        written = self.written
        if self._is_complete:
            return written
        return max(0, written - HOLD if self.total is None else min(written, self.total - HOLD))

    def disk_extent(self) -> int:
        """The position up to which the file on the disk has bytes that may be sent."""
        visible = self.visible()
        return visible if self.passing is None else min(visible, self.passing.begin)

    def passing_bytes(self, position: int, limit: int) -> bytes:
        """At most *limit* bytes from memory; ``b""`` when *position* is on the disk."""
        if self.passing is None or position < self.passing.begin:
            return b""
        return self.passing.read(position, min(position + limit, self.visible()))

    def whole(self) -> bytes | None:
        """All bytes of a small file that has just come to its end, read once for all readers; else ``None``."""
        partial = self._writer.partial
        if not self.is_complete() or self.passing is not None or self.written > SMALL or partial.fileno() < 0:
            return None
        if self._whole is None:
            self._whole = os.pread(partial.fileno(), self.written, 0)
        return self._whole if len(self._whole) == self.written else None

    def unchanged(self, descriptor: int) -> bool:
        """Whether the file behind *descriptor* is what was received (as long as more arrives nobody can tell)."""
        return not self.is_complete() or self._writer.partial.unchanged(descriptor)

    def to_look_at(self) -> OpenFile | SparseFile | None:
        """All that has arrived, for those who look inside; ``None`` when its beginning has passed by.  Blocks."""
        partial = self._writer.partial
        if self.passing is None:
            return OpenFile(partial.fileno(), self.written)
        if not self.passing.has_all or self.written > WINDOW:
            return None
        whole = SparseFile(self.written)
        whole.add(0, b"".join(partial.read_all()))
        whole.add(self.passing.begin, self.passing.read(self.passing.begin, self.written))
        return whole

"""One reader's place in a file that is still arriving."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.errors import Attempted, StorageFailed, UpstreamFailed
from proxy.interfaces import IBytesSource
from proxy.settings import KIB

#: Bytes at the end that nobody sees before the digest matched.
HOLD = 4 * KIB


class Arriving(Protocol):
    """How much of the file has arrived, as a reader knows it (`proxy.mechanism.spool.arrival.Arrival`)."""

    name: str
    total: int | None
    sha256: str | None
    failure: Failure | None

    def is_complete(self) -> bool: ...

    def disk_extent(self) -> int: ...

    def passing_bytes(self, position: int, limit: int) -> bytes: ...

    def whole(self) -> bytes | None: ...

    def unchanged(self, descriptor: int) -> bool: ...


class Host(Protocol):
    """Where readers come from (`proxy.mechanism.spool.spooling.Spool`)."""

    def advanced(self, position: int) -> None:
        """Told that a client has been sent the bytes up to *position*."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call *listener* once, when there is more to see, or the end has come."""

    def off_change(self, listener: Callable[[], None]) -> None:
        """Do not call *listener*."""

    def left(self, reader: SpoolReader) -> None:
        """Told that *reader* reads no more."""

    def another(self) -> SpoolReader | None:
        """A new reader; ``None`` when it could not have every byte, or it is not certain yet that there will be any."""


@implementer(IBytesSource)
class SpoolReader:
    """A reader of *file* from byte 0 on, one of those of *host*.  It owns *descriptor*."""

    def __init__(self, file: Arriving, host: Host, descriptor: int) -> None:
        self._file = file
        self._host = host
        self._descriptor = descriptor
        self._listener: Callable[[], None] | None = None
        self._dropped: Exception | None = None
        #: What the client has been promised.
        self.size = file.total
        self.position = 0

    @property
    def sha256(self) -> str | None:
        return self._file.sha256

    def fileno(self) -> int:
        return self._descriptor

    def take_read(self) -> bytes | None:
        data = self._file.whole() if self._fits() else None
        if data is not None:
            self.confirm()
            self.advanced(len(data))
        return data

    def confine(self, start: int, stop: int) -> None:
        self.position = start

    def _fits(self) -> bool:
        """Whether the file still has the size that was promised: it may have begun anew."""
        return self.size is None or self._file.total in (None, self.size)

    def extent(self) -> int:
        total = self._file.total
        if (total != self.size and total is not None and self.size is not None) or self._dropped is not None:
            return 0
        extent = self._file.disk_extent()
        if total is None and self.size is not None:
            return min(extent, max(0, self.size - HOLD))  # begun anew: whether that is its end is not known yet
        return extent

    def from_memory(self, position: int, limit: int) -> bytes:
        return self._file.passing_bytes(position, limit) if self._fits() and self._dropped is None else b""

    def ended(self) -> bool:
        """Whether nothing more will arrive; raises the download's failure if it failed."""
        if self._dropped is not None:
            raise self._dropped
        if self._file.failure is not None:
            self._file.failure.raiseException()
        if not self._fits():
            reason = f"had {self.size:,} bytes at first and has {self._file.total:,} now"
            raise UpstreamFailed(self._file.name, [Attempted("upstream", reason, 0.0)])
        return self._file.is_complete()

    def confirm(self) -> None:
        if not self._file.unchanged(self._descriptor):
            raise StorageFailed(f"{self._file.name} was changed on the disk while it was sent: ask again")

    def drop(self, error: Exception) -> None:
        """Told by the spool: nothing more will be kept for this reader."""
        self._dropped = error

    def advanced(self, position: int) -> None:
        self.position = position
        self._host.advanced(position)

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listener = listener
        self._host.on_change(listener)

    def another(self) -> IBytesSource | None:
        same = self._descriptor >= 0 and self._dropped is None and self.size == self._file.total
        return self._host.another() if same else None

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._listener is not None:
                self._host.off_change(self._listener)
            self._host.left(self)

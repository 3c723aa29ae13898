"""What all that send files have in common: where they are, waiting for more bytes, and the page cache.

Before a window is read that is not in the page cache, a worker thread reads it in, so that the reactor never waits for a disk.
What has just arrived is in there: whoever waited for it does not ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from proxy.errors import StorageFailed
from proxy.interfaces import IBytesSource, IOffload
from proxy.mechanism.flight import swallow
from proxy.settings import KIB
from proxy.web.read_ahead import is_cached, read_in

#: Bytes copied through this process at once.
COPY = 64 * KIB


class Transfer(Struct, frozen=True):
    """Bytes *start* to *stop* (``None``: to the end) of *source* on their way out.  *moved* is called after each progress."""

    source: IBytesSource
    start: int
    stop: int | None
    offload: IOffload
    moved: Callable[[], None]


class Sender:
    """Carries out one *transfer*.

    A subclass says how bytes go out (`_send`, `_write`), when it goes on (`_go_on`), and what it gives back (`_release`).
    """

    #: Bytes to send at once.
    _piece = COPY

    def __init__(self, transfer: Transfer) -> None:
        self._source = transfer.source
        self._position = self._warm_to = transfer.start
        self._stop = transfer.stop
        self._offload = transfer.offload
        self._moved = transfer.moved
        self._waiting = False
        self._hungry = False
        self._over = False
        self.sent = 0
        self.done: Deferred[None] = Deferred(lambda _: self._end(None))

    def _goal(self) -> int:
        """The position up to which bytes can go out now."""
        extent = self._source.extent()
        return extent if self._stop is None else min(extent, self._stop)

    def _advance(self, count: int) -> None:
        self._position += count
        self.sent += count
        self._source.advanced(self._position)
        self._moved()

    def _step(self) -> bool:
        """Send one piece; whether another one may follow at once."""
        goal = min(self._goal(), self._position + self._piece)
        if goal > self._position:
            if not self._warm(goal):
                return False
            self._confirmed(goal)
            return self._send(goal - self._position)
        if self._at_end():
            self._end(None)
            return False
        if data := self._from_memory():
            self._advance(len(data))
            return self._write(data)
        self._wait()
        return False

    def _at_end(self) -> bool:
        if self._stop is not None and self._position >= self._stop:
            return True
        if not self._source.ended() or self._position < self._source.extent() or self._from_memory():
            return False
        self._source.confirm()
        return True

    def _confirmed(self, goal: int) -> None:
        """Whoever reads to the end of what is asked for must not get it if it is wrong.  Raises StorageFailed."""
        if goal == self._stop:
            self._source.confirm()

    def _from_memory(self) -> bytes:
        limit = COPY if self._stop is None else min(COPY, self._stop - self._position)
        return self._source.from_memory(self._position, limit)

    def _wait(self) -> None:
        """Be called again when the source has more."""
        if not self._waiting:
            self._waiting = self._hungry = True
            self._source.on_change(self._more)

    def _more(self) -> None:
        # Everything up to here had gone out, so what there is now was written a moment ago.
        self._warm_to = max(self._warm_to, self._goal())
        self._woken()

    def _woken(self) -> None:
        self._waiting = self._hungry = False
        if not self._over:
            self._go_on()

    def _warm(self, goal: int) -> bool:
        """Whether the bytes up to *goal* (a window at most) are in the page cache; if not, they are read in first."""
        if goal <= self._warm_to:
            return True
        if is_cached(self._source.fileno(), self._position, goal):
            self._warm_to = goal
            return True
        self._waiting = True
        # The descriptor is this thread's own: the response may end, and close its, before the disk answers.
        descriptor = os.dup(self._source.fileno())
        reading = Deferred.fromCoroutine(self._offload.run(read_in, descriptor, self._position, goal))
        reading.addCallback(self._warmed, goal)
        reading.addErrback(self._end)
        swallow(reading)
        return False

    def _warmed(self, _: None, goal: int) -> None:
        self._warm_to = goal
        self._woken()

    @property
    def hungry(self) -> bool:
        """Whether it waits for bytes to arrive."""
        return self._waiting and self._hungry

    def give_up(self, why: Exception) -> None:
        """End the body with an error."""
        self._end(Failure(why))

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._end(Failure(ConnectionLost()))

    def _go_on(self) -> None:
        raise NotImplementedError

    def _send(self, count: int) -> bool:
        """Send *count* bytes of the file, or as many as go out now; whether more may follow at once."""
        raise NotImplementedError

    def _write(self, data: bytes) -> bool:
        """Send *data*; whether more may follow at once."""
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError

    def _end(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._release()
        if not self.done.called:
            if failure is None:
                self.done.callback(None)
            else:
                self.done.errback(failure)


def shorter() -> StorageFailed:
    """What is said of a stored file that has fewer bytes than it had when it was opened."""
    return StorageFailed("the stored file was cut short while it was being sent: ask again, and it is fetched again")

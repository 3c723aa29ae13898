"""How a body goes out: files by ``sendfile`` where the transport is a plain socket, by bounded copies elsewhere.

Theory of operation.  A sender is the transport's producer while it has the floor.  :class:`SendfileSender` registers as a
*pull* producer on the TCP transport itself, whose ``resumeProducing`` Twisted calls exactly when its own buffer is empty and
the socket takes more; it then hands the kernel (file, offset, count), so no byte of the file enters this process and a slow
client costs a socket and an offset.  It goes on until the socket is full, up to :data:`TURN` bytes, and needs the reactor only
then: a file that is small, or arrives no faster than it is sent, goes out without a word to ``epoll``.
:class:`CopySender` is a *push* producer for everything else (TLS, chunked coding).  Before
either reads a window that is not in the page cache, a worker thread reads it in, so that the reactor never waits for a disk.
What has just arrived is in there: whoever waited for it does not ask.

Both end by firing ``done``: with ``None`` after the last byte, or with the failure that cut the body off; the connection is
then aborted, because a body that ended early must never look complete.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.errors import SlowUpstream, StorageFailed
from proxy.flight import swallow
from proxy.interfaces import IBytesSource, IOffload
from proxy.settings import KIB, MIB

#: Bytes to hand to the kernel, or to look at in the page cache, at once.
WINDOW = 1 * MIB
#: Bytes to hand to the kernel before others have their turn.
TURN = 2 * MIB
#: Bytes that the system reads ahead at least (``read_ahead_kb``).
_RUN = 128 * KIB
#: Bytes copied through this process at once.
COPY = 64 * KIB


class _Sender:
    """What both senders share: where they are, waiting for more bytes, and the page cache."""

    #: Bytes to send at once.
    _piece = COPY

    def __init__(
        self, source: IBytesSource, start: int, stop: int | None, offload: IOffload, moved: Callable[[], None]
    ) -> None:
        self._source = source
        self._position = start
        self._stop = stop
        self._offload = offload
        self._moved = moved
        self._warm_to = start
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
        if self._at_end():
            self._end(None)
            return False
        goal = min(self._goal(), self._position + self._piece)
        if goal > self._position:
            if not self._warm(goal):
                return False
            self._confirmed(goal)
            return self._send(goal - self._position)
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
        if _cached(self._source.fileno(), self._position, goal):
            self._warm_to = goal
            return True
        self._waiting = True
        # The descriptor is this thread's own: the response may end, and close its, before the disk answers.
        descriptor = os.dup(self._source.fileno())
        reading = Deferred.fromCoroutine(self._offload.run(_read_in, descriptor, self._position, goal))
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


@implementer(IPullProducer)
class SendfileSender(_Sender):
    """Sends bytes *start* to *stop* (``None``: to the end) of *source* down a plain TCP *transport*.

    *channel* is the producer that has to be put back on the transport afterwards.  *moved* is called after each progress.
    """

    _piece = WINDOW

    def __init__(self, transport: Connection, channel: Any, *args: Any) -> None:
        super().__init__(*args)
        self._transport: Any = transport
        self._channel = channel
        self._out = transport.getHandle().fileno()

    def start(self) -> Deferred[None]:
        self._transport.unregisterProducer()
        # Registering asks for bytes at once, while the headers may still be in the transport's buffer: let those out first.
        self._waiting = True
        self._transport.registerProducer(self, False)
        self._waiting = False
        # The headers, without a turn of the reactor; it meets the error if there is one.
        if self._transport.doWrite():
            self._transport.startWriting()
        return self.done

    def resumeProducing(self) -> None:
        """The transport's buffer is empty and the socket takes bytes (or may)."""
        if not self._waiting and not self._over:
            self._go_on()

    def _go_on(self) -> None:
        try:
            stop = self._position + TURN
            while self._step():
                if self._position >= stop:
                    self._transport.startWriting()
                    return
        except Exception:  # noqa: BLE001  # whoever waits for `done` is told
            self._end(Failure())

    def _send(self, count: int) -> bool:
        # If not all goes out, the transport asks for more when the socket takes more.
        try:
            sent = os.sendfile(self._out, self._source.fileno(), self._position, count)
        except BlockingIOError:
            self._transport.startWriting()
            return False
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self._transport.abortConnection()  # connectionLost follows and ends everything
                return False
            raise
        if sent == 0:
            raise _shorter()
        self._advance(sent)
        if sent < count:
            self._transport.startWriting()
        return sent == count

    def _write(self, data: bytes) -> bool:
        self._transport.write(data)
        return False  # the transport asks for more when this has gone out

    def _release(self) -> None:
        if self._transport.producer is self:
            self._transport.unregisterProducer()
            self._transport.registerProducer(self._channel, True)


@implementer(IPushProducer)
class CopySender(_Sender):
    """Sends bytes of *source* through *consumer* (a ``twisted.web`` request), which may code them (TLS, chunks)."""

    def __init__(self, consumer: Any, *args: Any) -> None:
        super().__init__(*args)
        self._consumer = consumer
        self._paused = False
        self._going = False

    def start(self) -> Deferred[None]:
        self._consumer.registerProducer(self, True)
        self._go_on()
        return self.done

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._waiting and not self._over:
            self._go_on()

    def _go_on(self) -> None:
        if self._going:
            return  # write() called resumeProducing() from within this loop
        self._going = True
        try:
            more = True
            while more and self._may_send():
                more = self._step()
        except Exception:  # noqa: BLE001  # whoever waits for `done` is told
            self._end(Failure())
        finally:
            self._going = False

    def _may_send(self) -> bool:
        return not (self._paused or self._over)

    def _send(self, count: int) -> bool:
        data = os.pread(self._source.fileno(), count, self._position)
        if not data:
            raise _shorter()
        self._advance(len(data))
        return self._write(data)

    def _write(self, data: bytes) -> bool:
        self._consumer.write(data)
        return True

    def _release(self) -> None:
        if self._consumer.channel is not None:  # there is none after a disconnect
            self._consumer.unregisterProducer()


class Silence:
    """Ends a sender when its source, which is still arriving, has had nothing for it for *limit* seconds."""

    def __init__(self, reactor: IReactorTime, limit: float) -> None:
        self._reactor = reactor
        self._limit = limit
        self._sender: _Sender | None = None
        self._call: IDelayedCall = reactor.callLater(limit, self._look)

    def watch(self, sender: _Sender) -> None:
        """Look after *sender*."""
        self._sender = sender

    def moved(self) -> None:
        """A byte went out."""
        if self._call.active():
            self._call.reset(self._limit)

    def _look(self) -> None:
        if self._sender is not None and self._sender.hungry:
            self._sender.give_up(SlowUpstream(f"upstream has sent nothing for {self._limit:g} s"))
        else:
            self._call = self._reactor.callLater(self._limit, self._look)

    def end(self) -> None:
        """The body has ended."""
        if self._call.active():
            self._call.cancel()


def _shorter() -> StorageFailed:
    return StorageFailed("the stored file was cut short while it was being sent: ask again, and it is fetched again")


def _cached(descriptor: int, start: int, stop: int) -> bool:
    """Whether the bytes from *start* to *stop* can be read without waiting for a disk (where the file system can tell).

    Disks are read in runs of :data:`_RUN` bytes: one byte of each tells.
    """
    byte = [bytearray(1)]
    try:
        return all(
            os.preadv(descriptor, byte, position, os.RWF_NOWAIT) == 1 for position in (*range(start, stop - 1, _RUN), stop - 1)
        )
    except OSError:
        return False


def _read_in(descriptor: int, start: int, stop: int) -> None:
    """Bring a part of a file into the page cache (blocks).  Closes *descriptor*."""
    try:
        for position in range(start, stop, MIB):
            os.pread(descriptor, min(MIB, stop - position), position)
    finally:
        os.close(descriptor)

"""A response body as it arrives: read in order, with back-pressure and a limit on silence."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from proxy.core.amounts import duration
from proxy.settings import KIB
from proxy.upstream.http.failures import Broken, Failed, Silent, reason
from proxy.upstream.http.traffic import Reception

#: Bytes that may wait to be read before the connection is told to pause.
_AHEAD = 256 * KIB


@implementer(IPushProducer)
class IncomingBody(Protocol):
    """Receives a body, as *reception* is told.

    *idle_timeout*: seconds without a byte, while bytes are wanted, after which it counts as broken.
    """

    transport: Any

    def __init__(self, reactor: IReactorTime, idle_timeout: float, reception: Reception) -> None:
        self._reactor = reactor
        self._reception = reception
        self._idle_timeout = idle_timeout
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._discarding = False
        self._consumer_full = False
        self._end: Failure | None = None
        self._waiting: Deferred[None] | None = None
        self._idle: Any = None
        self.received = 0
        #: Whether the end of the connection was the only sign of the body's end (RFC 9112 section 6.3): it may be cut off.
        self.unsure = False
        #: Whether more came than its content coding holds, which may be a part of it that was damaged.
        self.surplus = False

    def connectionMade(self) -> None:
        self._listen()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._reception.received(len(data))
        if self._discarding or self._end is not None:
            return
        self._chunks.append(data)
        self._held += len(data)
        self._listen()
        if self._held > _AHEAD and not self._paused:
            self._paused = True
            self._quiet()
            self.transport.pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._quiet()
        self._reception.ended()
        if self._end is None:
            self._end = reason
        self._wake()

    async def ready(self) -> None:
        """Wait for the first byte, or a good end.  Raises as :meth:`read`."""
        while not self._chunks:
            if self._end is not None:
                self._ended(self._end)
                return
            await self._change()

    async def beginning(self, count: int) -> bytes:
        """The first *count* bytes, which stay to be read; fewer if that is all that comes.  Before anything was read."""
        while self._held < count and self._end is None:
            await self._change()
        return b"".join(self._chunks)[:count]

    async def room(self) -> None:
        """Wait while the consumer of what is read is full."""
        while self._consumer_full:
            await self._change()

    async def read(self) -> bytes:
        """The next chunk, ``b""`` at the end.  Raises Broken when the body was cut off, Silent when nothing more came."""
        while self._consumer_full or not self._chunks:
            if self._end is not None and not self._chunks:
                return self._ended(self._end)
            if self._paused and not self._consumer_full:
                self._paused = False
                self._listen()
                self.transport.resumeProducing()
            else:
                await self._change()
        chunk = self._chunks.popleft()
        self._held -= len(chunk)
        return chunk

    async def _change(self) -> None:
        self._waiting = Deferred()
        await self._waiting

    # -- IPushProducer, for the consumer of what is read: while it is full, `read` waits, and so in the end does upstream

    def pauseProducing(self) -> None:
        self._consumer_full = True
        self._quiet()

    def resumeProducing(self) -> None:
        self._consumer_full = False
        self._listen()
        self._wake()

    def stopProducing(self) -> None:
        self.close()

    def progress(self) -> int | None:
        """Bytes so far; ``None`` while they are not wanted any faster."""
        return None if self._consumer_full or self._paused else self.received

    def give_up(self, why: Failed) -> None:
        """Have no more of it, because of *why*; what has arrived is good."""
        if self._end is None:
            self._stop(Broken(str(why)))

    def _ended(self, end: Failure) -> bytes:
        if end.check(ResponseDone):
            return b""
        if end.check(PotentialDataLoss):
            self.unsure = True
            return b""
        why = end.value if isinstance(end.value, Broken) else Broken(f"{reason(end.value, 0)} after {self.received:,} bytes")
        raise why

    def discard(self) -> None:
        """Let the rest come and go, so that the connection can be used again."""
        self._discarding = True
        self._consumer_full = False
        self._chunks.clear()
        self._listen()
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()

    def close(self) -> None:
        """Drop the connection if the body is not at its end."""
        if self._end is None:
            self._stop(Broken("closed"))

    def _stop(self, why: Broken) -> None:
        self._quiet()
        self._reception.ended()
        self._end = Failure(why)
        if self.transport is not None:
            self.transport.resumeProducing()  # a paused TLS connection would not notice its end
            self.transport.stopProducing()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _listen(self) -> None:
        """Begin to wait for the next byte, unless none is wanted now."""
        if self._end is not None or self._consumer_full:
            return
        if self._idle is None:
            self._idle = self._reactor.callLater(self._idle_timeout, self._silent)
        else:
            self._idle.reset(self._idle_timeout)

    def _quiet(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _silent(self) -> None:
        self._idle = None
        self._stop(Silent(f"no byte within {duration(self._idle_timeout)} after {self.received:,} bytes"))

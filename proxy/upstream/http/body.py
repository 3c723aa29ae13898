"""A response body as it arrives: read in order, with back-pressure and a limit on silence."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from proxy.core.amounts import duration
from proxy.settings import KIB
from proxy.upstream.http.connection import UpstreamResponse
from proxy.upstream.http.failures import Broken, Failed, Silent, reason
from proxy.upstream.http.traffic import Reception

#: Bytes that may wait to be read before the connection is told to pause.
_AHEAD = 256 * KIB


@implementer(IPushProducer)
class IncomingBody:
    """Receives the body of a response, as *reception* is told.

    *idle_timeout*: seconds without a byte, while bytes are wanted, after which it counts as broken.
    """

    def __init__(self, idle_timeout: float, reception: Reception) -> None:
        self._reception = reception
        self._idle_timeout = idle_timeout
        self._response: UpstreamResponse | None = None
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._discarding = False
        self._consumer_full = False
        self._over = False
        #: Why it has not come to its end, once it is over.
        self._error: BaseException | None = None
        self._unsure = False
        self._waiting: Deferred[None] | None = None
        self.received = 0
        #: Whether the end of the connection was the only sign of the body's end (RFC 9112 section 6.3): it may be cut off.
        self.unsure = False
        #: Whether more came than its content coding holds, which may be a part of it that was damaged.
        self.surplus = False

    # -- for the response

    def begin(self, response: UpstreamResponse, early: bytes, *, complete: bool) -> None:
        """*response* has come to its body, of which *early* is here; that is all if it is *complete*."""
        self._response = response
        if early:
            self._take(early)
        if not complete:
            self._listen()

    def receive(self, data: bytes) -> None:
        """More has come."""
        self._take(data)
        if self._discarding or self._over:
            return
        self._listen()
        if self._held > _AHEAD and not self._paused:
            self._paused = True
            self._quiet()
            if self._response is not None:
                self._response.pause()
        self._wake()

    def _take(self, data: bytes) -> None:
        self.received += len(data)
        self._reception.received(len(data))
        if not self._discarding and not self._over:
            self._chunks.append(data)
            self._held += len(data)

    def ended(self, error: BaseException | None, *, unsure: bool) -> None:
        """No more comes: that is all, or the *error* cut it off; *unsure*: nobody can tell which."""
        self._quiet()
        self._response = None
        self._reception.ended()
        if not self._over:
            self._over, self._error, self._unsure = True, error, unsure
        self._wake()

    async def ready(self) -> None:
        """Wait for the first byte, or a good end.  Raises as :meth:`read`."""
        while not self._chunks:
            if self._over:
                self._ended()
                return
            await self._change()

    async def beginning(self, count: int) -> bytes:
        """The first *count* bytes, which stay to be read; fewer if that is all that comes.  Before anything was read."""
        while self._held < count and not self._over:
            await self._change()
        return b"".join(self._chunks)[:count]

    async def room(self) -> None:
        """Wait while the consumer of what is read is full."""
        while self._consumer_full:
            await self._change()

    async def read(self) -> bytes:
        """The next chunk, ``b""`` at the end.  Raises Broken when the body was cut off, Silent when nothing more came."""
        while self._consumer_full or not self._chunks:
            if self._over and not self._chunks:
                return self._ended()
            if self._paused and not self._consumer_full:
                self._go_on()
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
        if not self._over:
            self._stop(Broken(str(why)))

    def _ended(self) -> bytes:
        error = self._error
        if error is None:
            self.unsure = self._unsure
            return b""
        raise error if isinstance(error, Broken) else Broken(f"{reason(error, 0)} after {self.received:,} bytes")

    def discard(self) -> None:
        """Let the rest come and go, so that the connection can be used again."""
        self._discarding = True
        self._consumer_full = False
        self._chunks.clear()
        self._listen()
        if self._paused:
            self._go_on()

    def close(self) -> None:
        """Drop the connection if the body is not at its end."""
        if not self._over:
            self._stop(Broken("closed"))

    def _go_on(self) -> None:
        self._paused = False
        self._listen()
        if self._response is not None:
            self._response.resume()

    def _stop(self, why: Broken) -> None:
        self._quiet()
        self._reception.ended()
        self._over, self._error = True, why
        response, self._response = self._response, None
        if response is not None:
            response.stop()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _listen(self) -> None:
        """Begin to wait for the next byte, unless none is wanted now."""
        if self._response is not None and not self._over and not self._consumer_full:
            self._response.expect(self._idle_timeout, self._silent)

    def _quiet(self) -> None:
        if self._response is not None:
            self._response.expect_nothing()

    def _silent(self) -> None:
        self._stop(Silent(f"no byte within {duration(self._idle_timeout)} after {self.received:,} bytes"))

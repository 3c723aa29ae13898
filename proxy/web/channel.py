"""Client connections: counted, bounded, and closed when the service stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.server import Site

from proxy.web.hot import Hit, HotRequests, is_whole
from proxy.web.serving import Front

#: A body that is copied behind its head rather than sent on its own (bytes).
_JOIN = 128 * 1024


_NO_BODIES = (
    b"HTTP/1.1 413 This proxy takes no request bodies: only GET and HEAD are answered\r\n"
    b"Content-Length: 0\r\nConnection: close\r\nAllow: GET, HEAD\r\n\r\n"
)


class Channel(HTTPChannel):
    """One client connection (HTTP/1.1)."""

    site: BoundedSite
    transport: Any
    #: The request in progress as it came, if it came in one piece, alone.
    raw: bytes | None = None
    #: Whether the next bytes begin a request.
    _between = True
    #: The next request, when it came whole while this one was being answered.
    _early: bytes | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.joined(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._between:
            if self.raw is not None and self._early is None and is_whole(data):
                self._early = data
                return
            if self._early is not None:
                data, self._early = self._early + data, None
            self.raw = None
        elif (hit := self.site.hot.answer(data)) is not None:
            self.resetTimeout()
            self._write(hit)
            self.site.front.answered_at_once(hit, self.transport.getPeer())
            return
        elif is_whole(data):
            self.raw = data
        self._between = False
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        super().allHeadersReceived()
        if self.length != 0:
            # Nothing here takes a body, and twisted.web would store one of any length before asking what to do with it.
            self.transport.write(_NO_BODIES)
            self.loseConnection()

    def _write(self, hit: Hit) -> None:
        """Hand the kernel what it takes at once, which spares a turn of the reactor; the transport keeps the rest."""
        data = hit.head + hit.body if len(hit.body) < _JOIN else hit.head
        transport = self.transport
        if isinstance(transport, Connection) and not (transport.TLS or transport.dataBuffer or transport._tempDataBuffer):
            sent = transport.writeSomeData(data)
            if not isinstance(sent, int) or sent < 0:
                transport.abortConnection()
                return
            data = data[sent:]
        if data:
            transport.write(data)
        if len(hit.body) >= _JOIN:
            transport.write(hit.body)

    def requestDone(self, request: Request) -> None:
        # A request that came in one piece, alone, and without a body has left nothing in the line buffer.
        self._between = self.raw is not None
        self.raw = None
        early, self._early = self._early, None
        super().requestDone(request)
        if early is not None and self.persistent:
            self.dataReceived(early)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.left(self)
        super().connectionLost(reason)


class BoundedSite(Site):
    """A site that takes at most *limit* connections at once.

    *full* is called with true when the limit is reached and with false when there is room again: whoever listens stops
    accepting meanwhile, and further clients wait in the kernel's queue.
    """

    protocol = Channel  # type: ignore[assignment]  # without the wrapper that could negotiate HTTP/2
    noisy = False

    def __init__(
        self, front: Front, hot: HotRequests, reactor: Any, limit: int, idle_timeout: float, full: Callable[[bool], None]
    ) -> None:
        self.front = front
        self.hot = hot
        super().__init__(front, timeout=int(idle_timeout), reactor=reactor, parsePOSTFormSubmission=False)
        self.displayTracebacks = False
        self._limit = limit
        self._full = full
        self._channels: set[Channel] = set()

    def log(self, request: Any) -> None:
        """Nothing: the front logs each request with what twisted.web cannot know."""

    def joined(self, channel: Channel) -> None:
        self._channels.add(channel)
        if len(self._channels) == self._limit:
            self._full(True)

    def left(self, channel: Channel) -> None:
        if len(self._channels) == self._limit:
            self._full(False)
        self._channels.discard(channel)

    def abort(self) -> None:
        """Close every connection, whatever it is doing."""
        for channel in list(self._channels):
            channel.forceAbortClient()

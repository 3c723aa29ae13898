"""Client connections: counted, bounded, and closed when the service stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.server import Site

from proxy.web.hot import HotRequests
from proxy.web.serving import Front


class Channel(HTTPChannel):
    """One client connection (HTTP/1.1)."""

    site: BoundedSite
    transport: Any
    #: The request in progress as it came, if it came in one piece, alone.
    raw: bytes | None = None
    #: Whether the next bytes begin a request.
    _between = True

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.joined(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._between:
            self.raw = None
        elif (hit := self.site.hot.answer(data)) is not None:
            self.resetTimeout()
            self.transport.writeSequence((hit.head, hit.body))
            self.site.front.answered_at_once(hit, self.transport.getPeer())
            return
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"GET ") and data.find(b"\r\n\r\n") == len(data) - 4:
            self.raw = data
        self._between = False
        super().dataReceived(data)

    def requestDone(self, request: Request) -> None:
        # A request that came in one piece, alone, and without a body has left nothing in the line buffer.
        self._between = self.raw is not None
        self.raw = None
        super().requestDone(request)

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

"""Client connections: counted, bounded, and closed when the service stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Site


class Channel(HTTPChannel):
    """One client connection (HTTP/1.1)."""

    site: BoundedSite

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.joined(self)

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

    def __init__(self, root: Resource, reactor: Any, limit: int, idle_timeout: float, full: Callable[[bool], None]) -> None:
        super().__init__(root, timeout=int(idle_timeout), reactor=reactor, parsePOSTFormSubmission=False)
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

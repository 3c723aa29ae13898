"""Connections to the proxy that is warmed, whose responses have heads of bounded length.

Twisted bounds the length of a line, not their number, so that a head without end would take all memory.  (Chunk extensions and
trailers are bounded by Twisted: 1 KiB and 64 KiB.)  Requests to upstreams have a client of their own
(:mod:`proxy.upstream.http.connection`), which does not need this.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from proxy.mechanism.twisted_client import ClientConnection, PoolOf
from proxy.upstream.http.parsing import LONGEST, HeadTooLong

_BLANK = re.compile(rb"\n\r?\n")
_INTERIM = re.compile(rb"HTTP/[0-9.]+ 1(?!01)[0-9][0-9]\b")


class HeadWatch:
    """Finds the end of a response's head in what arrives of it."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._held = bytearray()
        self._complete = False

    def take(self, data: bytes) -> bool:
        """Take in what came next; false when the head has become longer than the limit."""
        if self._complete:
            return self._left >= 0
        looked_at = max(0, len(self._held) - 2)
        self._held += data[: self._left + 1]
        while (end := _BLANK.search(self._held, looked_at)) is not None:
            interim = _INTERIM.match(self._held)
            self._left -= end.end()
            del self._held[: end.end()]
            looked_at = 0
            if interim is None:
                self._complete = True
                self._held.clear()
                return self._left >= 0
        return len(self._held) <= self._left


class _BoundedClient(ClientConnection):
    """A connection to a server, one response at a time."""

    transport: Any
    _watch: HeadWatch | None = None
    _refused: HeadTooLong | None = None

    def request(self, request: Any) -> Deferred[Any]:
        self._watch = HeadWatch(LONGEST)
        return super().request(request)

    def dataReceived(self, data: bytes) -> None:
        if self._refused is not None:
            return
        if self._watch is not None and not self._watch.take(data):
            self._refused = HeadTooLong(f"sent a head of more than {LONGEST:,} bytes")
            self.transport.abortConnection()
            return
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason if self._refused is None else Failure(self._refused))


class QuietPool(PoolOf):
    """Connections to servers whose heads are bounded; they stay open for the next request if *persistent*."""

    def __init__(self, reactor: Any, *, persistent: bool = True) -> None:
        super().__init__(_BoundedClient, reactor, persistent=persistent)

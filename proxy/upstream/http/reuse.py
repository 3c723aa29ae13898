"""Connections that stay open for the next request to the same address of the same origin."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from proxy.mechanism.waiters import Waiters
from proxy.upstream.http.connection import Connection

#: Seconds that a connection stays open without a request.
IDLE_FOR = 30.0


class ConnectionPool:
    """Idle connections by what they may be used for, at most *most* of each kind.

    One timer closes those that have been idle for too long.  The one that was used last is used next: it is the least likely
    to have been closed by the other side.
    """

    def __init__(self, reactor: Any, most: int) -> None:
        self._reactor = reactor
        self._most = most
        self._idle: dict[Hashable, list[Connection]] = {}
        self._timer: IDelayedCall | None = None
        self._retired = False
        self._closing: set[Connection] = set()
        self._closed: Waiters[None] = Waiters()

    def take(self, key: Hashable) -> Connection | None:
        """An idle connection that may be used for *key*, which is idle no more."""
        idle = self._idle.get(key)
        if idle is None:
            return None
        connection = idle.pop()
        if not idle:
            del self._idle[key]
        return connection

    def put(self, connection: Connection) -> None:
        """*connection* is idle now."""
        if self._retired:
            self._close(connection)
            return
        connection.idle_since = self._reactor.seconds()
        idle = self._idle.setdefault(connection.key, [])
        idle.append(connection)
        if len(idle) > self._most:
            self._close(idle.pop(0))
        if self._timer is None:
            self._timer = self._reactor.callLater(IDLE_FOR, self._look)

    def forget(self, connection: Connection) -> None:
        """*connection* is of no use any more; it may be an idle one."""
        idle = self._idle.get(connection.key, [])
        if connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.key]

    def lost(self, connection: Connection) -> None:
        """*connection* has been closed."""
        self.forget(connection)
        self._closing.discard(connection)
        if not self._closing:
            self._closed.wake(None)

    def retire(self) -> Deferred[None]:
        """Close idle connections now, and each other one at the end of its response: none is used again.

        Fires when those that are idle now have been closed.
        """
        self._retired = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                self._close(connection)
        return self._closed.wait() if self._closing else succeed(None)

    def _close(self, connection: Connection) -> None:
        self._closing.add(connection)
        connection.close()

    def _look(self) -> None:
        """Close what has been idle for long, and look again when the next one will have been."""
        self._timer = None
        oldest = self._reactor.seconds() - IDLE_FOR
        for connection in [each for idle in self._idle.values() for each in idle if each.idle_since <= oldest]:
            self.forget(connection)
            self._close(connection)
        if self._idle:
            next_one = min(each.idle_since for idle in self._idle.values() for each in idle)
            self._timer = self._reactor.callLater(next_one - oldest, self._look)

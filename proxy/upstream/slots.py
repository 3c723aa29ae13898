"""How much may be asked of one upstream at once: connections, a bounded queue for them, and requests a second.

Files may hold at most three quarters of the slots, so that long downloads never starve pages.  A full queue is an outage of
this upstream, not a pile of waiting clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.task import deferLater

from proxy.settings import UpstreamSettings
from proxy.upstream.failures import Failed

#: The part of an upstream's connections that files may take.
_FOR_FILES = 0.75


class Slots:
    """The slots of the upstream of *settings*."""

    def __init__(self, settings: UpstreamSettings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._all = DeferredSemaphore(settings.max_connections)
        self._files = DeferredSemaphore(max(1, int(settings.max_connections * _FOR_FILES)))
        self._next_turn = 0.0
        self._in_turn = 0
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot or for their turn."""
        return len(self._all.waiting) + len(self._files.waiting) + self._in_turn

    async def take(self, *, file: bool) -> Callable[[], None]:
        """Wait for a slot; the function that comes back gives it up (once).  Raises Failed when too many wait already."""
        must_wait = not self._all.tokens or (file and not self._files.tokens)
        if must_wait and self.waiting >= self._settings.max_queue:
            words = f"has {self.waiting} requests waiting already (upstream.{self._settings.name}.max_queue)"
            raise Failed(words, blames=False)
        if file:
            await self._files.acquire()
        try:
            await self._all.acquire()
            try:
                await self._turn()
            except BaseException:
                self._all.release()
                raise
        except BaseException:
            if file:
                self._files.release()
            raise
        self.in_flight += 1
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self.in_flight -= 1
                self._all.release()
                if file:
                    self._files.release()

        return release

    async def _turn(self) -> None:
        """Wait for this request's turn under ``max_rate``; a second's worth of requests (at least one) may go out at once."""
        rate = self._settings.max_rate
        if rate is None:
            return
        now = self._reactor.seconds()
        turn = max(self._next_turn, now - max(1.0, 1.0 / rate))
        self._next_turn = turn + 1.0 / rate
        if self._next_turn > now:
            self._in_turn += 1
            try:
                await deferLater(self._reactor, self._next_turn - now)
            finally:
                self._in_turn -= 1

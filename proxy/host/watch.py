"""What is wrong with the running proxy, looked at every few seconds and whenever somebody asks; and what recovers by itself.

A proxy with troubles serves: it is degraded, not down.  Each trouble is logged once when it is found and once when it is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.amounts import duration
from proxy.core.troubles import Reason, Trouble
from proxy.mechanism.flight import Flights, swallow
from proxy.mechanism.patience import within

#: Seconds between two looks.
_INTERVAL = 10.0
#: The shortest time between two looks, however many ask (seconds): each writes to the disk.
_PAUSE = 0.05
#: How long who asks waits for a look (seconds): a file system that has gone may keep a thread for minutes.
_PATIENCE = 2.0
_HANGS = Trouble(
    Reason.NOT_READABLE,
    f"the data directory does not answer within {duration(_PATIENCE)}: check the disk, or the server it is on",
)

#: Logged by what finds it, which knows more about it: one line for each upstream, and for each file.
_LOGGED_ELSEWHERE = frozenset({Reason.UPSTREAM, Reason.ROTATION})

#: Says what is wrong with one part, after putting right what can be put right.
Look = Callable[[], Awaitable[Sequence[Trouble]]]


class Watch(Service):
    """The troubles that *looks* find; *changed* is told them after each look."""

    log = Logger()

    def __init__(self, looks: Iterable[Look], reactor: Any, changed: Callable[[Sequence[Trouble]], None]) -> None:
        self._looks = tuple(looks)
        self._reactor = reactor
        self._changed = changed
        self._found: tuple[Trouble, ...] = ()
        self._hanging = False
        self._looked_at = 0.0
        self._under_way: Flights[None] = Flights()
        self._loop = LoopingCall(self._regularly)
        self._loop.clock = reactor

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What the last look found."""
        return (*self._found, _HANGS) if self._hanging else self._found

    async def look(self) -> tuple[Trouble, ...]:
        """What is wrong now, or what was wrong lately when that cannot be found out soon."""
        if not await within(_PATIENCE, self._from_now(), self._reactor):
            self._hanging = True
            self._changed(self.troubles)
        return self.troubles

    def startService(self) -> None:
        super().startService()
        self._loop.start(_INTERVAL)

    def stopService(self) -> None:
        """Look no more, unless somebody asks."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def close(self) -> None:
        """Stop looking: nobody asks any more."""
        self._under_way.close()

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _from_now(self) -> None:
        """A look that has not begun yet: one that is under way may have seen what was before."""
        if "look" in self._under_way:
            await self._under_way.join("look", self._look)
        await self._under_way.join("look", self._look)

    def _regularly(self) -> None:
        swallow(Deferred.fromCoroutine(self.look()))

    async def _look(self) -> None:
        await deferLater(self._reactor, max(0.0, self._looked_at + _PAUSE - self._reactor.seconds()))
        self._looked_at = self._reactor.seconds()
        found: list[Trouble] = []
        for each in self._looks:
            try:
                found += await each()
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001  # whatever it is, the others are looked at and the proxy goes on
                self.log.failure("a look at what may be wrong failed", Failure())
        self._hanging = False
        self._tell(found)
        self._found = tuple(found)
        self._changed(self._found)

    def _tell(self, found: Sequence[Trouble]) -> None:
        for each in found:
            if each.reason not in {old.reason for old in self._found} and each.reason not in _LOGGED_ELSEWHERE:
                self.log.error("degraded ({reason}): {words}", reason=each.reason.value, words=each.words)
        for each in self._found:
            if each.reason not in {new.reason for new in found} and each.reason not in _LOGGED_ELSEWHERE:
                self.log.info("no longer degraded ({reason})", reason=each.reason.value)

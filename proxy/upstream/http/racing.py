"""Asking several in turn without waiting for each: the next one starts when one fails, or has been silent for too long.

The first result wins, and who else is still under way is cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.upstream.http.failures import Failed

T = TypeVar("T")

#: An entrant is told to begin, and given a function to call once it hears an answer: the next one then waits for its failure.
Entrant = Callable[[Callable[[], None]], Awaitable[T]]


async def race(entrants: Sequence[Entrant[T]], stagger: float, reactor: Any, overtaken: Callable[[int], None]) -> T | None:
    """The first result of *entrants*, ``None`` when all of them raised Failed.  Any other exception ends the race.

    *stagger*: seconds of silence after which the next one starts too.  *overtaken* is told the number of each that is cancelled
    because another has won.
    """
    if len(entrants) == 1:
        try:
            return await entrants[0](_alone)
        except Failed:
            return None
    running = _Race(entrants, stagger, reactor, overtaken)
    running.start_next()
    return await running.done


class _Race(Generic[T]):
    def __init__(self, entrants: Sequence[Entrant[T]], stagger: float, reactor: Any, overtaken: Callable[[int], None]) -> None:
        self._waiting = deque(enumerate(entrants))
        self._stagger = stagger
        self._reactor = reactor
        self._overtaken = overtaken
        self._running: dict[int, Deferred[Any]] = {}
        self._timer: Any = None
        self._over = False
        self.done: Deferred[T | None] = Deferred(lambda _: self._end())

    def start_next(self) -> None:
        """Start the next entrant, if there is one; the race is lost when nobody is under way."""
        self._stop_timer()
        if not self._waiting:
            if not self._running:
                self._over = True
                self.done.callback(None)
            return
        number, entrant = self._waiting.popleft()
        if self._waiting:
            self._timer = self._reactor.callLater(self._stagger, self._impatient)
        run: Deferred[Any] = Deferred.fromCoroutine(_started(entrant, self._stop_timer))
        self._running[number] = run
        run.addCallbacks(self._won, self._lost, callbackArgs=(number,), errbackArgs=(number,))

    def _impatient(self) -> None:
        self._timer = None
        self.start_next()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _won(self, result: T, number: int) -> None:
        self._running.pop(number)
        if not self._over:
            for other in list(self._running):
                self._overtaken(other)
            self._end()
            self.done.callback(result)

    def _lost(self, failure: Failure, number: int) -> None:
        self._running.pop(number)
        if self._over:
            return
        if failure.check(Failed):
            self.start_next()
        else:
            self._end()
            self.done.errback(failure)

    def _end(self) -> None:
        self._over = True
        self._waiting.clear()
        self._stop_timer()
        for run in list(self._running.values()):
            run.cancel()


def _alone() -> None:
    """Who runs alone has nobody to hold back by saying that it hears an answer."""


async def _started(entrant: Entrant[T], answering: Callable[[], None]) -> T:
    return await entrant(answering)

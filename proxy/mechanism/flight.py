"""Single flight: one run of a piece of work per key, shared by everybody who asks while it is under way.

A flight belongs to the proxy, not to the asker that started it: a waiter that is cancelled leaves, the run goes on for the
others, and for the cache when nobody is left.  A failure reaches every waiter and strands none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import ContextVar, copy_context
from typing import Any, Generic, Protocol, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from proxy.mechanism.waiters import Waiters
from proxy.mechanism.waiting import UNCOUNTED, waiting

T = TypeVar("T")

#: What an ``async def`` returns when it is called: work that has not begun yet.
Routine = Coroutine[Deferred[object], object, T]

#: Whether anybody waits for the present work: what has not begun yet need not begin for nobody.
wanted: ContextVar[Callable[[], bool]] = ContextVar("wanted", default=lambda: True)


class _Closable(Protocol):
    def close(self) -> object: ...


C = TypeVar("C", bound=_Closable | None)


class _Flight(Generic[T]):
    """One run and those who wait for it."""

    def __init__(self) -> None:
        self.waiters: Waiters[T] = Waiters()
        self.landed = False
        self.outcome: T | Failure | None = None
        self.run: Deferred[Any] | None = None

    def wait(self) -> Deferred[T]:
        waiter = self.waiters.wait()
        if self.landed:
            self.waiters.wake(cast("T | Failure", self.outcome))
        return waiter

    def land(self, outcome: T | Failure) -> None:
        self.landed = True
        self.outcome = outcome
        self.waiters.wake(outcome)


class Flights(Generic[T]):
    """All flights of one kind, by key."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        """How many runs are under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many wait for them."""
        return sum(len(flight.waiters) for flight in self._under_way.values())

    def __contains__(self, key: Hashable) -> bool:
        """Whether a run for *key* is under way."""
        return key in self._under_way

    def join(self, key: Hashable, start: Callable[[], Routine[T]]) -> Deferred[T]:
        """Wait for the run of *key*, which *start* begins if none is under way.

        Returns a Deferred of the run's result or failure.  Cancelling it makes this waiter leave and nothing more.
        """
        flight = self._under_way.get(key)
        if flight is None:
            work = start()  # what cannot begin is not under way
            flight = self._under_way[key] = _Flight()
            context = copy_context()
            context.run(wanted.set, lambda: len(flight.waiters) > 0)
            context.run(waiting.set, UNCOUNTED)
            flight.run = context.run(Deferred.fromCoroutine, work)
            flight.run.addBoth(self._land, key, flight)
        return flight.wait()

    def _land(self, outcome: T | Failure, key: Hashable, flight: _Flight[T]) -> None:
        del self._under_way[key]
        flight.land(outcome)

    def close(self) -> None:
        """Cancel every run; waiters see :class:`CancelledError`."""
        for flight in list(self._under_way.values()):
            if flight.run is not None:
                flight.run.cancel()


def uninterrupted(work: Routine[T], dropped: Callable[[T], object] = lambda result: None) -> Deferred[T]:
    """Wait for *work*, which goes on to its end when the wait is cancelled; *dropped* is then told its result."""
    waiter: Deferred[T] = Deferred()

    def ended(outcome: T | Failure) -> None:
        if not waiter.called:
            waiter.callback(outcome)
        elif not isinstance(outcome, Failure):
            dropped(outcome)

    Deferred.fromCoroutine(work).addBoth(ended)
    return waiter


def owned(work: Routine[C]) -> Deferred[C]:
    """Wait for *work*, whose result has to be closed: it is closed when nobody waits for it any more."""
    return uninterrupted(work, lambda result: None if result is None else result.close())


def closing_after(work: Awaitable[T], resource: _Closable) -> Deferred[T]:
    """Wait for *work*, after which *resource*, which a worker thread uses for it, is closed, also if nobody waits any more.

    The number of a descriptor that is closed too early belongs to another file.
    """

    async def closed() -> T:
        try:
            return await work
        finally:
            resource.close()

    return uninterrupted(closed())


def swallow(deferred: Deferred[Any], *also: type[BaseException]) -> None:
    """Let *deferred* end unobserved: for work in the background whose failure is logged where it is handled."""
    deferred.addErrback(lambda failure: failure.trap(CancelledError, *also) and None)

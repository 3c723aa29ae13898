"""Those who wait for one thing: each leaves on its own, and one call wakes them all."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """Deferreds of the same outcome.  Cancelling one makes it leave and nothing more."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[T]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """Fires with the next :meth:`wake`."""
        waiter: Deferred[T] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        return waiter

    def wake(self, outcome: T | Failure) -> None:
        """Give *outcome* to all who wait now; who comes later waits for the next."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(outcome)

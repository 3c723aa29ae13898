"""A time limit that is set anew for each request, and costs next to nothing when it is."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """Calls *missed* when the limit that was set last has passed.

    A call that is due too early looks at the time and waits on, so that a later limit needs no call of its own.
    """

    def __init__(self, clock: IReactorTime, missed: Callable[[], None]) -> None:
        self._clock = clock
        self._missed = missed
        self._due: float | None = None
        self._call: IDelayedCall | None = None

    def set(self, limit: float | None) -> None:
        """The time begins now and ends in *limit* seconds; never if that is ``None``."""
        if limit is None:
            self._due = None
            return
        self._due = due = self._clock.seconds() + limit
        call = self._call
        if call is None:
            self._call = self._clock.callLater(limit, self._look)
        elif call.getTime() > due:
            call.reset(limit)

    def cancel(self) -> None:
        """Call nobody any more."""
        self._due = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        if self._due is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._due = None
            self._missed()

"""The health of one upstream: a breaker that opens after failures in a row and lets one probe through after a growing pause.

It holds no timer: whoever asks brings the time.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable

from proxy.model import Condition

#: Failures in a row after which an upstream is not asked any more.
THRESHOLD = 3
#: The pause before the first probe, and the longest (seconds).
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
#: The longest that an upstream's own ``Retry-After`` is obeyed (seconds).
LONGEST_RETRY_AFTER = 600.0


class State(enum.Enum):
    """The breaker: ``CLOSED`` lets everything through, ``OPEN`` nothing, ``HALF_OPEN`` one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Health:
    """What is known of one upstream's health.  *changed* is told (old state, new state, reason) at each change."""

    def __init__(
        self,
        clock: Callable[[], float],
        rng: random.Random,
        changed: Callable[[State, State, str], None] = lambda old, new, why: None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._pauses = 0
        self._paused_by_upstream = 0.0
        self._probing = False
        self.state = State.CLOSED
        self.failures = 0
        self.all_failures = 0
        self.is_slow = False
        self.paused_until = 0.0
        self.last_failure: str | None = None
        self.last_failure_at: float | None = None

    def condition(self) -> Condition:
        """As the freshness decision sees it."""
        if self.state is not State.CLOSED or self._clock() < self._paused_by_upstream:
            return Condition.DOWN
        return Condition.SUSPECT if self.failures or self.is_slow else Condition.UP

    def retry_in(self) -> float:
        """Seconds until it may be asked; 0.0: now."""
        left = max(self.paused_until, self._paused_by_upstream) - self._clock()
        if left > 0:
            return left
        return FIRST_PAUSE if self.state is not State.CLOSED and self._probing else 0.0

    def admit(self) -> bool:
        """Whether a request may go out now; after the pause of an open breaker one may: the probe, whose outcome counts."""
        if self.retry_in() > 0:
            return False
        if self.state is State.OPEN:
            self._move(State.HALF_OPEN, "probing")
        if self.state is State.HALF_OPEN:
            if self._probing:
                return False
            self._probing = True
        return True

    def succeeded(self) -> None:
        """An answer came, whatever it said: the upstream works."""
        self._probing = False
        self.failures = 0
        self.is_slow = False
        self._pauses = 0
        self.paused_until = 0.0
        if self.state is not State.CLOSED:
            self._move(State.CLOSED, "it answers again")

    def failed(self, reason: str, retry_after: float | None = None) -> None:
        """No answer came, or none that is of use.  *retry_after*: the pause upstream asked for, in seconds."""
        now = self._clock()
        self._probing = False
        self.failures += 1
        self.all_failures += 1
        self.last_failure = reason
        self.last_failure_at = now
        if retry_after is not None:
            self._paused_by_upstream = now + min(retry_after, LONGEST_RETRY_AFTER)
        if self.failures >= THRESHOLD or self.state is State.HALF_OPEN:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._pauses)
            self._pauses = min(self._pauses + 1, 10)
            self.paused_until = now + pause * self._rng.uniform(0.75, 1.25)
            if self.state is not State.OPEN:
                self._move(State.OPEN, reason)

    def abandoned(self) -> None:
        """The request was cancelled: nothing is known of its outcome."""
        self._probing = False

    def slow(self) -> None:
        """An answer has not come within the soft deadline."""
        self.is_slow = True

    def _move(self, state: State, reason: str) -> None:
        old, self.state = self.state, state
        self._changed(old, state, reason)

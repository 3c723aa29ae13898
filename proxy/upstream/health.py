"""The health of one upstream: a breaker that opens after failures and lets one probe through after a growing, jittered pause.

Theory of operation. Whoever wants to ask is given a `Trial`, or none while the breaker is open, and says on it what came of the
request. The breaker opens after :data:`THRESHOLD` failures in a row, or when at least half of the last outcomes were failures.
After a pause one trial goes out as the probe; only its outcome closes the breaker or doubles the pause: requests that were
under way when it opened say nothing new. It holds no timer: whoever asks brings the time.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable

from proxy.model import Condition

#: Failures in a row after which an upstream is not asked any more.
THRESHOLD = 3
#: The second rule: this share of at least so many outcomes, none older than so many seconds, were failures.
FAILURE_RATE = 0.5
FEWEST_OUTCOMES, MOST_OUTCOMES, OUTCOMES_LAST = 10, 20, 60.0
#: Requests in a row that another upstream answered faster, after which that counts as a failure.
OVERTAKEN = 10
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
    """What is known of one upstream's health.

    *changed* is told (old state, new state, reason) at each change; *paused* (seconds, reason) when upstream asks for a pause,
    once until it answers again.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        rng: random.Random,
        changed: Callable[[State, State, str], None] = lambda old, new, why: None,
        paused: Callable[[float, str], None] = lambda seconds, why: None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._paused = paused
        self._pauses = 0
        self._paused_by_upstream = 0.0
        self._pause_is_told = False
        self._probe: Trial | None = None
        self._overtaken = 0
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=MOST_OUTCOMES)
        self.state = State.CLOSED
        self.failures = 0
        self.all_failures = 0
        self.is_slow = False
        self.paused_until = 0.0
        self.last_failure: str | None = None
        #: By the clock given.
        self.last_failure_at: float | None = None
        self.last_success_at: float | None = None

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
        return FIRST_PAUSE if self._probe is not None else 0.0

    def admit(self) -> Trial | None:
        """Leave to send one request; ``None`` while the breaker is open.  The trial must be settled."""
        if self.retry_in() > 0:
            return None
        trial = Trial(self)
        if self.state is State.OPEN:
            self._move(State.HALF_OPEN, "probing")
        if self.state is State.HALF_OPEN:
            self._probe = trial
        return trial

    def slow(self) -> None:
        """An answer has not come within the soft deadline."""
        self.is_slow = True

    # -- what trials say ---------------------------------------------------------------------------------------------------

    def succeeded(self, trial: Trial) -> None:
        if self.state is not State.CLOSED and trial is not self._probe:
            return
        self._probe = None
        self.failures = self._overtaken = 0
        self.is_slow = self._pause_is_told = False
        self.last_success_at = self._clock()
        self._outcomes.append((self.last_success_at, True))
        if self.state is not State.CLOSED:
            self._pauses = 0
            self.paused_until = 0.0
            self._move(State.CLOSED, "it answers again")

    def failed(self, trial: Trial, reason: str, retry_after: float | None) -> None:
        now = self._clock()
        self.failures += 1
        self.all_failures += 1
        self.last_failure = reason
        self.last_failure_at = now
        if retry_after is not None:
            if retry_after > 0 and self.state is State.CLOSED and not self._pause_is_told:
                self._pause_is_told = True  # until it has answered: a pause after each retry is no change
                self._paused(min(retry_after, LONGEST_RETRY_AFTER), reason)
            self._paused_by_upstream = max(self._paused_by_upstream, now + min(retry_after, LONGEST_RETRY_AFTER))
        if trial is self._probe:
            self._probe = None
            self._open(now, reason)
        elif self.state is State.CLOSED:
            self._outcomes.append((now, False))
            if self.failures >= THRESHOLD or self._fails_often(now):
                self._open(now, reason)

    def abandoned(self, trial: Trial) -> None:
        if trial is self._probe:
            self._probe = None

    def overtaken(self, trial: Trial) -> None:
        self._overtaken += 1
        if self._overtaken >= OVERTAKEN:
            self._overtaken = 0
            self.failed(trial, f"another upstream was faster {OVERTAKEN} times in a row", None)
        else:
            self.abandoned(trial)

    def _fails_often(self, now: float) -> bool:
        while self._outcomes and now - self._outcomes[0][0] > OUTCOMES_LAST:
            self._outcomes.popleft()
        failures = sum(not good for _, good in self._outcomes)
        return len(self._outcomes) >= FEWEST_OUTCOMES and failures >= FAILURE_RATE * len(self._outcomes)

    def _open(self, now: float, reason: str) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._pauses)
        self._pauses = min(self._pauses + 1, 10)
        self.paused_until = now + pause * self._rng.uniform(0.75, 1.25)
        self._outcomes.clear()
        self._move(State.OPEN, reason)

    def _move(self, state: State, reason: str) -> None:
        old, self.state = self.state, state
        self._changed(old, state, reason)


class Trial:
    """One request's leave to go out.  Settled once; what comes after a success (a body that breaks) still counts against it."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._began = health._clock()
        self._settled = False
        self._succeeded = False
        self._excused = False

    @property
    def void(self) -> bool:
        """Whether the breaker has opened since: what has not been sent yet need not be."""
        return self._health.retry_in() > 0 and self is not self._health._probe

    def excuse(self) -> None:
        """What is asked for may fail where all else works: it counts for the upstream, never against it."""
        self._excused = True

    def succeeded(self) -> None:
        """An answer came, whatever it said: the upstream works."""
        if not self._settled:
            self._settled = self._succeeded = True
            self._health.succeeded(self)

    def failed(self, reason: str, retry_after: float | None = None) -> None:
        """No answer came, or none that is of use.  *retry_after*: the pause upstream asked for, in seconds."""
        if self._excused and retry_after is None:
            self.abandoned()
        elif not self._settled or self._succeeded:
            self._settled, self._succeeded = True, False
            self._health.failed(self, reason, retry_after)

    def abandoned(self) -> None:
        """The request was cancelled, or never sent: nothing is known of its outcome."""
        if not self._settled:
            self._settled = True
            self._health.abandoned(self)

    def overtaken(self, patience: float) -> None:
        """Another upstream answered first; who was silent for *patience* seconds by then has failed."""
        if self._settled:
            return
        waited = self._health._clock() - self._began
        if waited >= patience:
            self.failed(f"no answer within {waited:.1f} s, when another upstream had given one")
        else:
            self._settled = True
            self._health.overtaken(self)

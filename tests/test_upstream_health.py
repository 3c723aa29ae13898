"""The breaker of one upstream, against a clock that the test moves."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from proxy.model import Condition
from proxy.upstream.health import FEWEST_OUTCOMES, LONGEST_PAUSE, OVERTAKEN, THRESHOLD, Health, State, Trial
from tests.support.wheels import seeded


@define
class _Seen:
    clock: Clock = field(factory=Clock)
    changes: list[tuple[State, State]] = field(factory=list)
    pauses: list[float] = field(factory=list)

    def health(self) -> Health:
        return Health(
            self.clock.seconds,
            seeded(1),
            lambda old, new, why: self.changes.append((old, new)),
            lambda seconds, why: self.pauses.append(seconds),
        )


def trial(health: Health) -> Trial:
    admitted = health.admit()
    assert admitted is not None
    return admitted


def fail(health: Health, times: int = THRESHOLD) -> None:
    for _ in range(times):
        trial(health).failed("no")


def test_it_opens_after_failures_in_a_row_and_lets_one_probe_through_after_the_pause() -> None:
    seen = _Seen()
    health = seen.health()
    fail(health)
    assert (health.state, health.condition(), health.admit()) == (State.OPEN, Condition.DOWN, None)
    seen.clock.advance(1.3)
    probe = trial(health)
    assert health.admit() is None
    probe.succeeded()
    assert (health.state, health.condition()) == (State.CLOSED, Condition.UP)


def test_pauses_grow_up_to_a_limit_and_have_jitter() -> None:
    seen = _Seen()
    health = seen.health()
    fail(health)
    pauses = []
    for _ in range(9):
        pauses.append(health.retry_in())
        seen.clock.advance(pauses[-1])
        trial(health).failed("still no")
    assert all(0.74 * 2**n <= pause <= 1.26 * 2**n for n, pause in enumerate(pauses[:5]))
    assert max(pauses) <= 1.25 * LONGEST_PAUSE
    assert len({round(pause / 2**n, 3) for n, pause in enumerate(pauses[:5])}) > 1


def test_requests_that_were_under_way_when_it_opened_do_not_lengthen_the_pause() -> None:
    health = _Seen().health()
    late = [trial(health) for _ in range(20)]
    fail(health)
    pause = health.retry_in()
    for each in late[:10]:
        each.failed("no")
    assert health.retry_in() == pause
    late[10].succeeded()
    assert health.state is State.OPEN
    assert late[11].void


def test_it_opens_at_a_rate_of_failures_that_are_never_many_in_a_row() -> None:
    health = _Seen().health()
    for number in range(FEWEST_OUTCOMES):
        assert health.state is State.CLOSED
        if number % 2:
            fail(health, 1)
        else:
            trial(health).succeeded()
    assert health.state is State.OPEN


def test_one_failure_in_five_does_not_open_it() -> None:
    health = _Seen().health()
    for number in range(200):
        if number % 5:
            trial(health).succeeded()
        else:
            fail(health, 1)
    assert health.state is State.CLOSED


def test_old_failures_do_not_count() -> None:
    seen = _Seen()
    health = seen.health()
    for number in range(3 * FEWEST_OUTCOMES):
        seen.clock.advance(10.0)
        if number % 2:
            fail(health, 1)
        else:
            trial(health).succeeded()
    assert health.state is State.CLOSED


@pytest.mark.parametrize("end", ["abandoned", "overtaken"])
def test_a_probe_that_comes_to_nothing_makes_room_for_the_next(end: str) -> None:
    seen = _Seen()
    health = seen.health()
    fail(health)
    seen.clock.advance(2.0)
    probe = trial(health)
    if end == "abandoned":
        probe.abandoned()
    else:
        probe.overtaken(5.0)
    trial(health).succeeded()
    assert health.state is State.CLOSED


def test_retry_after_pauses_without_opening_and_is_told_once() -> None:
    seen = _Seen()
    health = seen.health()
    first, second = trial(health), trial(health)
    first.failed("429", retry_after=30.0)
    second.failed("429", retry_after=30.0)
    assert (health.state, health.retry_in(), health.condition()) == (State.CLOSED, 30.0, Condition.DOWN)
    assert seen.pauses == [30.0]
    seen.clock.advance(30.0)
    trial(health).succeeded()
    assert (health.condition(), seen.changes) == (Condition.UP, [])


def test_an_upstream_that_asks_for_a_pause_after_each_retry_is_told_once_until_it_answers() -> None:
    seen = _Seen()
    health = seen.health()
    for _ in range(20):
        trial(health).failed("503", retry_after=5.0)
        seen.clock.advance(80.0)
    assert seen.pauses == [5.0]
    assert [each for each in seen.changes if State.CLOSED in each] == [(State.CLOSED, State.OPEN)]
    trial(health).succeeded()
    trial(health).failed("429", retry_after=7.0)
    assert seen.pauses == [5.0, 7.0]


def test_a_body_that_breaks_after_a_good_beginning_counts_against_it() -> None:
    health = _Seen().health()
    one = trial(health)
    one.succeeded()
    one.failed("broke")
    one.failed("broke")
    assert health.all_failures == 1


def test_being_overtaken_counts_only_when_it_was_long_or_happens_every_time() -> None:
    seen = _Seen()
    health = seen.health()
    slow = trial(health)
    seen.clock.advance(4.0)
    slow.overtaken(4.0)
    assert health.all_failures == 1
    trial(health).succeeded()
    for _ in range(OVERTAKEN):
        trial(health).overtaken(4.0)
    assert health.all_failures == 2


def test_each_change_of_state_is_told_once() -> None:
    seen = _Seen()
    health = seen.health()
    fail(health)
    seen.clock.advance(2.0)
    trial(health).succeeded()
    assert seen.changes == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]

"""The freshness table of docs/design.md, row by row."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proxy.freshness import Action, decide, lifetime
from proxy.model import Condition, Head
from proxy.settings import PageLimits

LIMITS = PageLimits(ttl=600.0, soft_deadline=2.0, stale_if_error=None, negative_ttl=60.0)
NOW = 1_000_000.0
PAGE = Head(True, "pypi", "https://pypi.example/simple/six/", checked_at=NOW)
MISSING = evolve(PAGE, found=False)
UP, SUSPECT, DOWN, OFFLINE = Condition.UP, Condition.SUSPECT, Condition.DOWN, Condition.OFFLINE


def aged(head: Head, seconds: float) -> Head:
    return evolve(head, checked_at=NOW - seconds)


@pytest.mark.parametrize(
    ("head", "condition", "action"),
    [
        pytest.param(None, UP, Action.FETCH, id="nothing is known"),
        pytest.param(None, DOWN, Action.FETCH, id="nothing is known and upstream is down: the pool says so at once"),
        pytest.param(aged(PAGE, 0), UP, Action.SERVE, id="fresh"),
        pytest.param(aged(PAGE, 479), UP, Action.SERVE, id="fresh, before its last fifth"),
        pytest.param(aged(PAGE, 480), UP, Action.SERVE_AND_REFRESH, id="fresh, in its last fifth"),
        pytest.param(aged(PAGE, 599), SUSPECT, Action.SERVE, id="fresh, in its last fifth, upstream suspect"),
        pytest.param(aged(PAGE, 600), UP, Action.REFRESH, id="expired"),
        pytest.param(aged(PAGE, 10**8), UP, Action.REFRESH, id="expired for years"),
        pytest.param(aged(PAGE, 601), SUSPECT, Action.SERVE_AND_REFRESH, id="expired, upstream suspect"),
        pytest.param(aged(PAGE, 601), DOWN, Action.SERVE_AND_REFRESH, id="expired, upstream down"),
        pytest.param(aged(MISSING, 59), UP, Action.MISSING, id="missing, remembered"),
        pytest.param(aged(MISSING, 59), DOWN, Action.MISSING, id="missing, remembered, upstream down"),
        pytest.param(aged(MISSING, 60), UP, Action.FETCH, id="missing, no longer remembered"),
        pytest.param(aged(PAGE, 10**8), OFFLINE, Action.SERVE, id="offline: whatever its age"),
        pytest.param(None, OFFLINE, Action.FETCH, id="offline and nothing is known: who asks nobody says so"),
        pytest.param(aged(MISSING, 1), OFFLINE, Action.FETCH, id="offline: a 404 of another time means nothing"),
        pytest.param(aged(PAGE, -30), UP, Action.SERVE, id="from a clock a little ahead"),
        pytest.param(aged(PAGE, -3600), UP, Action.REFRESH, id="from a clock that was set back since"),
    ],
)
def test_the_table(head: Head | None, condition: Condition, action: Action) -> None:
    assert decide(head, NOW, LIMITS, condition).action is action


def test_upstream_may_shorten_the_ttl_and_never_lengthen_it() -> None:
    assert lifetime(evolve(PAGE, max_age=30.0), LIMITS) == 30.0
    assert lifetime(evolve(PAGE, max_age=99_999.0), LIMITS) == 600.0
    assert lifetime(evolve(PAGE, max_age=-5.0), LIMITS) == 0.0


def test_a_page_whose_refresh_just_failed_is_served_without_waiting() -> None:
    assert decide(aged(PAGE, 700), NOW, LIMITS, UP, resting=True).action is Action.SERVE_AND_REFRESH


def test_a_page_beyond_stale_if_error_is_not_served() -> None:
    limits = evolve(LIMITS, stale_if_error=3600.0)
    assert decide(aged(PAGE, 600 + 3600), NOW, limits, DOWN).action is Action.SERVE_AND_REFRESH
    assert decide(aged(PAGE, 600 + 3601), NOW, limits, DOWN).action is Action.FETCH


def test_no_cache_refreshes_a_fresh_page_but_not_twice_within_five_seconds() -> None:
    assert decide(aged(PAGE, 5), NOW, LIMITS, UP, no_cache=True).action is Action.REFRESH
    assert decide(aged(PAGE, 4), NOW, LIMITS, UP, no_cache=True).action is Action.SERVE
    assert decide(aged(PAGE, 5), NOW, LIMITS, DOWN, no_cache=True).action is Action.SERVE
    assert decide(aged(MISSING, 5), NOW, LIMITS, UP, no_cache=True).action is Action.FETCH


@given(st.floats(0, 1e9), st.sampled_from(Condition), st.booleans(), st.booleans())
def test_with_a_page_in_hand_and_no_limit_on_staleness_nobody_ever_has_to_wait_for_the_end(
    age: float, condition: Condition, resting: bool, no_cache: bool
) -> None:
    decision = decide(aged(PAGE, age), NOW, LIMITS, condition, resting=resting, no_cache=no_cache)
    assert decision.action in (Action.SERVE, Action.SERVE_AND_REFRESH, Action.REFRESH)
    if condition is not UP:
        assert decision.action is not Action.REFRESH

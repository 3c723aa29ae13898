"""The freshness table of docs/design.md, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core.freshness import Action, decide, lifetime
from proxy.model import Condition, Head
from proxy.settings import PageLimits

LIMITS = PageLimits(ttl=600.0, soft_deadline=2.0, stale_if_error=None, negative_ttl=60.0)
PAGE = Head(True, "pypi", "https://pypi.example/simple/six/", checked_at=1_000_000.0)
MISSING = replace(PAGE, found=False)
UP, SUSPECT, DOWN, OFFLINE = Condition.UP, Condition.SUSPECT, Condition.DOWN, Condition.OFFLINE


@pytest.mark.parametrize(
    ("head", "age", "condition", "action"),
    [
        pytest.param(None, 0, UP, Action.FETCH, id="nothing is known"),
        pytest.param(None, 0, DOWN, Action.FETCH, id="nothing is known and upstream is down: the pool says so at once"),
        pytest.param(PAGE, 0, UP, Action.SERVE, id="fresh"),
        pytest.param(PAGE, 479, UP, Action.SERVE, id="fresh, before its last fifth"),
        pytest.param(PAGE, 480, UP, Action.SERVE_AND_REFRESH, id="fresh, in its last fifth"),
        pytest.param(PAGE, 599, SUSPECT, Action.SERVE, id="fresh, in its last fifth, upstream suspect"),
        pytest.param(PAGE, 600, UP, Action.REFRESH, id="expired"),
        pytest.param(PAGE, 10**8, UP, Action.REFRESH, id="expired for years"),
        pytest.param(PAGE, 601, SUSPECT, Action.SERVE_AND_REFRESH, id="expired, upstream suspect"),
        pytest.param(PAGE, 601, DOWN, Action.SERVE_AND_REFRESH, id="expired, upstream down"),
        pytest.param(MISSING, 59, UP, Action.MISSING, id="missing, remembered"),
        pytest.param(MISSING, 59, DOWN, Action.MISSING, id="missing, remembered, upstream down"),
        pytest.param(MISSING, 60, UP, Action.FETCH, id="missing, no longer remembered"),
        pytest.param(PAGE, 10**8, OFFLINE, Action.SERVE, id="offline: whatever its age"),
        pytest.param(None, 0, OFFLINE, Action.FETCH, id="offline and nothing is known: who asks nobody says so"),
        pytest.param(MISSING, 1, OFFLINE, Action.FETCH, id="offline: a 404 of another time means nothing"),
    ],
)
def test_the_table(head: Head | None, age: float, condition: Condition, action: Action) -> None:
    assert decide(head, age, LIMITS, condition).action is action


def test_upstream_may_shorten_the_ttl_and_never_lengthen_it() -> None:
    assert lifetime(replace(PAGE, max_age=30.0), LIMITS) == 30.0
    assert lifetime(replace(PAGE, max_age=99_999.0), LIMITS) == 600.0
    assert lifetime(replace(PAGE, max_age=-5.0), LIMITS) == 10.0  # and never below ten seconds


def test_a_page_whose_refresh_just_failed_is_served_without_waiting() -> None:
    assert decide(PAGE, 700, LIMITS, UP, resting=True).action is Action.SERVE_AND_REFRESH


def test_a_page_beyond_stale_if_error_is_not_served() -> None:
    limits = replace(LIMITS, stale_if_error=3600.0)
    assert decide(PAGE, 600 + 3600, limits, DOWN).action is Action.SERVE_AND_REFRESH
    assert decide(PAGE, 600 + 3601, limits, DOWN).action is Action.FETCH


def test_no_cache_refreshes_a_fresh_page_but_not_twice_within_five_seconds() -> None:
    assert decide(PAGE, 5, LIMITS, UP, no_cache=True).action is Action.REFRESH
    assert decide(PAGE, 4, LIMITS, UP, no_cache=True).action is Action.SERVE
    assert decide(PAGE, 5, LIMITS, DOWN, no_cache=True).action is Action.SERVE
    assert decide(MISSING, 5, LIMITS, UP, no_cache=True).action is Action.FETCH


@given(st.floats(0, 1e9), st.sampled_from(Condition), st.booleans(), st.booleans())
def test_with_a_page_in_hand_and_no_limit_on_staleness_nobody_ever_has_to_wait_for_the_end(
    age: float, condition: Condition, resting: bool, no_cache: bool
) -> None:
    decision = decide(PAGE, age, LIMITS, condition, resting=resting, no_cache=no_cache)
    assert decision.action in (Action.SERVE, Action.SERVE_AND_REFRESH, Action.REFRESH)
    if condition is not UP:
        assert decision.action is not Action.REFRESH

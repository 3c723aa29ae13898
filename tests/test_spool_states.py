"""The life of a download: which states follow each other, and what each of them means for those who write and read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mechanism.spool.states import GIVEN_UP, HIDDEN, TABLE, TAKING, SpoolEvent, SpoolState, after

ENDS = {SpoolState.FAILED, SpoolState.DROPPED}


def lived(*events: SpoolEvent) -> SpoolState:
    """The state after *events* from the beginning."""
    state = SpoolState.ARRIVING
    for each in events:
        state = after(state, each)
    return state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((SpoolEvent.COMPLETED,), SpoolState.COMPLETE),
        ((SpoolEvent.OVERFLOWED, SpoolEvent.COMPLETED), SpoolState.COMPLETE),
        ((SpoolEvent.BROKE, SpoolEvent.GAVE_UP, SpoolEvent.SETTLED), SpoolState.FAILED),
        ((SpoolEvent.GAVE_UP, SpoolEvent.SETTLED), SpoolState.FAILED),
        ((SpoolEvent.GAVE_UP, SpoolEvent.OVERFLOWED, SpoolEvent.SETTLED), SpoolState.FAILED),
        ((SpoolEvent.REFUTED, SpoolEvent.GAVE_UP, SpoolEvent.SETTLED), SpoolState.DROPPED),
        ((SpoolEvent.REFUTED, SpoolEvent.BEGAN_ANEW, SpoolEvent.EMPTIED), SpoolState.ARRIVING),
        ((SpoolEvent.OVERFLOWED, SpoolEvent.BEGAN_ANEW, SpoolEvent.EMPTIED), SpoolState.ARRIVING),
        ((SpoolEvent.BEGAN_ANEW, SpoolEvent.GAVE_UP, SpoolEvent.SETTLED), SpoolState.DROPPED),
        ((SpoolEvent.COMPLETED, SpoolEvent.GAVE_UP), SpoolState.COMPLETE),
    ],
)
def test_a_download_ends_where_what_happened_leads(events: tuple[SpoolEvent, ...], state: SpoolState) -> None:
    assert lived(*events) is state


def test_every_state_can_be_reached_and_only_ends_have_no_way_on() -> None:
    reached, new = {SpoolState.ARRIVING}, {SpoolState.ARRIVING}
    while new:
        new = {to for (origin, _), to in TABLE.items() if origin in new} - reached
        reached |= new
    assert reached == set(SpoolState)
    assert {origin for origin, _ in TABLE} == set(SpoolState) - ENDS


def test_what_cannot_happen_is_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match="a download that is broken cannot have completed"):
        lived(SpoolEvent.BROKE, SpoolEvent.COMPLETED)
    for state, event in itertools.product(ENDS, SpoolEvent):
        with pytest.raises(ValueError, match="cannot have"):
            after(state, event)


@given(st.lists(st.sampled_from(SpoolEvent), max_size=30))
def test_wrong_bytes_are_seen_by_nobody_until_they_have_been_replaced(events: list[SpoolEvent]) -> None:
    state, wrong = SpoolState.ARRIVING, False
    for event in events:
        if (state, event) not in TABLE:
            continue
        complete = state is SpoolState.COMPLETE
        state = after(state, event)
        wrong = (wrong or event in (SpoolEvent.REFUTED, SpoolEvent.BEGAN_ANEW)) and not complete
        if event is SpoolEvent.EMPTIED and state is SpoolState.ARRIVING:
            wrong = False
        assert wrong == (state in HIDDEN)


@given(st.lists(st.sampled_from(SpoolEvent), max_size=30))
def test_a_download_that_was_given_up_never_comes_back(events: list[SpoolEvent]) -> None:
    state, given_up = SpoolState.ARRIVING, False
    for event in events:
        if (state, event) not in TABLE:
            continue
        given_up = given_up or (event is SpoolEvent.GAVE_UP and state is not SpoolState.COMPLETE)
        state = after(state, event)
        assert given_up == (state in GIVEN_UP)
        assert not (state in TAKING and (state in HIDDEN or given_up))

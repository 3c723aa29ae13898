"""The life of a download: which states follow each other, and what each of them means for those who write and read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mechanism.spool.states import GIVEN_UP, HIDDEN, TABLE, TAKING, Event, State, after

ENDS = {State.FAILED, State.DROPPED}


def lived(*events: Event) -> State:
    """The state after *events* from the beginning."""
    state = State.ARRIVING
    for each in events:
        state = after(state, each)
    return state


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((Event.COMPLETED,), State.COMPLETE),
        ((Event.OVERFLOWED, Event.COMPLETED), State.COMPLETE),
        ((Event.BROKE, Event.GAVE_UP, Event.SETTLED), State.FAILED),
        ((Event.GAVE_UP, Event.SETTLED), State.FAILED),
        ((Event.GAVE_UP, Event.OVERFLOWED, Event.SETTLED), State.FAILED),
        ((Event.REFUTED, Event.GAVE_UP, Event.SETTLED), State.DROPPED),
        ((Event.REFUTED, Event.BEGAN_ANEW, Event.EMPTIED), State.ARRIVING),
        ((Event.OVERFLOWED, Event.BEGAN_ANEW, Event.EMPTIED), State.ARRIVING),
        ((Event.BEGAN_ANEW, Event.GAVE_UP, Event.SETTLED), State.DROPPED),
        ((Event.COMPLETED, Event.GAVE_UP), State.COMPLETE),
    ],
)
def test_a_download_ends_where_what_happened_leads(events: tuple[Event, ...], state: State) -> None:
    assert lived(*events) is state


def test_every_state_can_be_reached_and_only_ends_have_no_way_on() -> None:
    reached, new = {State.ARRIVING}, {State.ARRIVING}
    while new:
        new = {to for (origin, _), to in TABLE.items() if origin in new} - reached
        reached |= new
    assert reached == set(State)
    assert {origin for origin, _ in TABLE} == set(State) - ENDS


def test_what_cannot_happen_is_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match="a download that is broken cannot have completed"):
        lived(Event.BROKE, Event.COMPLETED)
    for state, event in itertools.product(ENDS, Event):
        with pytest.raises(ValueError, match="cannot have"):
            after(state, event)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_wrong_bytes_are_seen_by_nobody_until_they_have_been_replaced(events: list[Event]) -> None:
    state, wrong = State.ARRIVING, False
    for event in events:
        if (state, event) not in TABLE:
            continue
        complete = state is State.COMPLETE
        state = after(state, event)
        wrong = (wrong or event in (Event.REFUTED, Event.BEGAN_ANEW)) and not complete
        if event is Event.EMPTIED and state is State.ARRIVING:
            wrong = False
        assert wrong == (state in HIDDEN)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_a_download_that_was_given_up_never_comes_back(events: list[Event]) -> None:
    state, given_up = State.ARRIVING, False
    for event in events:
        if (state, event) not in TABLE:
            continue
        given_up = given_up or (event is Event.GAVE_UP and state is not State.COMPLETE)
        state = after(state, event)
        assert given_up == (state in GIVEN_UP)
        assert not (state in TAKING and (state in HIDDEN or given_up))

"""The states of a connection: what the table promises about every course of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.web.connection import (
    DISCARDING,
    LIMITS,
    READING,
    READY,
    STANDINGS,
    TRANSITIONS,
    Action,
    Event,
    Limit,
    Standing,
    State,
)

#: Events that an answer makes, and those that the transport, the clock or the site may make at any moment.
OF_ANSWERS = {Event.ANSWERED, Event.FINISHED, Event.CUT_SHORT}
courses = st.lists(st.integers(0, 9), max_size=30)


def possible(state: State) -> list[Event]:
    return [event for event in Event if (state, event) in TRANSITIONS]


@given(courses)
def test_a_connection_that_ends_takes_no_more_requests_and_is_closed_once(choices: list[int]) -> None:
    state = State.IDLE
    ended, ends = False, 0
    for choice in choices:
        events = possible(state)
        state, action = TRANSITIONS[state, events[choice % len(events)]]
        ends += action in (Action.CLOSE, Action.LINGER)
        ended = ended or STANDINGS[state] in (Standing.LEAVING, Standing.GONE)
        assert not (ended and state in READY)
        assert not (ended and action in (Action.TAKE_NEXT, Action.REFUSE))
    assert ends <= 1


@given(courses)
def test_one_request_is_answered_at_a_time(choices: list[int]) -> None:
    state, under_way = State.IDLE, 0
    for choice in choices:
        events = possible(state)
        event = events[choice % len(events)]
        under_way += event is Event.ASKED
        if state in (State.ANSWERING, State.BLOCKED) and event in OF_ANSWERS:
            under_way -= 1
        state, _ = TRANSITIONS[state, event]
        assert under_way == (state in (State.ANSWERING, State.BLOCKED)) or state in DISCARDING


def test_every_state_can_be_reached_and_can_end() -> None:
    reached = {State.IDLE}
    while more := {TRANSITIONS[state, event][0] for state in reached for event in possible(state)} - reached:
        reached |= more
    assert reached == set(State)
    assert all(TRANSITIONS[state, Event.LOST] == (State.CLOSED, Action.NOTHING) for state in State)


def test_the_transport_may_be_full_and_empty_again_in_every_state() -> None:
    for state in State:
        blocked, action = TRANSITIONS[state, Event.FULL]
        assert action is Action.NOTHING
        again, _ = TRANSITIONS[blocked, Event.DRAINED]
        assert again in (state, State.IDLE) or state is State.BLOCKED


def test_an_answer_that_fills_the_transport_ends_as_it_would_have_otherwise() -> None:
    """The transport says that it is full while the answer is being written, and only then is the answer complete."""
    for (state, event), (_, action) in TRANSITIONS.items():
        if event in OF_ANSWERS:
            full, _ = TRANSITIONS[state, Event.FULL]
            then, end = TRANSITIONS[full, event]
            assert end in (action, Action.NOTHING)
            assert (STANDINGS[then] is Standing.LEAVING) == (event is not Event.ANSWERED)


def test_whatever_is_limited_in_time_says_what_happens_then_and_only_answers_are_not() -> None:
    assert set(LIMITS) == set(STANDINGS) == set(State)
    unlimited = {state for state in State if LIMITS[state] is Limit.NONE}
    assert unlimited == {State.ANSWERING, State.BLOCKED, State.CLOSED}
    assert {state for state in State if (state, Event.OVERDUE) not in TRANSITIONS} == unlimited


def test_only_a_connection_that_waits_is_dismissed_and_only_one_that_waits_takes_requests() -> None:
    waiting = {state for state in State if STANDINGS[state] is Standing.WAITING}
    assert {state for state in State if (state, Event.DISMISSED) in TRANSITIONS} == waiting == READY
    assert {state for state in State if (state, Event.ASKED) in TRANSITIONS} == READY


def test_what_nobody_reads_is_not_read_from_the_socket_unless_it_is_thrown_away() -> None:
    assert READING >= READY
    assert not READING & {State.BLOCKED, State.SENDING}
    assert {State.CLOSED} == DISCARDING - READING

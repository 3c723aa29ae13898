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
    ConnectionAction,
    ConnectionEvent,
    ConnectionStanding,
    ConnectionState,
    Limit,
)

#: Events that an answer makes, and those that the transport, the clock or the site may make at any moment.
OF_ANSWERS = {ConnectionEvent.ANSWERED, ConnectionEvent.FINISHED, ConnectionEvent.CUT_SHORT}
courses = st.lists(st.integers(0, 9), max_size=30)


def possible(state: ConnectionState) -> list[ConnectionEvent]:
    return [event for event in ConnectionEvent if (state, event) in TRANSITIONS]


@given(courses)
def test_a_connection_that_ends_takes_no_more_requests_and_is_closed_once(choices: list[int]) -> None:
    state = ConnectionState.IDLE
    ended, ends = False, 0
    for choice in choices:
        events = possible(state)
        state, action = TRANSITIONS[state, events[choice % len(events)]]
        ends += action in (ConnectionAction.CLOSE, ConnectionAction.LINGER)
        ended = ended or STANDINGS[state] in (ConnectionStanding.LEAVING, ConnectionStanding.GONE)
        assert not (ended and state in READY)
        assert not (ended and action in (ConnectionAction.TAKE_NEXT, ConnectionAction.REFUSE))
    assert ends <= 1


@given(courses)
def test_one_request_is_answered_at_a_time(choices: list[int]) -> None:
    state, under_way = ConnectionState.IDLE, 0
    for choice in choices:
        events = possible(state)
        event = events[choice % len(events)]
        under_way += event is ConnectionEvent.ASKED
        if state in (ConnectionState.ANSWERING, ConnectionState.BLOCKED) and event in OF_ANSWERS:
            under_way -= 1
        state, _ = TRANSITIONS[state, event]
        assert under_way == (state in (ConnectionState.ANSWERING, ConnectionState.BLOCKED)) or state in DISCARDING


def test_every_state_can_be_reached_and_can_end() -> None:
    reached = {ConnectionState.IDLE}
    while more := {TRANSITIONS[state, event][0] for state in reached for event in possible(state)} - reached:
        reached |= more
    assert reached == set(ConnectionState)
    assert all(
        TRANSITIONS[state, ConnectionEvent.LOST] == (ConnectionState.CLOSED, ConnectionAction.NOTHING)
        for state in ConnectionState
    )


def test_the_transport_may_be_full_and_empty_again_in_every_state() -> None:
    for state in ConnectionState:
        blocked, action = TRANSITIONS[state, ConnectionEvent.FULL]
        assert action is ConnectionAction.NOTHING
        again, _ = TRANSITIONS[blocked, ConnectionEvent.DRAINED]
        assert again in (state, ConnectionState.IDLE) or state is ConnectionState.BLOCKED


def test_an_answer_that_fills_the_transport_ends_as_it_would_have_otherwise() -> None:
    """The transport says that it is full while the answer is being written, and only then is the answer complete."""
    for (state, event), (_, action) in TRANSITIONS.items():
        if event in OF_ANSWERS:
            full, _ = TRANSITIONS[state, ConnectionEvent.FULL]
            then, end = TRANSITIONS[full, event]
            assert end in (action, ConnectionAction.NOTHING)
            assert (STANDINGS[then] is ConnectionStanding.LEAVING) == (event is not ConnectionEvent.ANSWERED)


def test_whatever_is_limited_in_time_says_what_happens_then_and_only_answers_are_not() -> None:
    assert set(LIMITS) == set(STANDINGS) == set(ConnectionState)
    unlimited = {state for state in ConnectionState if LIMITS[state] is Limit.NONE}
    assert unlimited == {ConnectionState.ANSWERING, ConnectionState.BLOCKED, ConnectionState.CLOSED}
    assert {state for state in ConnectionState if (state, ConnectionEvent.OVERDUE) not in TRANSITIONS} == unlimited


def test_only_a_connection_that_waits_is_dismissed_and_only_one_that_waits_takes_requests() -> None:
    waiting = {state for state in ConnectionState if STANDINGS[state] is ConnectionStanding.WAITING}
    assert {state for state in ConnectionState if (state, ConnectionEvent.DISMISSED) in TRANSITIONS} == waiting == READY
    assert {state for state in ConnectionState if (state, ConnectionEvent.ASKED) in TRANSITIONS} == READY


def test_what_nobody_reads_is_not_read_from_the_socket_unless_it_is_thrown_away() -> None:
    assert READING >= READY
    assert not READING & {ConnectionState.BLOCKED, ConnectionState.SENDING}
    assert {ConnectionState.CLOSED} == DISCARDING - READING

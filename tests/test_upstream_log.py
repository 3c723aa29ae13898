"""What the log says of an upstream's state: one line for each change, none for a retry."""

from __future__ import annotations

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, formatEvent

from proxy.settings import UpstreamSettings
from proxy.upstream.client import UpstreamClient
from proxy.upstream.health import LONGEST_PAUSE
from proxy.upstream.identity import Identity
from tests.support.wheels import seeded


@pytest.fixture
def clock() -> MemoryReactorClock:
    return MemoryReactorClock()


@pytest.fixture
def client(clock: MemoryReactorClock) -> UpstreamClient:
    settings = UpstreamSettings(name="up", url="https://packages.example/simple/")
    return UpstreamClient(settings, reactor=clock, identity=Identity(user_agent="t", via="t"), rng=seeded(1))


def fail(client: UpstreamClient, clock: MemoryReactorClock, times: int, retry_after: float | None = None) -> None:
    """Ask *times* times, after every pause, in vain."""
    for _ in range(times):
        client.admit().failed("answered 503 Service Unavailable", retry_after)
        clock.advance(2 * LONGEST_PAUSE)


def lines(logged: list[LogEvent]) -> list[str]:
    return [formatEvent(each) for each in logged]


def test_an_upstream_goes_and_comes_back_with_a_line_each(
    client: UpstreamClient, clock: MemoryReactorClock, logged: list[LogEvent]
) -> None:
    for _ in range(2):
        fail(client, clock, 30)
        client.admit().succeeded()
    out = "upstream up is out: answered 503 Service Unavailable; it is probed after growing pauses"
    assert lines(logged) == [out, "upstream up is back: it answers again"] * 2


def test_an_upstream_that_asks_for_a_pause_each_time_is_told_of_once(
    client: UpstreamClient, clock: MemoryReactorClock, logged: list[LogEvent]
) -> None:
    fail(client, clock, 30, retry_after=30.0)
    pause, out = lines(logged)
    assert pause == "upstream up answered 503 Service Unavailable and asks for a pause: it is left alone for 30 s"
    assert out.startswith("upstream up is out: ")


def test_failures_that_do_not_open_the_breaker_are_no_change(
    client: UpstreamClient, clock: MemoryReactorClock, logged: list[LogEvent]
) -> None:
    for _ in range(30):
        fail(client, clock, 1)
        client.admit().succeeded()
    assert lines(logged) == []

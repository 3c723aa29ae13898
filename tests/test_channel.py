"""Channels and their transport: whatever comes, and whenever the transport is full, every request is answered in its order."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from proxy.access.forwarded import TrustedProxies
from proxy.errors import NotFound
from proxy.interfaces import IBodyReader
from proxy.mechanism.offload import Inline
from proxy.model import FileFacts
from proxy.web.answers import Answer, Ask, StreamBody
from proxy.web.callers import Callers
from proxy.web.connections import BoundedSite
from proxy.web.hot import HotRequests
from proxy.web.patience import Patience
from proxy.web.serving import Front
from proxy.web.site import refuse_body


class Narrow(StringTransportWithDisconnection):
    """A transport that is full when more than *room* bytes wait in it, and says so while they are written, as Twisted's do."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._waiting = 0
        self._paused = False
        #: Whether it never ends by itself: bytes wait in it, or the client is waited for.
        self.lingers = False

    def loseConnection(self) -> None:
        if not self.lingers:
            super().loseConnection()

    def abortConnection(self) -> None:
        self.lingers = False
        super().abortConnection()

    def write(self, data: bytes) -> None:
        super().write(data)
        self._waiting += len(data)
        producer: Any = self.producer
        if producer is not None and self._waiting > self._room:
            self._paused = True
            producer.pauseProducing()

    def drain(self) -> None:
        """Send all that waits."""
        self._waiting = 0
        producer: Any = self.producer
        if producer is not None and self._paused:
            self._paused = False
            producer.resumeProducing()


class Yard:
    """A site with one client; ``/hot`` is remembered, ``/slow`` waits until it is let go, ``/broken`` is *broken*."""

    def __init__(self, room: int, broken: Callable[[], Answer] | None = None) -> None:
        self._broken = broken
        self.clock = Clock()
        self.routed: list[str] = []
        self.waiting: list[Deferred[None]] = []
        front = Front(
            self.route,
            HotRequests(self.clock.seconds, "pypiproxy-test", 1 << 20),
            Callers(TrustedProxies([])),
            self.clock,
            Inline(),
            via="pypiproxy-test",
            patience=Patience(stall_timeout=30.0, answer_within=1e9),
        )
        self.site = BoundedSite(front, self.clock, 1, 60.0, lambda full: None)
        self.transport = Narrow(room)
        channel = self.site.buildProtocol(None)
        self.transport.protocol = self.channel = channel
        channel.makeConnection(self.transport)

    def route(self, ask: Ask) -> Awaitable[Answer]:
        return self._route(ask)

    async def _route(self, ask: Ask) -> Answer:
        self.routed.append(ask.path)
        refuse_body(ask)
        if ask.path == "/broken" and self._broken is not None:
            return self._broken()
        if ask.path == "/slow":
            self.waiting.append(Deferred())
            await self.waiting[-1]
        answer = Answer(200, [], f"<{ask.path}>".encode() + bytes(300_000 if ask.path == "/large" else 0))
        if ask.path == "/hot":
            answer.again = lambda: (1, lambda: Answer(200, [], b"</hot>"))
        return answer

    def say(self, data: bytes) -> None:
        if self.transport.connected and self.transport.producerState == "producing":
            self.channel.dataReceived(data)

    def let_go(self) -> None:
        if self.waiting:
            waiting = self.waiting.pop(0)
            if not waiting.called:
                waiting.callback(None)

    @property
    def statuses(self) -> list[int]:
        return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) ", self.transport.value())]


HOST = b"Host: proxy.example\r\n\r\n"
HOT, SLOW, LARGE, SECRET, BROKEN = (
    b"GET /%b HTTP/1.1\r\n" % name + HOST for name in (b"hot", b"slow", b"large", b"secret", b"broken")
)
#: What is refused, and then something that looks like a request but belongs to the body of what was refused.
REFUSED = {
    400: b"POST / HTTP/1.1\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(SECRET) + HOST + SECRET,
    413: b"POST / HTTP/1.1\r\nContent-Length: %d\r\n" % len(SECRET) + HOST + SECRET,
    505: b"GET / HTTP/9.9\r\n" + HOST + SECRET,
}


@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("before", [b"", HOT, b"HEAD /hot HTTP/1.1\r\n" + HOST], ids=["nothing", "hot", "head"])
def test_who_is_refused_is_told_so_although_that_fills_the_transport(status: int, before: bytes) -> None:
    yard = Yard(0)
    yard.say(before + REFUSED[status])
    yard.transport.drain()
    yard.transport.drain()
    assert yard.statuses[-1] == status
    assert not yard.transport.connected
    assert "/secret" not in yard.routed


def test_nothing_follows_a_refusal_that_begins_while_an_answer_is_completed() -> None:
    yard = Yard(250)
    yard.say(SLOW + REFUSED[400])
    yard.let_go()
    yard.transport.drain()
    assert yard.statuses == [200, 400]
    assert "/secret" not in yard.routed


SAID = (
    HOT,
    SLOW,
    LARGE,
    *REFUSED.values(),
    HOT[:20],
    HOT[20:],
    b"\r",
    b"\n",
    b"GET / HTTP/1.1\r\nConnection: close\r\n" + HOST,
)
EVENTS = st.one_of(st.sampled_from(SAID), st.sampled_from(["drain", "let go", "wait", "stay", "make room", "another"]))


@given(st.sampled_from([0, 250, 1_000, 100_000]), st.lists(EVENTS, max_size=25))
def test_no_course_of_events_surprises_a_channel(room: int, course: list[bytes | str]) -> None:
    bugs: list[LogEvent] = []
    heard: ILogObserver = bugs.append  # type: ignore[assignment]  # a function is one, if not to the type checker
    globalLogPublisher.addObserver(heard)
    try:
        yard = Yard(room)
        others = []
        for each in course:
            if isinstance(each, bytes):
                yard.say(each)
            elif each == "drain":
                yard.transport.drain()
            elif each == "let go":
                yard.let_go()
            elif each == "make room":
                yard.site.make_room()
            elif each == "another":
                others.append(yard.site.buildProtocol(None))
                transport = StringTransportWithDisconnection()
                transport.protocol = others[-1]
                others[-1].makeConnection(transport)
            else:
                yard.clock.advance(61.0 if each == "wait" else 1.0)
        for _ in range(30):
            yard.let_go()
            yard.transport.drain()
            yard.clock.advance(11.0)
        assert not yard.transport.connected
    finally:
        globalLogPublisher.removeObserver(heard)
    assert [event for event in bugs if "log_failure" in event] == []
    refusals = [number for number, status in enumerate(yard.statuses) if status != 200]
    assert refusals in ([], [len(yard.statuses) - 1])
    assert "/secret" not in yard.routed


def test_who_comes_while_the_site_winds_down_is_told_that_the_connection_ends_although_the_request_is_known() -> None:
    """It was accepted just before the port was closed."""
    yard = Yard(100_000)
    yard.say(HOT)
    yard.site.wind_down()
    assert not yard.transport.connected
    for said in (HOT, b"\r\n" + HOT):
        late = StringTransportWithDisconnection()
        late.protocol = channel = yard.site.buildProtocol(None)
        channel.makeConnection(late)
        channel.dataReceived(said)
        assert b"\r\nConnection: close\r\n" in late.value()
        assert not late.connected


# -- the end ------------------------------------------------------------------------------------------------------------------

LAST = b"GET / HTTP/1.1\r\nConnection: close\r\n" + HOST


@pytest.mark.parametrize("said", [REFUSED[400], LAST + HOT], ids=["refused", "last"])
def test_who_takes_an_answer_slowly_gets_all_of_it_and_who_takes_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    left = 1000
    monkeypatch.setattr("proxy.web.channel.undelivered", lambda transport: left)
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(said)
    for _ in range(100):
        yard.clock.pump([1.0] * 4)
        left -= 1
    assert yard.transport.connected
    yard.clock.pump([1.0] * 20)
    assert yard.transport.connected
    yard.clock.pump([1.0] * 20)
    assert not yard.transport.connected


def test_who_has_an_answer_that_was_long_under_way_has_time_to_take_note_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 1000
    monkeypatch.setattr("proxy.web.channel.undelivered", lambda transport: left)
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(REFUSED[400])
    yard.clock.pump([1.0] * 14)
    left = 0
    yard.clock.pump([1.0] * 5)
    assert yard.transport.connected
    yard.clock.pump([1.0] * 6)
    assert not yard.transport.connected


def test_who_sends_on_is_listened_to_for_a_while_over_tls_too() -> None:
    """A transport that cannot be closed in one direction, as over TLS, is closed and still tells what comes."""
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(REFUSED[400])
    for _ in range(29):
        yard.clock.advance(1.0)
        yard.channel.dataReceived(b"more")
    assert yard.transport.connected
    for _ in range(10):
        yard.clock.advance(1.0)
        if yard.transport.connected:
            yard.channel.dataReceived(b"more")
    assert not yard.transport.connected


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\n\r\n"])
def test_empty_lines_behind_the_last_request_are_no_reason_to_linger(behind: bytes) -> None:
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(LAST + behind)
    yard.clock.pump([1.0] * 20)
    assert yard.transport.connected


def test_who_is_refused_and_sends_on_does_not_delay_a_stop() -> None:
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(REFUSED[400])
    closed = Deferred.fromCoroutine(yard.site.close(30.0))
    for _ in range(3):
        yard.clock.advance(0.5)
        if yard.transport.connected:
            yard.channel.dataReceived(b"more")
    assert closed.called
    assert not yard.transport.connected
    assert yard.clock.getDelayedCalls() == []


def test_who_takes_a_last_answer_slowly_is_waited_for_by_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 1000
    monkeypatch.setattr("proxy.web.channel.undelivered", lambda transport: left)
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(LAST)
    closed = Deferred.fromCoroutine(yard.site.close(30.0))
    for _ in range(10):
        yard.clock.advance(1.0)
        left -= 1
    assert not closed.called
    left = 0
    yard.clock.advance(1.0)
    assert closed.called


def test_a_stop_lasts_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.web.channel.undelivered", lambda transport: 1000)
    yard = Yard(100_000)
    yard.transport.lingers = True
    yard.say(LAST)
    closed = Deferred.fromCoroutine(yard.site.close(10.0))
    yard.clock.pump([1.0] * 9)
    assert yard.transport.connected
    yard.clock.advance(1.0)
    assert closed.called
    assert yard.clock.getDelayedCalls() == []


# -- routes that fail ---------------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[], Answer]:
    def broken() -> Answer:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no"), 404),
        (CancelledError(), 503),
        (MemoryError(), 503),
        (OSError(errno.EMFILE, "Too many open files"), 503),
        (OSError(errno.EIO, "Input/output error"), 500),
        (ConnectionLost(), 500),
        (ZeroDivisionError(), 500),
    ],
    ids=repr,
)
def test_whatever_a_route_raises_its_client_is_answered_and_can_go_on(error: Exception, status: int) -> None:
    yard = Yard(100_000, raising(error))
    yard.say(BROKEN + HOT)
    assert yard.statuses == [status, 200]
    assert yard.transport.connected


@implementer(IBodyReader)
class Broken:
    """The body of a range, of which nothing comes."""

    facts, length = FileFacts(10), 10
    closed = False

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def read(self) -> bytes:
        raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "error", [CancelledError(), ConnectionLost(), NotFound("no"), ZeroDivisionError(), SystemExit()], ids=repr
)
def test_a_body_that_cannot_be_completed_ends_the_connection(error: BaseException) -> None:
    reader = Broken(error)
    yard = Yard(100_000, lambda: Answer(200, [], StreamBody(reader, 10)))
    yard.say(BROKEN + HOT)
    assert (yard.statuses, yard.transport.connected, reader.closed) == ([200], False, True)


@pytest.mark.parametrize("broken", [raising(SystemExit()), lambda: Answer(999, [], StreamBody(Broken(ValueError()), 10))])
def test_what_cannot_be_answered_at_all_ends_the_connection(broken: Callable[[], Answer]) -> None:
    yard = Yard(100_000, broken)
    yard.say(BROKEN + HOT)
    assert (yard.statuses, yard.transport.connected) == ([], False)

"""Many who ask the same at one moment: one of them is routed, and all are answered, whatever becomes of that one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from proxy.core.cache_status import CacheStatus, collapsed
from proxy.core.events import Answered
from proxy.errors import NotFound
from proxy.web.answers import Answer, Ask, Ready
from proxy.web.responding import PIECE
from tests.test_hot import PATIENCE, Farm, bodies, request

PAGE = "/hot/page/"


class Herd(Farm):
    """A farm whose answers are misses; all who ask for *path* wait until they are let go."""

    def __init__(self, path: str = PAGE) -> None:
        super().__init__()
        self.path = path
        self.gates[path] = Deferred()

    def answer(self, ask: Ask) -> Answer:
        status = CacheStatus(False, "miss", stored=True, ttl=600)
        answer = super().answer(ask)
        return Answer(200, [*answer.headers, ("Cache-Status", status.header())], answer.body, word=status.word)

    def clients(self, count: int, *headers: str, alike: bool = False) -> list[StringTransport]:
        """That many more clients that ask for the path, all with the same bytes if they are *alike*."""
        made = [self.connect() for _ in range(count)]
        for number, (send, _) in enumerate(made):
            send(request(self.path, f"User-Agent: client {0 if alike else number}", *headers))
        return [transport for _, transport in made]

    def let_go(self) -> None:
        self.gates.pop(self.path).callback(None)


@pytest.mark.parametrize("alike", [True, False])
def test_who_asks_for_a_page_that_is_under_way_gets_the_answer_of_the_first(alike: bool) -> None:
    herd = Herd()
    clients = herd.clients(5, alike=alike)
    assert not any(client.value() for client in clients)
    herd.let_go()
    assert [bodies(client) for client in clients] == [[PAGE.encode()]] * 5
    assert herd.routed == [PAGE]
    shared = [b"Cache-Status: pypiproxy; fwd=miss; stored; collapsed; ttl=600" in client.value() for client in clients]
    assert shared == [False, True, True, True, True]
    # Whoever comes now asks what the answer is by now.
    herd.version = 2
    [late] = herd.clients(1)
    assert b"X-Version: 2" in late.value()


class Changing(Herd):
    """A farm whose answer changes as soon as it has been given."""

    def answer(self, ask: Ask) -> Answer:
        answer = super().answer(ask)
        self.version += 1
        return answer


def test_who_follows_gets_what_is_true_when_it_is_answered() -> None:
    """An upload may have been acknowledged since the first of them was on its way."""
    herd = Changing()
    first, second, third = herd.clients(3)
    herd.let_go()
    assert b"X-Version: 1" in first.value()
    assert [b"X-Version: 2" in each.value() for each in (second, third)] == [True, True]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/hot/file.whl", ()),
        (PAGE, ("Accept: text/html",)),
        (PAGE, ("Range: bytes=0-1",)),
        (PAGE, ("Via: 1.1 other",)),
        (PAGE, ("Cache-Control: no-cache",)),
    ],
    ids=["file", "type", "range", "via", "reload"],
)
def test_who_asks_for_something_else_is_routed(path: str, headers: tuple[str, ...]) -> None:
    herd = Herd(path)
    clients = herd.clients(1) + herd.clients(1, *headers)
    assert herd.routed == [path, path]
    herd.let_go()
    assert [bodies(client) for client in clients] == [[path.encode()]] * 2


def test_when_the_first_leaves_the_others_are_answered() -> None:
    herd = Herd()
    gone = herd.site.buildProtocol(None)
    assert gone is not None
    gone.makeConnection(StringTransport())
    gone.dataReceived(request(PAGE))
    clients = herd.clients(3)
    gone.connectionLost(Failure(ConnectionDone()))
    assert herd.routed == [PAGE] * 4
    herd.let_go()
    assert [bodies(client) for client in clients] == [[PAGE.encode()]] * 3


def test_who_follows_goes_on_with_its_connection_and_may_end_it() -> None:
    herd = Herd()
    herd.clients(1, alike=True)
    send, transport = herd.connect()
    send(request(PAGE, "User-Agent: client 0"))
    send(request("/hot/next") + request("/hot/last", "Connection: close"))
    assert transport.value() == b""
    herd.let_go()
    assert bodies(transport) == [PAGE.encode(), b"/hot/next", b"/hot/last"]
    assert transport.disconnecting


class Puzzled(Herd):
    """A farm that cannot say at first what the answer is by now, because of a bug."""

    failed = False

    def at_once(self, ask: Ask) -> Ready | None:
        if not self.failed:
            self.failed = True
            raise ValueError("a bug")
        return super().at_once(ask)


def test_when_nobody_can_say_what_the_answer_is_by_now_each_who_follows_is_routed() -> None:
    herd = Puzzled()
    clients = herd.clients(4)
    with capturedLogs() as logged:
        herd.let_go()
    assert [bodies(client) for client in clients] == [[PAGE.encode()]] * 4
    assert herd.routed == [PAGE] * 4
    assert ["log_failure" in each for each in logged if each.get("log_namespace") == "proxy.web"] == [True]
    assert (herd.site.front.in_progress, herd.site.front.sharing.waiting) == (0, 0)


def test_who_leaves_while_waiting_is_not_answered_and_the_others_are() -> None:
    herd = Herd()
    clients = herd.clients(2)
    gone, silent = herd.site.buildProtocol(None), StringTransport()
    assert gone is not None
    gone.makeConnection(silent)
    gone.dataReceived(request(PAGE))
    gone.connectionLost(Failure(ConnectionDone()))
    herd.let_go()
    assert [bodies(client) for client in clients] == [[PAGE.encode()]] * 2
    assert (silent.value(), herd.site.front.in_progress) == (b"", 0)


def test_each_who_follows_has_an_id_of_its_own_and_is_counted_with_the_time_that_it_took() -> None:
    herd = Herd()
    clients = herd.clients(2)
    herd.clock.advance(1.5)
    clients += herd.clients(1, alike=True)
    herd.clock.advance(1.0)
    herd.let_go()
    ids = {re.findall(rb"X-Request-ID: (\S+)\r\n", client.value())[0] for client in clients}
    assert len(ids) == 3
    counted = [each for each in herd.recorder.events if isinstance(each, Answered)]
    assert sorted((each.seconds, each.first_byte, each.size, each.word) for each in counted) == [
        (1.0, 1.0, len(PAGE) + 2, "collapsed"),
        (2.5, 2.5, len(PAGE) + 2, "collapsed"),
        (2.5, 2.5, len(PAGE) + 2, "miss"),
    ]
    assert herd.site.front.in_progress == 0


class Long(Herd):
    """A farm whose answers do not fit into one write."""

    def answer(self, ask: Ask) -> Answer:
        answer = super().answer(ask)
        assert isinstance(answer.body, bytes)
        return Answer(200, answer.headers, b"%b%b" % (answer.body, b"." * PIECE), word=answer.word)


def test_what_does_not_fit_into_one_write_is_sent_whole_to_all() -> None:
    herd = Long()
    clients = herd.clients(3)
    herd.let_go()
    assert herd.routed == [PAGE]
    assert [client.value().count(b".....") for client in clients] == [clients[0].value().count(b".....")] * 3
    assert [client.value().partition(b"\r\n\r\n")[2] for client in clients] == [b"<%b>%b" % (PAGE.encode(), b"." * PIECE)] * 3


def test_who_waits_when_the_service_stops_is_answered_and_told_that_the_connection_ends() -> None:
    herd = Herd()
    clients = herd.clients(3, alike=True)
    herd.site.wind_down()
    quiet = herd.site.front.quiet()
    assert not quiet.called
    herd.let_go()
    assert [b"\r\nConnection: close\r\n" in client.value() for client in clients] == [True] * 3
    assert [bodies(client) for client in clients] == [[PAGE.encode()]] * 3
    assert (quiet.called, [client.disconnecting for client in clients]) == (True, [True] * 3)


class Broken(StringTransport):
    """A transport that takes nothing."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("nothing can be written here")


def test_when_one_cannot_be_answered_the_others_are() -> None:
    herd = Herd()
    herd.clients(1, alike=True)
    broken, transport = herd.site.buildProtocol(None), Broken()
    assert broken is not None
    broken.makeConnection(transport)
    broken.dataReceived(request(PAGE, "User-Agent: client 0"))
    [last] = herd.clients(1, alike=True)
    with capturedLogs() as logged:
        herd.let_go()
    assert bodies(last) == [PAGE.encode()]
    assert (transport.disconnected, herd.site.front.in_progress) == (True, 0)
    assert [str(each["log_failure"].value) for each in logged if "log_failure" in each] == ["nothing can be written here"]


def test_when_what_the_answer_is_by_now_cannot_be_told_each_is_routed_and_nobody_else_is_answered_so() -> None:
    herd = Herd()
    clients = herd.clients(3)
    herd.fault = RuntimeError("it cannot be told")
    with capturedLogs() as logged:
        herd.let_go()
    assert [bodies(each) for each in clients] == [[PAGE.encode()]] * 3
    assert [str(each["log_failure"].value) for each in logged if "log_failure" in each] == ["it cannot be told"]
    assert (len(herd.routed), herd.faults) == (3, [PAGE])


class Failing(Herd):
    def answer(self, ask: Ask) -> Answer:
        raise NotFound(f"<nothing at {ask.path}>")


class Forgetful(Herd):
    def __init__(self) -> None:
        super().__init__()
        self.remembers = False


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize(("made", "status"), [(Failing, 404), (Forgetful, 200)])
def test_what_is_not_for_others_is_answered_to_each_by_a_route(made: Callable[[], Herd], status: int, alike: bool) -> None:
    herd = made()
    clients = herd.clients(4, alike=alike)
    assert herd.routed == [PAGE]
    herd.let_go()
    assert herd.routed == [PAGE] * 4
    assert [client.value()[:12] for client in clients] == [b"HTTP/1.1 %d" % status] * 4


def test_who_waits_is_answered_in_the_time_that_each_request_has() -> None:
    herd = Herd()
    first = herd.clients(1)
    herd.gates[PAGE] = Deferred()  # what the second one will wait for by itself
    herd.clock.advance(PATIENCE.answer_within / 2)
    second = herd.clients(1)
    herd.clock.advance(PATIENCE.answer_within / 2)
    assert [client.value()[:12] for client in first + second] == [b"HTTP/1.1 503", b""]
    herd.clock.advance(PATIENCE.answer_within / 2)
    assert [client.value()[:12] for client in second] == [b"HTTP/1.1 503"]


@pytest.mark.parametrize(
    "status",
    [
        CacheStatus(True, ttl=5),
        CacheStatus(True),
        CacheStatus(False, "miss"),
        CacheStatus(False, "stale", ttl=5),
        CacheStatus(False, "stale", stored=True, detail="a; b"),
        CacheStatus(False, "miss", ttl=5, collapsed=True, stored=True),
    ],
)
def test_what_is_shared_says_so_as_its_own_status_would(status: CacheStatus) -> None:
    expected = status if status.hit else CacheStatus(False, status.fwd, status.ttl, True, status.stored, status.detail)
    assert collapsed(status.header()) == expected.header()

"""Connections to upstreams: which are used again, which are not, and that no answer is ever taken for another request's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.settings import PageLimits
from proxy.statistics.recorders import UNRECORDED
from proxy.upstream.http.attempt import Attempt, Manner
from proxy.upstream.http.body import IncomingBody
from proxy.upstream.http.client import HttpClient
from proxy.upstream.http.connection import Connection, ConnectionFactory, UpstreamResponse
from proxy.upstream.http.failures import Broken, Failed, TooLate
from proxy.upstream.http.fetching import AnyPermit
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import origin_of, target_of
from proxy.upstream.http.parsing import NotHttp
from proxy.upstream.http.reuse import IDLE_FOR, ConnectionPool
from proxy.upstream.http.traffic import UpstreamTraffic
from proxy.upstream.http.transport import request_bytes
from tests.inprocess import JSON, Start, upstream_settings
from tests.support import certs

reactor: Any = default_reactor


def page(name: str, head: str = "HTTP/1.1 200 OK", *fields: str) -> bytes:
    """An answer with the page of *name*, which has no files."""
    body = json.dumps({"meta": {"api-version": "1.0"}, "name": name, "files": []})
    lines = [head, f"Content-Type: {JSON}", f"Content-Length: {len(body)}", *fields, "", body]
    return "\r\n".join(lines).encode("latin-1")


class Scripted(Factory):
    """A server that answers each request with what *answer* makes of its number, on whatever connection it comes."""

    noisy = False

    def __init__(self, answer: Callable[[int, Protocol], bytes]) -> None:
        self.answer = answer
        #: The requests of each connection.
        self.connections: list[list[bytes]] = []
        self.ended: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> Protocol:
        self.connections.append([])
        self.ended.append(Deferred())
        return _Scripted(self, self.connections[-1], self.ended[-1])

    @property
    def asked(self) -> list[bytes]:
        return [request for connection in self.connections for request in connection]


class _Scripted(Protocol):
    transport: Any

    def __init__(self, script: Scripted, requests: list[bytes], ended: Deferred[None]) -> None:
        self._script, self._requests, self._ended = script, requests, ended

    def dataReceived(self, data: bytes) -> None:
        assert data.endswith(b"\r\n\r\n"), "a request comes in one piece"
        number = len(self._script.asked)
        self._requests.append(data)
        self.transport.write(self._script.answer(number, self))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended.callback(None)


@pytest.fixture
def scripted() -> Iterator[Callable[[Callable[[int, Any], bytes]], tuple[str, Scripted]]]:
    """Starts such a server; its URL, and what it has seen."""
    ports = []

    def make(answer: Callable[[int, Any], bytes]) -> tuple[str, Scripted]:
        script = Scripted(answer)
        ports.append(reactor.listenTCP(0, script, interface="127.0.0.1"))
        return f"http://127.0.0.1:{ports[-1].getHost().port}/simple/", script

    yield make
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


Make = Callable[[Callable[[int, Any], bytes]], tuple[str, Scripted]]


@pytest_twisted.ensureDeferred
async def test_one_connection_serves_one_request_after_the_other(scripted: Make, run: Start) -> None:
    url, seen = scripted(lambda number, peer: page(f"p{number}"))
    proxy = await run(upstream_settings(url))
    for number in range(3):
        assert (await proxy.page(f"p{number}"))["name"] == f"p{number}"
    assert [len(each) for each in seen.connections] == [3]
    lines = seen.asked[0].decode().split("\r\n")
    assert lines[0] == "GET /simple/p0/ HTTP/1.1"
    assert f"Host: {urlsplit(url).netloc}" in lines
    names = [line.partition(":")[0].lower() for line in lines[1:-2]]
    assert len(names) == len(set(names))
    assert {"host", "user-agent", "accept", "accept-encoding", "via", "x-request-id"} <= set(names)


@pytest_twisted.ensureDeferred
async def test_what_comes_with_an_answer_is_no_answer_to_the_next_request(scripted: Make, run: Start) -> None:
    url, seen = scripted(lambda number, peer: page(f"p{number}") + page("forged"))
    proxy = await run(upstream_settings(url))
    for number in range(3):
        assert (await proxy.page(f"p{number}"))["name"] == f"p{number}"
    assert [len(each) for each in seen.connections] == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_what_comes_on_an_idle_connection_ends_it(scripted: Make, run: Start) -> None:
    peers = []

    def answer(number: int, peer: Any) -> bytes:
        peers.append(peer)
        return page(f"p{number}")

    url, seen = scripted(answer)
    proxy = await run(upstream_settings(url))
    await proxy.page("p0")
    peers[0].transport.write(page("forged"))
    await seen.ended[0]
    assert (await proxy.page("p1"))["name"] == "p1"
    assert [len(each) for each in seen.connections] == [1, 1]


@pytest_twisted.ensureDeferred
async def test_a_request_goes_out_again_where_an_idle_connection_is_closed_before_its_answer(
    scripted: Make, run: Start
) -> None:
    def answer(number: int, peer: Any) -> bytes:
        if number == 1:
            peer.transport.abortConnection()
            return b""
        return page("p0" if number == 0 else "p1")

    url, seen = scripted(answer)
    proxy = await run(upstream_settings(url))
    await proxy.page("p0")
    assert (await proxy.page("p1"))["name"] == "p1"
    assert [len(each) for each in seen.connections] == [2, 1]


@pytest_twisted.ensureDeferred
async def test_a_request_that_crosses_the_end_of_an_idle_connection_goes_out_again(scripted: Make, run: Start) -> None:
    def answer(number: int, peer: Any) -> bytes:
        if number == 1:
            return b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate"
        return page(f"p{min(number, 1)}")

    url, seen = scripted(answer)
    proxy = await run(upstream_settings(url))
    await proxy.page("p0")
    assert (await proxy.page("p1"))["name"] == "p1"
    assert [len(each) for each in seen.connections] == [2, 1]


@pytest.mark.parametrize("connections", ["Connection: close", "Connection: keep-alive"])
@pytest_twisted.ensureDeferred
async def test_the_same_on_a_new_connection_or_one_that_stays_open_is_an_answer(
    scripted: Make, run: Start, connections: str
) -> None:
    url, seen = scripted(lambda number, peer: page("p0") if not number else page("p1", "HTTP/1.1 408 Late", connections))
    proxy = await run(upstream_settings(url))
    await proxy.page("p0")
    reply = await proxy.get("/simple/p1/", Accept=JSON)
    assert (reply.status, "answered 408 Request Timeout" in reply.reason) == (503, True)
    assert len(seen.asked) == (3 if "close" in connections else 2)


@pytest.mark.parametrize(
    ("head", "field"),
    [("HTTP/1.0 200 OK", "A: b"), ("HTTP/1.1 200 OK", "Connection: Close"), ("HTTP/1.1 200 OK", "connection: x, close")],
)
@pytest_twisted.ensureDeferred
async def test_a_connection_that_the_server_is_about_to_close_is_not_used_again(
    scripted: Make, run: Start, head: str, field: str
) -> None:
    url, seen = scripted(lambda number, peer: page(f"p{number}", head, field))
    proxy = await run(upstream_settings(url))
    for number in range(2):
        assert (await proxy.page(f"p{number}"))["name"] == f"p{number}"
    assert [len(each) for each in seen.connections] == [1, 1]


@pytest_twisted.ensureDeferred
async def test_what_an_upstream_sent_in_a_header_goes_back_to_it_on_one_line(scripted: Make, run: Start) -> None:
    url, seen = scripted(lambda number, peer: page("six", "HTTP/1.1 200 OK", 'ETag: "a\rX-Forged: b\x00\xff"'))
    proxy = await run(upstream_settings(url), limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    for _ in range(2):
        await proxy.page("six")
    assert len(seen.asked) == 2
    (condition,) = [line for line in seen.asked[1].split(b"\r\n") if line.lower().startswith(b"if-none-match")]
    assert condition == b'If-None-Match: "a X-Forged: b \xff"'
    assert b"\r" not in condition


@pytest_twisted.ensureDeferred
async def test_a_place_that_is_taken_away_costs_no_other_request_the_connection(scripted: Make) -> None:
    url, seen = scripted(lambda number, peer: page(f"p{number}"))
    observing = Observing(Inline(), UNRECORDED, time.time)
    settings = upstream_settings(url)
    client = HttpClient(settings, reactor=reactor, identity=Identity("t", "t"), clock=time.time, observing=observing)
    places = [await client.slots.take(file=False) for _ in range(2)]
    attempts = [Attempt("t", client, AnyPermit(), Manner()) for _ in range(2)]
    first = await client.send(attempts[0], places[0], "GET", f"{url}p0/", {}, None)
    asking = Deferred.fromCoroutine(client.send(attempts[1], places[1], "GET", f"{url}p1/", {}, None))
    places[0].take_away(Failed("others wait"))
    second = await asking
    assert [json.loads(await each.read(1000))["name"] for each in (first, second)] == ["p0", "p1"]
    assert [len(each) for each in seen.connections] == [2]
    await client.close()
    await seen.ended[0]


LINES = st.lists(
    st.text(max_size=20) | st.sampled_from(["A: b\r\nC: d", "A: b\nC", "A\rB", "\0", "A: \xff", "A: €"]), min_size=1, max_size=6
)


@given(LINES)
def test_a_request_has_the_lines_that_it_is_made_of_and_no_more(lines: list[str]) -> None:
    sent = request_bytes(lines).split(b"\r\n")
    assert len(sent) == len(lines) + 2
    assert sent[-2:] == [b"", b""]
    assert not any(set(b"\r\n\0") & set(line) for line in sent)


HOSTS = st.sampled_from(["a.example", "A.Example", "127.0.0.1", "[::1]", "user:secret@a.example", "a-b.example.", "a_b"])
PORTS = st.sampled_from(["", ":80", ":443", ":8080", ":65535", ":0", ":65536", ":x"])
PATHS = st.text(st.sampled_from(list("/aZ09-._~%20+é \"<>[]{}|\\^`?&=;,@:!$'()*#\r\n\t")), max_size=15).map(
    "/".__add__
) | st.just("")


@given(st.sampled_from(["http", "https"]), HOSTS, PORTS, PATHS)
def test_what_a_url_is_asked_for_by_is_of_its_origin_and_has_no_blanks(scheme: str, host: str, port: str, path: str) -> None:
    url = f"{scheme}://{host}{port}{path}"
    try:
        target = target_of(url)
    except Failed:
        return
    parts = urlsplit(url)
    assert (
        target.origin == origin_of(url) == (scheme, (parts.hostname or "").lower(), parts.port or (80, 443)[scheme == "https"])
    )
    assert target.absolute.startswith(f"{scheme}://")
    assert target.absolute.endswith(target.form)
    assert target.form.startswith("/")
    assert "secret" not in target.absolute + target.host
    for each in (target.form, target.absolute, target.host):
        assert all("!" <= character <= "~" for character in each), each
        assert "#" not in each
    assert origin_of(target.absolute) == target.origin
    assert target_of(target.absolute).form == target.form


# -- one connection -----------------------------------------------------------------------------------------------------------

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Line:
    """Connections of one pool, without sockets, and the time."""

    def __init__(self, most: int = 2) -> None:
        self.clock = Clock()
        self.pool = ConnectionPool(self.clock, most)

    def connected(self) -> tuple[Connection, StringTransport]:
        connection = ConnectionFactory(self.clock, self.pool).buildProtocol(None)
        transport = StringTransport()
        connection.makeConnection(transport)
        connection.key = "key"
        return connection, transport

    def ask(self, connection: Connection) -> tuple[list[UpstreamResponse], list[BaseException]]:
        """What comes of a request."""
        answers: list[UpstreamResponse] = []
        errors: list[BaseException] = []
        asked = connection.ask(REQUEST, "GET", 10.0)
        asked.addCallbacks(answers.append, lambda failure: errors.append(failure.value))
        return answers, errors

    def idle(self) -> tuple[Connection, StringTransport]:
        """A connection that has had its answer."""
        connection, transport = self.connected()
        answers, _ = self.ask(connection)
        connection.dataReceived(ANSWER)
        assert len(answers) == 1
        return connection, transport


def test_an_idle_connection_is_closed_after_a_while_and_the_last_one_used_is_the_next() -> None:
    line = Line()
    first, first_transport = line.idle()
    line.clock.advance(10.0)
    second, second_transport = line.idle()
    assert line.pool.take("other") is None
    assert line.pool.take("key") is second
    line.pool.put(second)
    line.clock.advance(IDLE_FOR - 10.0)
    assert (first_transport.disconnecting, second_transport.disconnecting) == (True, False)
    assert line.pool.take("key") is second
    line.clock.advance(3 * IDLE_FOR)
    assert not second_transport.disconnecting, "it is in use"
    assert (line.pool.take("key"), line.clock.getDelayedCalls()) == (None, [])
    first.connectionLost(Failure(ConnectionLost()))


def test_more_than_so_many_are_not_kept() -> None:
    line = Line(most=2)
    idle = [line.idle() for _ in range(3)]
    assert [transport.disconnecting for _, transport in idle] == [True, False, False]


def test_an_idle_connection_that_is_lost_is_not_offered() -> None:
    line = Line()
    connection, _ = line.idle()
    connection.connectionLost(Failure(ConnectionLost()))
    assert line.pool.take("key") is None


def test_retired_connections_are_closed_when_they_are_idle() -> None:
    line = Line()
    idle, idle_transport = line.idle()
    busy, busy_transport = line.connected()
    answers, _ = line.ask(busy)
    done: list[object] = []
    line.pool.retire().addCallback(done.append)
    assert (idle_transport.disconnecting, busy_transport.disconnecting, done) == (True, False, [])
    idle.connectionLost(Failure(ConnectionLost()))
    assert done == [None]
    busy.dataReceived(ANSWER)
    assert len(answers) == 1
    assert busy_transport.disconnecting
    busy.connectionLost(Failure(ConnectionLost()))
    assert (line.pool.take("key"), line.clock.getDelayedCalls()) == (None, [])


def test_a_head_that_does_not_come_in_time_ends_the_connection() -> None:
    line = Line()
    connection, transport = line.connected()
    answers, errors = line.ask(connection)
    line.clock.advance(9.0)
    connection.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert (answers, errors) == ([], [])
    line.clock.advance(1.0)
    assert [type(each) for each in errors] == [TooLate]
    assert transport.disconnected or transport.disconnecting
    connection.dataReceived(b"\r\n")
    connection.connectionLost(Failure(ConnectionLost()))
    assert (answers, line.pool.take("key"), line.clock.getDelayedCalls()) == ([], None, [])


@pytest.mark.parametrize("so_far", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_who_waits_for_a_head_is_told_why_there_is_none(so_far: bytes) -> None:
    line = Line()
    connection, _ = line.connected()
    _, errors = line.ask(connection)
    connection.dataReceived(so_far)
    connection.connectionLost(Failure(ConnectionLost()))
    assert [type(each) for each in errors] == [ConnectionLost]
    connection, transport = line.connected()
    _, errors = line.ask(connection)
    connection.dataReceived(so_far + b"\x00\n\n")
    assert [type(each) for each in errors] == [NotHttp]
    assert transport.disconnected or transport.disconnecting


def test_a_connection_that_the_other_side_does_not_help_to_close_is_aborted() -> None:
    line = Line()
    connection, transport = line.idle()
    connection.dataReceived(b"nobody asked")
    assert (transport.disconnecting, transport.disconnected) == (True, False)
    line.clock.advance(60.0)
    assert transport.disconnected
    connection.connectionLost(Failure(ConnectionLost()))
    assert (line.pool.take("key"), line.clock.getDelayedCalls()) == (None, [])


@pytest.mark.parametrize("end", [ConnectionDone(), ConnectionLost()])
def test_a_body_of_no_stated_length_is_not_ended_by_a_reset(end: Exception) -> None:
    line = Line()
    connection, _ = line.connected()
    answers, _ = line.ask(connection)
    connection.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nsome")
    body = IncomingBody(60.0, UpstreamTraffic("up", UNRECORDED, line.clock.seconds).reception(None, 0.0))
    answers[0].deliver(body)
    connection.connectionLost(Failure(end))
    found: list[bytes] = []
    errors: list[Any] = []

    async def read() -> None:
        while chunk := await body.read():
            found.append(chunk)

    Deferred.fromCoroutine(read()).addErrback(errors.append)
    assert found == [b"some"]
    was_reset = isinstance(end, ConnectionLost)
    assert ([failure.type for failure in errors], body.unsure) == ([Broken] if was_reset else [], not was_reset)


def test_a_request_that_is_cancelled_ends_its_connection() -> None:
    line = Line()
    connection, transport = line.connected()
    asked = connection.ask(REQUEST, "GET", 10.0)
    errors: list[Any] = []
    asked.addErrback(errors.append)
    asked.cancel()
    assert [failure.check(CancelledError) for failure in errors] == [CancelledError]
    assert transport.disconnected or transport.disconnecting
    connection.dataReceived(ANSWER)
    connection.connectionLost(Failure(ConnectionLost()))
    assert (line.pool.take("key"), line.clock.getDelayedCalls()) == (None, [])


def test_a_body_that_nobody_takes_is_not_read_on() -> None:
    line = Line()
    connection, transport = line.connected()
    answers, _ = line.ask(connection)
    connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab")
    assert len(answers) == 1
    assert transport.producerState == "producing"
    connection.dataReceived(b"cd")
    assert transport.producerState == "paused"


# -- TLS, to a server that does not take part in its end -----------------------------------------------------------------------


class _Deaf(Protocol):
    """Reads a request and nothing after it: neither that the other side has ended TLS, nor that it has gone."""

    transport: Any

    def __init__(self, answer: bytes, ended: Deferred[None]) -> None:
        self._answer, self._ended = answer, ended

    def dataReceived(self, data: bytes) -> None:
        self.transport.transport.pauseProducing()
        self.transport.write(self._answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended.callback(None)


class DeafServer(Factory):
    """Serves TLS, and answers the request of a connection with *answer*."""

    noisy = False

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.ended: Deferred[None] = Deferred()
        self.port = reactor.listenSSL(0, self, certs.server_context(), interface="127.0.0.1")
        self.served: list[_Deaf] = []

    def buildProtocol(self, addr: object) -> Protocol:
        self.served.append(_Deaf(self._answer, self.ended))
        return self.served[-1]

    async def asked(self, pool: ConnectionPool) -> UpstreamResponse:
        """The response to a request on a connection of *pool* to it."""
        roots = trustRootFromCertificates([Certificate.loadPEM(certs.authority().certificate_pem)])
        creator = optionsForClientTLS("localhost", trustRoot=roots)
        endpoint = wrapClientTLS(creator, TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port))
        connection: Any = await endpoint.connect(ConnectionFactory(Clock(), pool))  # no time passes, so no limit helps
        connection.key = "key"
        response: UpstreamResponse = await connection.ask(REQUEST, "GET", 60.0)
        return response

    async def close(self) -> None:
        for each in self.served:
            each.transport.abortConnection()
        await maybeDeferred(self.port.stopListening)


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_end_tls_keeps_no_idle_connection_open() -> None:
    pool = ConnectionPool(Clock(), 2)
    server = DeafServer(ANSWER)
    await server.asked(pool)
    await pool.retire().addTimeout(60.0, reactor)
    await server.close()


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_end_tls_is_not_read_on_when_its_answer_is_of_no_use_any_more() -> None:
    lost: Deferred[None] = Deferred()

    class Watched(ConnectionPool):
        def lost(self, connection: Connection) -> None:
            super().lost(connection)
            lost.callback(None)

    server = DeafServer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nbeginning")
    response = await server.asked(Watched(Clock(), 2))
    response.pause()
    response.stop()
    await lost.addTimeout(60.0, reactor)
    await server.close()

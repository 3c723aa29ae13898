"""The doors: how many clients there may be, how long they may take, and what none of them does to the others."""

from __future__ import annotations

import re
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent

from proxy.access.forwarded import TrustedProxies
from proxy.mechanism.offload import Inline
from proxy.web.answers import Answer, Ask
from proxy.web.callers import Callers
from proxy.web.connection import HEAD_WITHIN
from proxy.web.connections import RESERVE, RESERVE_AT_ONCE, BoundedSite
from proxy.web.hot import HotRequests
from proxy.web.patience import Patience
from proxy.web.serving import Front
from tests.inprocess import JSON, LOOPBACK, Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.process import ProxyProcess

BIG = bytes(range(256)) * 4096  # 1 MiB
IDLE, STALL = 60.0, 30.0


class Client:
    """One connection to a `House`, and what came down it."""

    def __init__(self, house: House) -> None:
        self.transport = StringTransportWithDisconnection()
        self.channel = house.site.buildProtocol(None)
        assert self.channel is not None
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)

    def ask(self, path: str, *headers: str) -> None:
        self.say("\r\n".join([f"GET {path} HTTP/1.1", "Host: proxy.example", *headers, "", ""]).encode())

    def say(self, data: bytes) -> None:
        assert self.channel is not None
        self.channel.dataReceived(data)

    @property
    def statuses(self) -> list[int]:
        return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+) ", self.transport.value())]

    @property
    def open(self) -> bool:
        return bool(self.transport.connected)

    def takes_no_more(self) -> None:
        producer: Any = self.transport.producer
        producer.pauseProducing()

    def takes_more(self) -> None:
        producer: Any = self.transport.producer
        producer.resumeProducing()


class House:
    """A site with a clock that the test moves; ``/big`` is large, ``/slow`` waits, what begins with ``/hot`` is remembered."""

    def __init__(self, limit: int = 100) -> None:
        self.clock = Clock()
        hot = HotRequests(self.clock.seconds, "pypiproxy-test", 1 << 22)
        self.gate: Deferred[None] = Deferred()
        self.full: list[bool] = []
        front = Front(
            self.route,
            hot,
            Callers(TrustedProxies([])),
            self.clock,
            Inline(),
            via="pypiproxy-test",
            patience=Patience(stall_timeout=STALL, answer_within=1e9),
        )
        self.site = BoundedSite(front, self.clock, limit, IDLE, self.full.append)
        self.clients: list[Client] = []

    def route(self, ask: Ask) -> Awaitable[Answer]:
        return self._route(ask)

    async def _route(self, ask: Ask) -> Answer:
        if ask.path == "/slow":
            await self.gate
        answer = self.answer(ask)
        if ask.path.startswith("/hot"):
            answer.again = lambda: (1, lambda: self.answer(ask))
        return answer

    def answer(self, ask: Ask) -> Answer:
        return Answer(200, [], BIG if "big" in ask.path else b"small")

    def connect(self) -> Client:
        self.clients.append(Client(self))
        return self.clients[-1]

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2) + [seconds % 0.5])


@pytest.fixture
def house() -> House:
    return House()


# -- time ---------------------------------------------------------------------------------------------------------------------


def test_a_head_that_comes_byte_by_byte_has_a_deadline_that_no_byte_moves(house: House) -> None:
    client = house.connect()
    house.wait(IDLE - 1)
    sent = b"GET /a HTTP/1.1\r\nHost: proxy.example\r\nX: " + b"a" * 1000
    for number in range(int(HEAD_WITHIN)):
        assert client.open
        client.say(sent[number : number + 1])
        house.wait(1)
    assert client.statuses == [408]
    assert not client.open


def test_the_deadline_is_for_each_head_and_not_for_the_connection(house: House) -> None:
    client = house.connect()
    for number in range(5):
        for half in (b"GET /a HTTP/1.1\r\n", b"Host: proxy.example\r\n\r\n"):
            house.wait(HEAD_WITHIN - 1)
            client.say(half)
        assert client.statuses == [200] * (number + 1)
    house.wait(IDLE - 1)
    assert client.open
    house.wait(2)
    assert not client.open


def test_empty_lines_keep_no_connection_open(house: House) -> None:
    client = house.connect()
    for _ in range(int(IDLE) + 2):
        client.say(b"\r\n")
        house.wait(1)
    assert not client.open


@pytest.mark.parametrize("lines", [[b"\r", b"\n"], [b"\r\n\r", b"\n\r"]])
def test_an_empty_line_that_comes_in_pieces_begins_no_request(house: House, lines: list[bytes]) -> None:
    client = house.connect()
    for each in lines:
        client.say(each)
    house.wait(HEAD_WITHIN + 1)
    assert client.open
    client.say(b"\nGET /a HTTP/1.1\r\nHost: proxy.example\r\n\r\n" if lines[-1].endswith(b"\r") else b"\r\n")
    house.wait(IDLE + 1)
    assert client.statuses == [200] * lines[-1].endswith(b"\r")
    assert not client.open


def test_no_time_runs_while_a_request_is_answered(house: House) -> None:
    client = house.connect()
    client.ask("/slow")
    client.say(b"GET /a HT")
    house.wait(10 * IDLE)
    house.gate.callback(None)
    client.say(b"TP/1.1\r\nHost: proxy.example\r\n\r\n")
    assert client.statuses == [200, 200]


@pytest.mark.parametrize("path", ["/big", "/hot/big"])
def test_who_takes_a_page_slowly_gets_all_of_it_and_who_takes_nothing_is_dropped(house: House, path: str) -> None:
    """Of a page that a route has made and of one that is remembered."""
    house.connect().ask(path)
    client, stalled = house.connect(), house.connect()
    for each in (client, stalled):
        each.transport.write = _one_write_at_a_time(each, each.transport.write)  # type: ignore[method-assign]  # a slow network
        each.ask(path)
    stopped = len(stalled.transport.value())
    assert 0 < stopped < len(BIG)
    while len(client.transport.value()) < len(BIG):
        house.wait(STALL - 1)
        client.takes_more()
    assert client.transport.value().endswith(BIG)
    assert client.open
    assert not stalled.open
    assert len(stalled.transport.value()) == stopped


def _one_write_at_a_time(client: Client, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def slowly(data: bytes) -> None:
        write(data)
        if len(data) > 1000:
            client.takes_no_more()

    return slowly


def test_a_request_waits_until_the_answer_before_it_has_gone_out(house: House) -> None:
    """Or a client that sends requests and reads nothing would have all its answers in memory."""
    house.connect().ask("/hot/big")
    client = house.connect()
    client.transport.write = _one_write_at_a_time(client, client.transport.write)  # type: ignore[method-assign]  # a slow network
    for _ in range(100):
        client.ask("/hot/big")
    assert len(client.transport.value()) < len(BIG)
    while client.transport.value().count(b"HTTP/1.1 200") < 3:
        client.takes_more()
    assert client.transport.value().count(BIG) == 2


# -- room ---------------------------------------------------------------------------------------------------------------------


def test_the_connection_that_was_idle_for_longest_makes_room() -> None:
    house = House(limit=3)
    first, second, third = house.connect(), house.connect(), house.connect()
    for each in (second, third, first):
        house.wait(1)
        each.ask("/a")
    fourth = house.connect()
    assert [each.open for each in (first, second, third, fourth)] == [True, False, True, True]
    trickling = third
    trickling.say(b"GE")
    house.wait(1)
    house.connect()
    assert not trickling.open
    assert house.full == []


def test_a_connection_whose_request_may_be_on_its_way_is_not_closed_for_another() -> None:
    house = House(limit=2)
    clients = [house.connect() for _ in range(2 + RESERVE)]
    assert all(each.open for each in clients)
    assert house.full == [True]
    for each in clients:
        each.ask("/a")
    assert {tuple(each.statuses) for each in clients} == {(200,)}
    house.wait(1)
    assert [each.open for each in clients].count(True) < 2 + RESERVE
    assert house.full == [True, False]


def test_with_every_place_taken_by_requests_probes_are_answered_and_the_rest_is_told_to_come_back() -> None:
    house = House(limit=2)
    busy = [house.connect(), house.connect()]
    for each in busy:
        each.ask("/slow")
    house.connect().ask("/hot/a")
    for path in ("/a", "/hot/a", "/-/metrics/", "/-/live/", "/-/live?x"):
        other = house.connect()
        other.ask(path)
        assert other.statuses == [503], path
        assert b"\r\nRetry-After: " in other.transport.value()
        assert b"\r\nConnection: close\r\n" in other.transport.value()
        assert not other.open
    for path in ("/-/live", "/-/ready", "/-/metrics"):
        probe = house.connect()
        for _ in range(3):
            probe.ask(path)
        assert probe.statuses == [200] * 3, path
    house.gate.callback(None)
    last = house.connect()
    last.ask("/a")
    assert last.statuses == [200]
    assert house.full == []


def test_with_every_place_taken_what_is_hot_is_served_as_long_as_probes_keep_their_places() -> None:
    """A hot answer asks nobody and waits for nobody but its client, who may take it slowly."""
    house = House(limit=2)
    for path in ("/hot/a", "/hot/big"):
        house.connect().ask(path)
    for each in (house.connect(), house.connect()):
        each.ask("/slow")
    for path in ("/hot/a", "/hot/big", "/hot/a"):
        other = house.connect()
        for _ in range(3):
            other.ask(path)
        assert other.statuses == [200] * 3, path
    slow = [house.connect() for _ in range(RESERVE_AT_ONCE)]
    for each in slow:
        each.takes_no_more()
        each.ask("/hot/big")
    house.wait(1)
    for path, status in (("/hot/a", 503), ("/-/ready", 200), ("/slow", 503), ("/a", 503)):
        other = house.connect()
        other.ask(path)
        assert other.statuses == [status], path
    assert all(each.open for each in slow)
    slow[0].takes_more()
    last = house.connect()
    last.ask("/hot/a")
    assert last.statuses == [200]
    assert house.full == []


def test_however_many_connect_and_say_nothing_the_next_probe_is_answered() -> None:
    house = House(limit=2)
    busy = [house.connect(), house.connect()]
    for each in busy:
        each.ask("/slow")
    for _ in range(10 * RESERVE):
        house.wait(1)
        house.connect().say(b"G")
    probe = house.connect()
    probe.ask("/-/ready")
    assert probe.statuses == [200]
    assert sum(each.open for each in house.clients) <= 2 + RESERVE
    assert all(each.open for each in busy)


@pytest_twisted.ensureDeferred
async def test_probes_are_answered_on_real_sockets_when_all_others_stay_away(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, max_connections=2)

    def stay_away() -> list[socket.socket]:
        connections = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(80)]
        for each in connections[40:]:
            each.sendall(b"GET /sim")
        return connections

    away = await deferToThread(stay_away)
    assert (await proxy.get("/-/live")).status == 200
    assert (await proxy.get("/-/ready")).status == 200
    assert (await proxy.get("/simple/unknown/")).status == 404
    for each in away:
        each.close()


@pytest_twisted.ensureDeferred
async def test_without_descriptors_clients_are_told_to_come_back_and_the_port_is_not_asked_in_circles(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six" * 100_000)
    proxy = await make_proxy(upstream.url).started()
    page = (await wire.fetch(proxy.port, "/simple/six/", Accept=JSON)).json
    path = urljoin("/simple/six/", page["files"][0]["url"])
    assert (await wire.fetch(proxy.port, path)).status == 200
    client = await wire.connect(proxy.port)
    client.ask(path)
    assert (await client.reply()).status == 200
    await upstream.down()  # with the connection that the proxy keeps
    upstream.up()
    assert proxy.process is not None
    _, hard = resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (3, hard))
    for asked in (path, "/simple/attrs/", path):
        client.ask(asked)
        reply = await client.reply()
        assert (reply.status, "retry-after" in reply.headers) == (503, True), asked
        assert str(proxy.place) not in reply.reason + reply.body.decode()
    waiting = await wire.connect(proxy.port)
    waiting.ask("/-/live")
    await client.ended  # it was idle for longest, and its descriptor might have been of use
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert (await waiting.reply()).status == 200
    assert (await wire.fetch(proxy.port, path)).body == b"six" * 100_000
    assert proxy.log.count("no connection can be accepted") == 1
    assert "Traceback" not in proxy.log
    await waiting.close()


@pytest_twisted.ensureDeferred
async def test_with_few_descriptors_there_are_fewer_connections_and_probes_are_answered(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = make_proxy(upstream.url)
    proxy.before = ("prlimit", "--nofile=96:96")
    await proxy.started()
    away = await gatherResults([ensureDeferred(wire.connect(proxy.port)) for _ in range(150)])
    for each in away[:100]:
        each.transport.write(b"GET /-/li")
    for path, status in (("/-/live", 200), ("/-/ready", 200), ("/simple/unknown/", 404)):
        assert (await wire.fetch(proxy.port, path)).status == status
    await gatherResults([ensureDeferred(each.close()) for each in away])
    assert "server.max_connections is lowered to 6" in proxy.log
    assert "EMFILE" not in proxy.log


# -- what is no HTTP ----------------------------------------------------------------------------------------------------------


async def said_to(proxy: Running, data: bytes) -> bytes:
    """All that comes back for *data* until the proxy closes the connection."""
    client = await wire.connect(proxy.port)
    client.transport.write(data)
    await client.ended
    return bytes(client.received)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01\x02\x03", 400),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET /simple/\x00", 400),
        (b"\xff\xfe", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"a" * 16_385, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 16_385, 431),
        (b"CONNECT files.example:443 HTTP/1.1\r\nHost: files.example:443\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ],
)
async def test_what_is_no_http_is_refused_as_soon_as_it_is_known(
    upstream: FakeUpstream, run: Start, data: bytes, status: int
) -> None:
    assert (await said_to(await run(upstream), data)).startswith(b"HTTP/1.1 %d " % status)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x80\x2e\x01\x00\x02\x00\x15"])
async def test_tls_spoken_to_the_plain_port_is_closed_at_once_and_logged_once(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], hello: bytes
) -> None:
    proxy = await run(upstream)
    for _ in range(3):
        assert b"http://" in await said_to(proxy, hello)
    lines = [event for event in logged if "TLS" in event.get("log_format", "")]
    assert [line["client"] for line in lines] == ["127.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_a_real_tls_client_fails_at_once_and_says_why(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    client = await wire.connect(proxy.port, optionsForClientTLS("proxy.example"))
    await client.ended
    assert client.reason is not None
    assert "wrong version number" in str(client.reason.value) + repr(client.reason.value)


@pytest_twisted.ensureDeferred
async def test_plain_http_spoken_to_the_tls_port_is_closed_at_once_and_logged_once(
    upstream: FakeUpstream, run: Start, tmp_path: Path, logged: list[LogEvent]
) -> None:
    certificate, key = certs.server("127.0.0.1").write(tmp_path, "server")
    proxy = await run(upstream, listen=(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}", LOOPBACK))
    for _ in range(3):
        assert await said_to(proxy, b"GET /simple/ HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    for _ in range(3):
        await (await wire.connect(proxy.port)).close()
    lines = [event for event in logged if "TLS" in event.get("log_format", "")]
    assert [line["reason"] for line in lines] == ["it speaks plain HTTP: its URL of this proxy must begin with https://"]


# -- the target ---------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_an_absolute_target_is_answered_also_when_it_is_known_and_its_secrets_are_not_logged(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream)
    for path in ("/simple/six/", "http://build:hunter2@index.example/simple/six/", "HTTP://index.example:80/simple/six/"):
        for _ in range(3):
            assert (await proxy.get(path, Accept=JSON)).status == 200
            client = await wire.connect(proxy.port)
            client.ask(path, Accept=JSON)
            assert (await client.reply()).status == 200
            await client.close()
    document = (await proxy.get("http://build:hunter2@index.example/pypi/six/json")).json
    assert document["urls"][0]["url"].startswith("http://index.example/packages/")
    assert (await proxy.get("http://build:hunter2@index.example/nothing")).status == 404
    assert "hunter2" not in repr(logged)
    assert {event["path"] for event in logged if event.get("log_namespace") == "proxy.access"} == {
        "/simple/six/",
        "/pypi/six/json",
        "/nothing",
    }


HEADERS = (
    "Range",
    "If_Range",
    "If_None_Match",
    "Accept",
    "Accept_Encoding",
    "Via",
    "X_Forwarded_Proto",
    "Cache_Control",
    "Cookie",
)
VALUES = (
    "1" * 5000,
    "bytes=" + "9" * 5000 + "-" + "9" * 5000,
    '"' * 5000,
    "*/*;q=" + "9" * 6000,
    "gzip;q=1e5,zstd;q=nan",
    "%s{}",
)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("header", HEADERS)
async def test_no_value_of_a_header_is_a_fault_of_the_proxy(upstream: FakeUpstream, run: Start, header: str) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream)
    file = await proxy.link("six", "six-1.0.tar.gz")
    for value in VALUES:
        for path in (file, file, "/simple/six/", "/simple/", "/pypi/six/json"):
            assert (await proxy.get(path, **{header: value})).status in (200, 304, 406, 416), value[:20]


# -- what clients do to each other --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_one_client_says_in_via_changes_no_answer_of_another(upstream: FakeUpstream, serve: Start) -> None:
    """A chain of two proxies; the client has seen the second one's name in answers, and what it once sent upstream."""
    for project in ("six", "attrs"):
        upstream.add_file(project, f"{project}-1.0.tar.gz", project.encode())
    second = await serve(upstream, data="second")
    first = await serve(upstream_settings(f"http://127.0.0.1:{second.port}/simple/", "second"), data="first")
    assert (await first.get("/simple/attrs/", Accept=JSON)).status == 200
    name = (await second.get("/-/live")).headers["via"]
    for forged in (
        name,
        f"{name} (upstream.up0)",
        upstream.asked[0].headers["via"],
        upstream.asked[0].headers["via"].rpartition(", ")[2],
    ):
        gate = upstream.hold("/simple/six/")
        clients = [await first.connect("/simple/six/", Accept=JSON, Via=forged)]
        await upstream.arrived("/simple/six/")
        clients += [await first.connect("/simple/six/", Accept=JSON) for _ in range(19)]
        gate.release()
        replies = await gatherResults([ensureDeferred(client.reply()) for client in clients])
        assert {reply.status for reply in replies} == {200}, forged
        upstream.heal()


@pytest_twisted.ensureDeferred
async def test_upstream_is_told_nothing_that_a_client_wrote_into_via(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    await proxy.get("/simple/six/", Via="1.1 squid (hello, 1.1 there), 1.0 pypiproxy-0 (upstream.x), " + "1" * 9000)
    assert re.fullmatch(r"1\.1 pypiproxy-\w+ \(upstream\.up0 [0-9a-f]{16}\)", upstream.asked[0].headers["via"])


@pytest_twisted.ensureDeferred
async def test_a_loop_of_two_proxies_is_found_by_the_first_that_is_asked_twice(upstream: FakeUpstream, serve: Start) -> None:
    placeholder = socket.create_server(("127.0.0.1", 0))
    port = placeholder.getsockname()[1]
    one = await serve(upstream_settings(f"http://127.0.0.1:{port}/simple/", "two", first_byte_timeout=10.0), data="one")
    placeholder.close()
    await serve(
        upstream_settings(f"http://127.0.0.1:{one.port}/simple/", "one", first_byte_timeout=10.0),
        data="two",
        listen=(f"tcp:{port}:interface=127.0.0.1",),
    )
    for _ in range(2):
        reply = await one.get("/simple/six/", Via="1.1 pypiproxy-0 (upstream.x 0123456789abcdef)")
        assert reply.status == 508
        assert "upstream.two.url" in reply.reason
    assert (await one.get("/pypi/six/json")).status == 508


# -- logs ---------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_no_text_of_a_client_makes_a_line_or_a_field_of_the_log(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    from proxy.host.logs import json_line, text_line

    upstream.script("*", Fault(status=500))
    proxy = await run(upstream)
    agent = 'pip" 200 0 0.000 hit "\u2028\x85\xff'.encode("latin-1", "ignore")
    for path in (
        b"/simple/a%0A2026-01-01%20forged/",
        b"/index/%E2%80%A8%C2%85x/",
        b"/simple/six/",
        b"/files/%0D%0Aa/b/c%1B[31m",
    ):
        client = await wire.connect(proxy.port)
        client.transport.write(
            b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: " + agent + b"\r\n\r\n"
        )
        await client.ended
    assert len(logged) >= 4
    for event in logged:
        for line in (text_line(event), json_line(event)):
            assert len(line.splitlines()) == 1, line
            assert line.rstrip("\n").isprintable(), line
    access = [text_line(event) for event in logged if event.get("log_namespace") == "proxy.access"]
    assert all(line.count('"') == 2 for line in access)


@pytest_twisted.ensureDeferred
async def test_a_whole_answer_leaves_also_when_its_client_reads_late(upstream: FakeUpstream, run: Start) -> None:
    for number in range(4000):
        upstream.add_file("big", f"big-{number}.tar.gz", b"x")
    proxy = await run(upstream)
    expected = (await proxy.get("/simple/big/", Accept=JSON)).body
    for _ in range(2):
        late = socket.create_connection(("127.0.0.1", proxy.port))
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        late.sendall(f"GET /simple/big/ HTTP/1.1\r\nHost: x\r\nAccept: {JSON}\r\nConnection: close\r\n\r\n".encode())

        def read(connection: socket.socket = late) -> bytes:
            return b"".join(iter(lambda: connection.recv(65536), b""))

        assert (await deferToThread(read)).endswith(expected)
        late.close()

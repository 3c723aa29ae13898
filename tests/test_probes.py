"""The listener for probes: it answers from a thread of its own, whatever the reactor does and whatever clients do to it."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from proxy.composition.probing import Probing
from proxy.core.health import FRESH_FOR, HealthReport, Phase
from proxy.errors import ConfigError
from proxy.host.probes import LONGEST, MOST, WITHIN, ProbeServer
from tests.inprocess import LOOPBACK, Running, Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess
from tests.support.wheels import data_of

reactor: Any = default_reactor


def probe(port: int, path: str = "/-/ready", address: str = "127.0.0.1") -> wire.Reply:
    """What a prober is answered; it waits for that, and so does the reactor of this process."""
    return wire.parse(said(port, f"GET {path} HTTP/1.1\r\nHost: proxy.example\r\n\r\n".encode(), address))


def said(port: int, request: bytes, address: str = "127.0.0.1") -> bytes:
    """All that is answered to *request*."""
    with socket.create_connection((address, port), 20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def accepts(port: int) -> bool:
    """Whether anybody listens at *port*."""
    try:
        socket.create_connection(("127.0.0.1", port), 20).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


class Place:
    """A server for probes with a clock and a report that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.report = HealthReport(self.now, Phase.SERVING)
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.port: int = listening.getsockname()[1]
        self.failures: list[Exception] = []
        self.server = ProbeServer(lambda: self.report, lambda: self.now, self.failures.append)
        self.server.start([listening])


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.server.stop()
    assert not accepts(made.port)
    assert made.failures == []


# -- what is answered ---------------------------------------------------------------------------------------------------------

FULL = "the disk is full: make room"


@pytest.mark.parametrize(
    ("phase", "troubles", "age", "live", "ready"),
    [
        (Phase.STARTING, (), 0, (200, "alive\n"), (503, "starting\n")),
        (Phase.SERVING, (), 0, (200, "alive\n"), (200, "ready\n")),
        (Phase.SERVING, (), FRESH_FOR, (200, "alive\n"), (200, "ready\n")),
        (Phase.SERVING, (FULL, "b"), 1, (200, "alive\n"), (200, f"degraded: {FULL}\ndegraded: b\n")),
        (Phase.STOPPING, (FULL,), 1, (200, "alive\n"), (503, "stopping\n")),
        (
            Phase.SERVING,
            (FULL,),
            45,
            (503, "stuck: nothing was reported for 45 s, restart this proxy\n"),
            (200, f"degraded: nothing was reported for 45 s: this proxy is stuck, restart it\ndegraded: {FULL}\n"),
        ),
        (Phase.STARTING, (), 45, (503, "stuck: nothing was reported for 45 s, restart this proxy\n"), (503, "starting\n")),
    ],
)
def test_what_was_reported_last_is_answered(
    place: Place, phase: Phase, troubles: tuple[str, ...], age: float, live: tuple[int, str], ready: tuple[int, str]
) -> None:
    place.report = HealthReport(place.now - age, phase, troubles)
    for path, (status, text) in (("/-/live", live), ("/-/ready", ready)):
        reply = probe(place.port, path)
        assert (reply.status, reply.body.decode(), reply.complete) == (status, text, True)
        assert (reply.headers["cache-control"], reply.headers["connection"]) == ("no-store", "close")
        assert ("retry-after" in reply.headers) is (status == 503)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /-/live HTTP/1.0\r\n\r\n", 200),
        (b"GET /-/live?from=kubelet HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nUser-Agent: kube-probe/1.36\r\n\r\n", 200),
        (b"GET http://a/-/live HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /-/metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /simple/six/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"POST /-/live HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /-/live HTTP/1.1\r\n\r\n", 400),
        (b"GET /-/live HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /-/live HTTP/1.1\r\nX: " + b"x" * LONGEST, 431),
    ],
)
def test_requests_of_all_sorts_get_an_answer(place: Place, request_: bytes, status: int) -> None:
    reply = wire.parse(said(place.port, request_))
    assert (reply.status, reply.complete) == (status, True)
    assert reply.headers.get("allow") == ("GET, HEAD" if status == 405 else None)


def test_head_gets_no_body(place: Place) -> None:
    answer = said(place.port, b"HEAD /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_many_troubles_are_cut_where_a_socket_takes_no_more(place: Place) -> None:
    place.report = HealthReport(place.now, Phase.SERVING, ("ä" * 1000,) * 1000)
    reply = probe(place.port)
    assert (reply.status, reply.complete) == (200, True)


# -- what clients do to it ----------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200), max_size=5))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_no_bytes_keep_the_next_probe_from_its_answer(place: Place, pieces: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", place.port), 20) as connection:
        for each in pieces:
            try:
                connection.sendall(each)
            except OSError:
                break  # it has answered, and closed
        assert probe(place.port).status == 200


def test_however_many_say_nothing_or_little_the_next_probe_is_answered(place: Place) -> None:
    slow: list[socket.socket] = []
    try:
        for number in range(3 * MOST):
            slow.append(socket.create_connection(("127.0.0.1", place.port), 20))
            slow[-1].sendall(b"GET /-/re" if number % 2 else b"G")
            if number % 16 == 15:
                # More than the system lets wait for being accepted would be accepted in another order.
                assert probe(place.port).status == 200
        # The oldest ones had to go.
        assert slow[0].recv(1) == b""
        # The others have their time, which no further byte prolongs.
        slow[-1].sendall(b"a")
        assert probe(place.port).status == 200
        place.now += WITHIN
        assert probe(place.port).status == 200
        assert slow[-1].recv(1) == b""
    finally:
        for each in slow:
            each.close()


def test_who_sends_a_request_in_pieces_is_answered(place: Place) -> None:
    with socket.create_connection(("127.0.0.1", place.port), 20) as connection:
        for each in b"GET /-/live HTTP/1.0\r\n\r\n":
            connection.sendall(bytes([each]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_who_leaves_at_once_disturbs_nobody(place: Place) -> None:
    for _ in range(50):
        connection = socket.create_connection(("127.0.0.1", place.port), 20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # the reset of a client that crashed
        connection.sendall(b"GET /-/live HTTP/1.0\r\n\r\n")
        connection.close()
    assert probe(place.port).status == 200


def test_it_answers_when_clients_have_taken_all_descriptors(place: Place) -> None:
    assert probe(place.port).status == 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probes = [socket.socket() for _ in range(3)]
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken[-1], *(each.fileno() for each in probes)) + 5, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        for each in probes:
            each.settimeout(20)
            each.connect(("127.0.0.1", place.port))
            each.sendall(b"GET /-/live HTTP/1.0\r\n\r\n")
            assert each.recv(65536).endswith(b"alive\n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
        for each in probes:
            each.close()


# -- in a service -------------------------------------------------------------------------------------------------------------


def probe_port(proxy: Running) -> int:
    (url,) = proxy.service.probing.urls
    return int(url.rstrip("/").rpartition(":")[2])


async def until(proxy: Running, status: int, text: str) -> None:
    """Until the probes of *proxy* are answered so."""
    port = probe_port(proxy)
    while (reply := await deferToThread(probe, port)).body.decode() != text:
        await deferLater(reactor, 0.01)
    assert reply.status == status


@pytest_twisted.ensureDeferred
async def test_probes_are_answered_while_the_reactor_does_nothing_and_with_all_connections_taken(
    upstream: FakeUpstream, run: Start
) -> None:
    proxy = await run(upstream, probe_listen=(LOOPBACK,), max_connections=2)
    await until(proxy, 200, "ready\n")
    gate = upstream.hold("/simple/*")
    busy = [await proxy.connect(f"/simple/p{number}/") for number in range(2)]
    await upstream.arrived("/simple/*", 2)
    for path in ("/-/ready", "/-/live"):
        assert probe(probe_port(proxy), path).status == 200  # the reactor waits for this
    gate.release()
    assert [(await each.reply()).status for each in busy] == [404, 404]


@pytest_twisted.ensureDeferred
async def test_while_it_stops_it_says_so_to_the_end(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the pause for balancers it serves as before; then nobody is accepted, and what is under way may end."""
    pause: Deferred[None] = Deferred()
    monkeypatch.setattr("proxy.service.deferLater", lambda clock, seconds: pause)
    upstream.add_file("six", "six-1.0.tar.gz", data_of(100))
    proxy = await run(upstream, probe_listen=(LOOPBACK,), stop_pause=7.0)
    await until(proxy, 200, "ready\n")
    port = probe_port(proxy)
    gate = upstream.hold("*.tar.gz")
    path = await proxy.link("six", "six-1.0.tar.gz")
    stopped: Deferred[None] = ensureDeferred(proxy.stop())
    for ready in (await proxy.get("/-/ready"), probe(port)):
        assert (ready.status, ready.body) == (503, b"stopping\n")
    assert (await proxy.get("/simple/six/")).status == 200
    download = await proxy.connect(path)
    await upstream.arrived("*.tar.gz")
    pause.callback(None)
    while await deferToThread(accepts, proxy.port):
        await deferLater(reactor, 0.001)
    assert (probe(port).body, probe(port, "/-/live").status) == (b"stopping\n", 200)
    gate.release()
    assert (await download.reply()).body == data_of(100)
    await stopped
    assert not accepts(port)


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        description = f"127.0.0.1:{taken.getsockname()[1]}"
        probing = Probing([LOOPBACK, description], reactor, lambda: Phase.SERVING, lambda: ())
        with pytest.raises(ConfigError) as caught:
            probing.open()
        await probing.stop()
    assert f'"{description}": cannot listen there: Address already in use: another program has port' in str(caught.value)
    assert str(caught.value).endswith("name an address of this machine that is free")


@pytest_twisted.ensureDeferred
async def test_a_started_proxy_answers_probes_at_addresses_of_both_kinds(upstream: FakeUpstream, make_proxy: Any) -> None:
    proxy: ProxyProcess = await make_proxy(
        upstream.url, config='[server]\nprobe_listen = ["127.0.0.1:0", "[::1]:0"]\n'
    ).started()
    await wire.fetch(proxy.port, "/-/live")
    for address, shown in (("127.0.0.1", "://127.0.0.1:"), ("::1", "://[::1]:")):
        (line,) = [each for each in proxy.log.splitlines() if f"answering probes on http{shown}" in each]
        port = int(line.rpartition(":")[2].rstrip("/"))
        assert (await deferToThread(probe, port, "/-/ready", address)).body == b"ready\n"

"""How connections end: what a client is told arrives, whatever the client is sending meanwhile."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from tests.inprocess import LOOPBACK, Running, Start
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of

reactor: Any = default_reactor

#: More than the buffers of two sockets hold.
MUCH = 8 << 20
HEAD = b"GET /simple/six/ HTTP/1.1\r\nHost: proxy.example\r\n"


def talked(connection: socket.socket, said: bytes) -> bytes:
    """Say all of *said*, and only then read what is answered, to the end of the stream."""
    with connection:
        connection.settimeout(20)
        connection.sendall(said)
        return b"".join(iter(lambda: connection.recv(65536), b""))


async def answer(proxy: Running, said: bytes) -> bytes:
    return await deferToThread(lambda: talked(socket.create_connection(("127.0.0.1", proxy.port)), said))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (413, HEAD + b"Content-Length: %d\r\n\r\n" % MUCH + b"x" * MUCH),
        (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % MUCH + b"x" * MUCH + b"\r\n0\r\n\r\n"),
        (431, HEAD + b"X: " + b"x" * MUCH),
        (414, b"GET /" + b"x" * MUCH),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + b"x" * MUCH),
        (405, b"CONNECT files.example:443 HTTP/1.1\r\nHost: files.example:443\r\n\r\n" + b"x" * MUCH),
    ],
    ids=["413", "413 in chunks", "431", "414", "400", "405"],
)
async def test_who_is_refused_can_say_all_and_then_read_why(
    upstream: FakeUpstream, run: Start, status: int, said: bytes
) -> None:
    reply = wire.parse(await answer(await run(upstream), said))
    assert (reply.status, reply.complete) == (status, True)
    assert reply.headers["connection"] == "close"


@pytest_twisted.ensureDeferred
async def test_who_takes_too_long_is_told_so(upstream: FakeUpstream, run: Start) -> None:
    reply = wire.parse(await answer(await run(upstream, idle_timeout=0.2), HEAD))
    assert (reply.status, reply.complete) == (408, True)


@pytest_twisted.ensureDeferred
async def test_over_tls_as_well(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    made = certs.server("127.0.0.1")
    certificate, key = made.write(tmp_path, "server")
    proxy = await run(upstream, listen=(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}", LOOPBACK))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def talk() -> bytes:
        plain = socket.create_connection(("127.0.0.1", proxy.port))
        return talked(context.wrap_socket(plain), HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)

    reply = wire.parse(await deferToThread(talk))
    assert (reply.status, reply.complete) == (413, True)


@pytest_twisted.ensureDeferred
async def test_what_was_sent_behind_a_last_request_does_not_destroy_its_answer(upstream: FakeUpstream, run: Start) -> None:
    said = HEAD + b"Connection: close\r\n\r\n" + HEAD * 100_000
    raw = await answer(await run(upstream), said)
    assert raw.count(b"HTTP/1.1 404 ") == 1
    assert wire.parse(raw).complete


@pytest_twisted.ensureDeferred
async def test_a_large_last_answer_arrives_whole_although_something_was_sent_behind_its_request(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system has not sent yet when the client is waited for is lost if that ends too soon."""
    monkeypatch.setattr("proxy.web.connections.LINGERS_WITHIN", 0.001)
    data = data_of(3_000_000)
    upstream.add_file("six", "six-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("six", "six-1.0.tar.gz")
    await proxy.get(path)
    said = f"GET {path} HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\nGET".encode()

    def talk() -> bytes:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        connection.connect(("127.0.0.1", proxy.port))
        return talked(connection, said)

    assert wire.parse(await deferToThread(talk)).body == data


@pytest_twisted.ensureDeferred
async def test_a_service_that_stops_says_so_with_its_last_answers_and_ends_connections_without_a_request(
    upstream: FakeUpstream, run: Start
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream)
    idle, busy, last = [await wire.connect(proxy.port) for _ in range(3)]
    idle.ask("/-/live")
    await idle.reply()
    gates = [upstream.hold(f"/simple/{project}/") for project in ("six", "attrs")]
    busy.ask("/simple/six/")
    last.ask("/simple/attrs/")
    await upstream.arrived("/simple/six/")
    await upstream.arrived("/simple/attrs/")
    stopped: Deferred[None] = ensureDeferred(proxy.stop())
    await idle.ended
    gates[0].release()
    await busy.ended
    reply = wire.parse(bytes(busy.received))
    assert (reply.status, reply.complete, reply.headers.get("connection")) == (200, True, "close")
    gates[1].release()  # it was not only told so because nobody else was left
    await last.ended
    assert wire.parse(bytes(last.received)).headers.get("connection") == "close"
    await stopped


@pytest_twisted.ensureDeferred
async def test_who_still_waits_when_the_time_for_that_is_over_is_cut_off_without_a_word_of_a_bug(
    upstream: FakeUpstream, run: Start
) -> None:
    proxy = await run(upstream)
    settings = proxy.service.settings
    await proxy.service.succeed(replace(settings, server=replace(settings.server, drain_time=0.0)))
    gate = upstream.hold("/simple/six/")
    first, follower = [await proxy.connect("/simple/six/") for _ in range(2)]
    while proxy.service.front.in_progress < 2:
        await deferLater(reactor, 0.001)
    await upstream.arrived("/simple/six/")
    with capturedLogs() as logged:
        await proxy.stop()
    gate.release()
    for each in (first, follower):
        await each.ended
    assert bytes(first.received + follower.received) == b""
    assert [formatEvent(each) for each in logged if "log_failure" in each] == []
    assert proxy.service.front.in_progress == 0


@pytest_twisted.ensureDeferred
async def test_who_asks_how_it_is_while_it_stops_is_answered(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    await proxy.get("/-/metrics")
    client = await proxy.connect("/-/metrics")  # waits a little, as somebody has just looked
    while not proxy.service.front.in_progress:
        await deferLater(reactor, 0.001)
    stopped: Deferred[None] = ensureDeferred(proxy.stop())
    await client.ended
    reply = wire.parse(bytes(client.received))
    assert (reply.status, reply.complete) == (200, True)
    await stopped

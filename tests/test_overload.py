"""Overload: too much waits for upstream, and who has the most waiting is told to come back."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransportWithDisconnection

from proxy.access.forwarded import TrustedProxies
from proxy.core.events import Shed, ShedReason
from proxy.core.shedding import LoadShed
from proxy.core.troubles import Reason
from proxy.mechanism.offload import Inline
from proxy.mechanism.waiting import WaitingRoom
from proxy.mechanism.waiting import waiting as waiting_for_upstream
from proxy.settings import PageLimits
from proxy.statistics.recorders import MemoryRecorder
from proxy.web.answers import Answer, Ask
from proxy.web.callers import Callers
from proxy.web.connections import BoundedSite
from proxy.web.hot import HotRequests
from proxy.web.patience import Patience
from proxy.web.serving import Front
from tests.inprocess import JSON, Running, Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of

reactor: Any = default_reactor

BEHIND = ("127.0.0.1",)


async def asked(proxy: Running, client: str, path: str, method: str = "GET") -> wire.Client:
    """A connection on which *client*, behind a trusted proxy, has asked for *path*."""
    connection = await wire.connect(proxy.port)
    connection.ask(path, method, X_Forwarded_For=client, Accept=JSON)
    return connection


async def get(proxy: Running, client: str, path: str, method: str = "GET") -> wire.Reply:
    connection = await asked(proxy, client, path, method)
    reply = await connection.reply()
    await connection.close()
    return reply


async def waiting(proxy: Running, count: int) -> None:
    """Until *count* requests wait for upstream."""
    while proxy.service.waiting.total != count:
        await deferLater(reactor, 0.001)


def is_shed(reply: wire.Reply) -> bool:
    """Whether *reply* tells a client that it should ask again, on another connection."""
    if reply.status != 503:
        return False
    assert reply.headers["retry-after"] in ("1", "2")
    assert reply.headers["connection"] == "close"
    assert reply.headers["cache-control"] == "no-store"
    assert "max_waiting" in reply.reason
    return True


@pytest_twisted.ensureDeferred
async def test_the_client_that_has_the_most_waiting_gives_way_and_all_others_are_served(
    upstream: FakeUpstream, run: Start
) -> None:
    for name in "abcdefgh":
        upstream.add_file(name, f"{name}-1.0.tar.gz", data_of(100))
    proxy = await run(upstream, max_waiting=4, trusted_proxies=BEHIND)
    gate = upstream.hold("/simple/*")
    heavy = [await asked(proxy, "10.0.0.1", f"/simple/{name}/") for name in "abc"]
    light = [await asked(proxy, "10.0.0.2", "/simple/d/")]
    await waiting(proxy, 4)
    # One more of the heavy one is refused itself, and one of somebody else takes the place of its most recent one.
    assert is_shed(await get(proxy, "10.0.0.1", "/simple/e/"))
    light.append(await asked(proxy, "10.0.0.3", "/simple/f/"))
    assert is_shed(await heavy[2].reply())
    await heavy[2].ended
    # Now each has as many as it would have in its place.
    assert is_shed(await get(proxy, "10.0.0.2", "/simple/g/"))
    assert proxy.service.waiting.total == 4
    ready = await proxy.get("/-/ready")
    assert (ready.status, ready.body.startswith(b"degraded: requests are refused with 503: 4 may wait")) == (200, True)
    gate.release()
    for each in (*heavy[:2], *light):
        assert (await each.reply()).status == 200
    assert (await get(proxy, "10.0.0.1", "/simple/c/")).status == 200
    assert proxy.service.waiting.total == 0


@pytest_twisted.ensureDeferred
async def test_what_is_cached_is_served_meanwhile(upstream: FakeUpstream, run: Start) -> None:
    """Pages, also those whose lifetime is over, and files; to GET, HEAD and with validators."""
    upstream.add_file("six", "six-1.0.tar.gz", data_of(5000))
    proxy = await run(upstream, max_waiting=1, trusted_proxies=BEHIND, limits=PageLimits(ttl=0.0, soft_deadline=1000.0))
    link = await proxy.link("six", "six-1.0.tar.gz")
    stored = await get(proxy, "10.0.0.1", link)
    page = await get(proxy, "10.0.0.1", "/simple/six/")
    gate = upstream.hold("/simple/*")
    first = await asked(proxy, "10.0.0.1", "/simple/new/")
    await waiting(proxy, 1)
    assert is_shed(await get(proxy, "10.0.0.1", "/simple/newer/"))
    assert is_shed(await get(proxy, "10.0.0.1", "/simple/newer/", "HEAD"))
    for method in ("GET", "HEAD"):
        file = await get(proxy, "10.0.0.1", link, method)
        assert (file.status, file.headers["etag"]) == (200, stored.headers["etag"])
        served = await get(proxy, "10.0.0.1", "/simple/six/", method)
        assert (served.status, served.headers["etag"]) == (200, page.headers["etag"])
    for path, etag in ((link, stored.headers["etag"]), ("/simple/six/", page.headers["etag"])):
        unchanged = await proxy.get(path, X_Forwarded_For="10.0.0.1", Accept=JSON, If_None_Match=etag)
        assert unchanged.status == 304
    assert "connection" not in served.headers
    gate.release()
    assert (await first.reply()).status == 404


@pytest_twisted.ensureDeferred
async def test_files_that_are_not_stored_wait_too(upstream: FakeUpstream, run: Start) -> None:
    for name in ("six-1.0.tar.gz", "six-1.1.tar.gz"):
        upstream.add_file("six", name, data_of(5000))
    proxy = await run(upstream, max_waiting=1, trusted_proxies=BEHIND)
    links = [await proxy.link("six", name) for name in ("six-1.0.tar.gz", "six-1.1.tar.gz")]
    gate = upstream.hold("*.tar.gz")
    first = await asked(proxy, "10.0.0.1", links[0])
    await waiting(proxy, 1)
    assert is_shed(await get(proxy, "10.0.0.2", links[1]))
    gate.release()
    assert (await first.reply()).body == data_of(5000)
    assert (await get(proxy, "10.0.0.2", links[1])).status == 200


@pytest_twisted.ensureDeferred
async def test_each_of_those_who_wait_for_one_page_counts_and_one_that_gives_way_takes_nothing_from_the_others(
    upstream: FakeUpstream, run: Start
) -> None:
    for name in ("six", "attrs"):
        upstream.add_file(name, f"{name}-1.0.tar.gz", data_of(100))
    proxy = await run(upstream, max_waiting=3, trusted_proxies=BEHIND)
    gate = upstream.hold("/simple/*")
    leader = await asked(proxy, "10.0.0.1", "/simple/six/")
    await waiting(proxy, 1)
    others = [await asked(proxy, "10.0.0.1", "/simple/six/"), await asked(proxy, "10.0.0.1", "/simple/six/")]
    await waiting(proxy, 3)
    newcomer = await asked(proxy, "10.0.0.2", "/simple/attrs/")
    assert is_shed(await others[1].reply())
    # The one that went ahead leaves, and the other waits on by itself.
    await leader.close()
    await waiting(proxy, 2)
    gate.release()
    for each in (others[0], newcomer):
        assert (await each.reply()).status == 200
    assert upstream.count("/simple/six/") == 1
    assert proxy.service.waiting.total == 0


@pytest_twisted.ensureDeferred
async def test_a_farm_behind_one_address_is_left_alone_below_the_limit(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, max_waiting=50)
    gate = upstream.hold("/simple/*")
    agents = [await proxy.connect(f"/simple/p{number}/") for number in range(50)]
    await waiting(proxy, 50)
    gate.release()
    assert {(await each.reply()).status for each in agents} == {404}
    assert (await proxy.get("/-/ready")).body == b"ready\n"


@pytest_twisted.ensureDeferred
async def test_those_who_wait_never_take_all_connections(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", data_of(100))
    proxy = await run(upstream, max_connections=8, max_waiting=100)
    link = await proxy.link("six", "six-1.0.tar.gz")
    await proxy.get(link)
    gate = upstream.hold("/simple/*")
    agents = [await proxy.connect(f"/simple/p{number}/") for number in range(6)]
    await waiting(proxy, 6)
    assert is_shed(await get(proxy, "10.0.0.1", "/simple/p7/"))
    assert (await proxy.get(link)).status == 200
    gate.release()
    assert {(await each.reply()).status for each in agents} == {404}


def test_each_refusal_is_recorded_with_its_reason() -> None:
    recorder = MemoryRecorder()
    clock = Clock()
    room = WaitingRoom(1, clock)
    never: Deferred[None] = Deferred()

    async def route(ask: Ask) -> Answer:
        with waiting_for_upstream.get():
            await never
        return Answer(200, [])

    front = Front(
        route,
        HotRequests(clock.seconds, "pypiproxy-test", 1 << 22),
        Callers(TrustedProxies(["127.0.0.0/8"])),
        clock,
        Inline(),
        via="pypiproxy-test",
        patience=Patience(stall_timeout=60.0),
        recorder=recorder,
        room=room,
    )
    site = BoundedSite(front, clock, 2, 60.0, lambda full: None)
    connections = []

    def ask(client: str, path: str) -> bytes:
        channel, transport = site.buildProtocol(None), StringTransportWithDisconnection()
        transport.protocol = channel
        channel.makeConnection(transport)
        channel.dataReceived(f"GET {path} HTTP/1.1\r\nHost: proxy.example\r\nUser-Agent: {client}\r\n\r\n".encode())
        connections.append(transport)
        return bytes(transport.value())

    assert ask("a", "/a") == b""
    assert b"503 Overloaded: as many requests wait for upstream as may (1, server.max_waiting)" in ask("a", "/b")
    room.limit_to(5)
    assert ask("a", "/c") == b""
    assert b"server.max_connections" in ask("a", "/d")
    assert [each for each in recorder.events if isinstance(each, Shed)] == [
        Shed(ShedReason.WAITING),
        Shed(ShedReason.CONNECTIONS),
    ]
    for each in connections:
        each.loseConnection()
    assert room.total == 0


@pytest_twisted.ensureDeferred
async def test_it_is_a_trouble_until_a_minute_after_the_last_one() -> None:
    clock = Clock()
    room = WaitingRoom(1, clock)
    assert await room.look() == []
    with room.request("10.0.0.1"):
        for _ in range(2):
            with pytest.raises(LoadShed), room.request("10.0.0.2"):
                pass
            clock.advance(59)
            assert [each.reason for each in await room.look()] == [Reason.OVERLOADED]
        clock.advance(1)
    assert await room.look() == []


def test_all_addresses_of_one_ipv6_network_wait_as_one_client() -> None:
    room = WaitingRoom(3, Clock())
    one, other, nearby, elsewhere = (
        room.request(each) for each in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:1::3", "2001:db8:0:1::1")
    )
    with one, other, room.request("192.0.2.1"):
        with pytest.raises(LoadShed), nearby:
            pytest.fail("its network has the most waiting")
        with elsewhere:
            assert [each.shed for each in (one, other, nearby, elsewhere)] == [False, True, True, False]


def test_what_goes_on_after_the_answer_is_done_for_nobody() -> None:
    room = WaitingRoom(1, Clock())
    request = room.request("10.0.0.1")
    with request:
        assert request.crowded
        request.end()
        assert room.total == 0
        with request:
            assert room.total == 0
    with room.request("10.0.0.2"):
        assert room.total == 1

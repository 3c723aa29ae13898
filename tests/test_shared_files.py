"""Many who ask for one file at the same moment: one request goes the long way, and each client is sent the file by itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs, formatEvent

from proxy.errors import StorageFailed
from proxy.mechanism.spool.writer import Writer
from proxy.settings import GrantSettings
from proxy.web.callers import Caller
from proxy.web.heads import RequestHead
from tests.inprocess import Running, Start
from tests.support import wire
from tests.support.disks import fill_up
from tests.support.fake_upstream import FakeUpstream
from tests.support.logins import basic
from tests.support.wheels import data_of

reactor: Any = default_reactor

DATA = data_of(600_000)
WHEEL = "big-1.0-py3-none-any.whl"
ALICE, BOB = basic("alice", "alice!"), basic("bob", "bob!")


@pytest.fixture
def big(upstream: FakeUpstream) -> FakeUpstream:
    upstream.add_file("big", WHEEL, DATA)
    return upstream


async def ask(proxy: Running, path: str, method: str = "GET", **headers: str) -> wire.Client:
    """A client that has asked for *path* on a connection that stays, as those of installers do."""
    client = await wire.connect(proxy.port)
    client.ask(path, method, Accept="*/*", Accept_Encoding="identity", **headers)
    return client


async def replies_to(clients: Sequence[wire.Client]) -> list[wire.Reply]:
    """What each of *clients* got."""
    replies = await gatherResults([ensureDeferred(each.reply()) for each in clients])
    for each in clients:
        await each.close()
    return list(replies)


def opened(place: Path) -> list[str]:
    """The files below *place* that this process has open and that are, or were, on their way into the store."""
    links = [Path("/proc/self/fd", each) for each in os.listdir("/proc/self/fd")]
    found = [os.readlink(each) for each in links if os.path.lexists(each)]
    return [each for each in found if each.startswith((f"{place}/data/files/", f"{place}/data/partial/"))]


async def in_progress(proxy: Running, count: int) -> None:
    """Wait until so many responses are under way."""
    while proxy.service.front.in_progress != count:
        await deferLater(reactor, 0.001)


def word(reply: wire.Reply) -> str:
    return reply.headers["cache-status"]


@pytest_twisted.ensureDeferred
async def test_all_who_ask_for_a_file_that_nobody_has_yet_get_it_from_one_request(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*")
    clients = [await ask(proxy, path, User_Agent=f"agent {number % 2}") for number in range(6)]
    part = await ask(proxy, path, Range="bytes=0-99")
    head = await replies_to([await ask(proxy, path, "HEAD")])  # it is described from the page
    await in_progress(proxy, 7)
    known = await ask(proxy, path, If_None_Match='"sha256-0"')
    await in_progress(proxy, 8)
    gate.release()
    replies = await replies_to([*clients, known])
    assert [each.body == DATA for each in replies] == [True] * 7
    assert ["collapsed" in word(each) for each in replies] == [False, *[True] * 6]
    assert {each.headers["content-length"] for each in replies} == {str(len(DATA))}
    some = await replies_to([part])
    assert (some[0].status, some[0].body, head[0].status, head[0].body) == (206, DATA[:100], 200, b"")
    [cached] = await replies_to([await ask(proxy, path, If_None_Match=replies[0].headers["etag"])])
    assert (cached.status, cached.body) == (304, b"")


@pytest_twisted.ensureDeferred
async def test_who_comes_while_it_arrives_shares_what_is_there_and_leaves_no_descriptor(
    big: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    clients = [await ask(proxy, path)]
    for _ in range(4):
        await clients[-1].got_body(200_000)
        clients.append(await ask(proxy, path))
    # The first of them leaves in the middle; nobody else notices.
    await clients[-1].got_body(200_000)
    await clients.pop(0).close()
    late = await ask(proxy, path)
    await late.got_body(200_000)
    gate.release()
    replies = await replies_to([*clients, late])
    assert [each.body == DATA for each in replies] == [True] * 5
    assert all("fwd=miss; stored; collapsed" in word(each) for each in replies)
    assert big.count("/packages/*") == 1
    [stored] = await replies_to([await ask(proxy, path)])
    assert (stored.body == DATA, word(stored)) == (True, "pypiproxy; hit")
    while opened(tmp_path):
        await deferLater(reactor, 0.001)


@pytest_twisted.ensureDeferred
async def test_a_file_that_turns_out_to_be_wrong_ends_for_all_who_share_it(big: FakeUpstream, run: Start) -> None:
    big.project("big").files[WHEEL]["hashes"] = {"sha256": "0" * 64}
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    clients = [await ask(proxy, path) for _ in range(3)]
    await gatherResults([each.got_body(200_000) for each in clients])
    clients.append(await ask(proxy, path))
    await clients[-1].got_body(200_000)
    gate.release()
    await gatherResults([each.ended for each in clients])
    assert not any(len(each.body) >= len(DATA) - 4096 + 1 for each in clients)


async def arriving(proxy: Running, path: str, count: int) -> list[wire.Client]:
    """Clients that share the file at *path*, of which upstream has sent a part that all of them have."""
    clients = [await ask(proxy, path) for _ in range(count)]
    await gatherResults([each.got_body(200_000) for each in clients])
    return clients


@pytest_twisted.ensureDeferred
async def test_who_leaves_in_the_middle_is_logged_as_cut_off_and_all_others_with_all_that_they_got(
    big: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    with capturedLogs() as logged:
        clients = await arriving(proxy, path, 4)
        await clients.pop().close()
        while proxy.service.front.in_progress > 3:
            await deferLater(reactor, 0.001)
        gate.release()
        assert [each.body == DATA for each in await replies_to(clients)] == [True] * 3
        await proxy.service.front.quiet()
    lines = [each for each in logged if each.get("log_namespace") == "proxy.access" and each["path"] == path]
    assert [(each["status"], each["cut"]) for each in lines] == [(200, " cut off"), *[(200, "")] * 3]
    assert [each["bytes"] for each in lines[1:]] == [len(DATA)] * 3
    assert 200_000 <= lines[0]["bytes"] < len(DATA)
    while opened(tmp_path):
        await deferLater(reactor, 0.001)


async def fail_to_commit(writer: Writer, sha256: str) -> bool:
    """What fails between the last byte and the end."""
    raise StorageFailed(f"{sha256} cannot be stored")


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_twisted.ensureDeferred
async def test_when_a_download_fails_with_its_last_bytes_all_who_share_it_are_cut_off_at_once(
    big: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last bytes and the failure are told together."""
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=len(DATA) - 10_000)
    front = proxy.service.front
    before, front.patience = front.patience, replace(front.patience, silence_within=600.0)
    clients = [await ask(proxy, path) for _ in range(3)]
    await gatherResults([each.got_body(len(DATA) - 10_000) for each in clients])
    monkeypatch.setattr("proxy.mechanism.spool.writer.Writer.commit", fail_to_commit)
    gate.release()
    await gatherResults([each.ended for each in clients])
    assert all(DATA.startswith(each.body) and len(each.body) < len(DATA) for each in clients)
    front.patience = before


@pytest_twisted.ensureDeferred
async def test_when_there_are_no_more_descriptors_who_asks_for_a_file_that_others_get_is_told_so(
    upstream: FakeUpstream, run: Start
) -> None:
    data = data_of(16_000_000)
    upstream.add_file("huge", "huge-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("huge", "huge-1.0.tar.gz")
    late = await wire.connect(proxy.port)
    [slow] = await arriving(proxy, path, 1)
    slow.transport.pauseProducing()
    await upstream.until(lambda: not upstream.in_progress)
    with no_more_descriptors():
        late.ask(path, Accept="*/*", Accept_Encoding="identity")
        reply = await late.reply()
    assert (reply.status, "Too many open files" in reply.json["detail"]) == (503, True)
    await slow.close()
    await proxy.service.front.quiet()


@pytest_twisted.ensureDeferred
async def test_when_upstream_falls_silent_all_who_share_a_file_are_cut_off(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    front = proxy.service.front
    before, front.patience = front.patience, replace(front.patience, silence_within=0.2)
    with capturedLogs() as logged:
        clients = await arriving(proxy, path, 3)
        await gatherResults([each.ended for each in clients])
    said = [formatEvent(each) for each in logged if each.get("log_level") is LogLevel.error]
    assert said == [f"{path} was cut off: upstream has sent nothing for 0.2 s"] * 3
    assert all(DATA.startswith(each.body) and len(each.body) < len(DATA) for each in clients)
    gate.release()
    front.patience = before
    [reply] = await replies_to([await ask(proxy, path)])
    assert reply.body == DATA
    assert (front.in_progress, big.count("/packages/*")) == (0, 1)


@pytest_twisted.ensureDeferred
async def test_when_the_disk_is_full_in_the_middle_all_who_share_a_file_get_the_rest(
    big: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    clients = await arriving(proxy, path, 4)
    fill_up(monkeypatch, 400_000)
    gate.release()
    assert [each.body == DATA for each in await replies_to(clients)] == [True] * 4
    assert big.count("/packages/*") == 1
    while opened(tmp_path):
        await deferLater(reactor, 0.001)


@pytest_twisted.ensureDeferred
async def test_who_takes_nothing_holds_up_nobody_and_gets_all_of_it_later(upstream: FakeUpstream, run: Start) -> None:
    """More than what sockets hold."""
    data = data_of(16_000_000)
    upstream.add_file("huge", "huge-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("huge", "huge-1.0.tar.gz")
    gate = upstream.hold("/packages/*", after=300_000)
    *clients, slow = await arriving(proxy, path, 4)
    slow.transport.pauseProducing()
    gate.release()
    # To look at the whole of it at each piece, as `reply` does, takes long.
    await gatherResults([each.got(len(data)) for each in clients])
    assert [each.body == data for each in await replies_to(clients)] == [True] * 3
    assert proxy.service.front.in_progress == 1
    slow.transport.resumeProducing()
    await slow.got(len(data))
    [reply] = await replies_to([slow])
    assert reply.body == data


@pytest_twisted.ensureDeferred
async def test_who_has_got_a_shared_file_is_answered_its_next_request_on_the_same_connection(
    big: FakeUpstream, run: Start
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    clients = await arriving(proxy, path, 3)
    for each in clients:
        each.transport.write(b"GET /-/live HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n")
    gate.release()
    await gatherResults([each.ended for each in clients])
    for each in clients:
        assert (each.body[: len(DATA)] == DATA, each.body[len(DATA) :].startswith(b"HTTP/1.1 200 OK\r\n")) == (True, True)


@pytest_twisted.ensureDeferred
async def test_a_next_request_that_fails_because_of_a_bug_ends_no_other_client_of_the_file(
    big: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=300_000)
    first, eager, *others = await arriving(proxy, path, 5)
    eager.transport.write(b"GET /simple/big/ HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
    front = proxy.service.front

    def fail(head: RequestHead, caller: Caller) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(front.hot, "answer", fail)
    with capturedLogs() as logged:
        gate.release()
        await eager.ended
        assert [each.body == DATA for each in await replies_to([first, *others])] == [True] * 4
    assert sum("log_failure" in each for each in logged) == 1
    await front.quiet()


@pytest_twisted.ensureDeferred
async def test_what_is_purged_while_it_is_sent_is_asked_for_anew(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    [_] = await replies_to([await ask(proxy, path)])
    slow = await ask(proxy, path)
    slow.transport.pauseProducing()
    await proxy.service.administration.perform("purge", project="big")
    [reply] = await replies_to([await ask(proxy, path)])
    assert (reply.body == DATA, "fwd=miss" in word(reply)) == (True, True)
    slow.transport.resumeProducing()
    [old] = await replies_to([slow])
    assert old.body == DATA


@pytest_twisted.ensureDeferred
async def test_each_who_shares_a_file_is_admitted_by_itself(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big, grants=(GrantSettings(role="reader", principals=("user:alice",)),))
    perform = proxy.service.administration.perform
    for user in ("alice", "bob"):
        await perform("user_add", user=user, password=f"{user}!")
    page = await proxy.get("/simple/big/", Accept="application/vnd.pypi.simple.v1+json", Authorization=ALICE)
    path = f"/simple/big/{page.json['files'][0]['url']}".replace("/simple/big/../..", "")
    gate = big.hold("/packages/*", after=300_000)
    leader = await ask(proxy, path, Authorization=ALICE)
    others = [await ask(proxy, path, **headers) for headers in ({}, {"Authorization": BOB}, {"Authorization": ALICE})]
    await gatherResults([leader.got_body(200_000), others[-1].got_body(200_000)])
    while_sent = [await ask(proxy, path, **headers) for headers in ({}, {"Authorization": BOB}, {"Authorization": ALICE})]
    await while_sent[-1].got_body(200_000)
    assert [each.status for each in await replies_to([*others[:2], *while_sent[:2]])] == [401, 404, 401, 404]
    # Who has lost the right is refused although the file is still being sent to others.
    await perform("user_remove", user="alice")
    [refused] = await replies_to([await ask(proxy, path, Authorization=ALICE)])
    assert refused.status == 401
    gate.release()
    replies = await replies_to([leader, others[-1], while_sent[-1]])
    assert [each.body == DATA for each in replies] == [True] * 3
    assert all("private" in each.headers["cache-control"] for each in replies)


@pytest_twisted.ensureDeferred
async def test_when_the_first_leaves_before_it_is_answered_the_others_get_the_file(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*")
    first = await ask(proxy, path)
    await big.until(lambda: big.in_progress > 0)
    others = [await ask(proxy, path) for _ in range(3)]
    while proxy.service.front.in_progress < 4:
        await deferLater(reactor, 0.001)
    await first.close()
    gate.release()
    assert [each.body == DATA for each in await replies_to(others)] == [True] * 3
    assert big.count("/packages/*") == 1

"""Files through the whole service: streaming, sharing, ranges, verification, a full disk, slow and departing clients."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet import ssl
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, LogLevel

from proxy.settings import PageLimits
from tests.inprocess import Start
from tests.support import certs, wire
from tests.support.disks import fill_up
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import data_of, sdist, wheel

reactor: Any = default_reactor

BIG = data_of(3_000_000)
WHEEL = "big-1.0-py3-none-any.whl"


@pytest.fixture
def big(upstream: FakeUpstream) -> FakeUpstream:
    upstream.add_file("big", WHEEL, BIG, metadata=b"Metadata-Version: 2.1\nName: big\nVersion: 1.0\n")
    return upstream


def on_disk(tmp_path: Path) -> list[str]:
    return sorted(
        path.name for folder in ("files", "partial") for path in (tmp_path / "data" / folder).rglob("*") if path.is_file()
    )


@pytest_twisted.ensureDeferred
async def test_a_file_is_streamed_kept_and_never_asked_for_again(big: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    for word in ("fwd=miss", "hit"):
        reply = await proxy.get(path)
        assert (reply.status, reply.body == BIG) == (200, True)
        assert word in reply.headers["cache-status"]
        assert reply.headers["etag"] == f'"sha256-{hashlib.sha256(BIG).hexdigest()}"'
        assert reply.headers["cache-control"] == "public, immutable, max-age=31536000"
        assert reply.headers["content-length"] == str(len(BIG))
    assert big.count("/packages/*") == 1
    assert on_disk(tmp_path) == [hashlib.sha256(BIG).hexdigest()]


@pytest_twisted.ensureDeferred
async def test_every_client_of_an_arriving_file_gets_what_is_there_at_once(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=1_000_000)
    first = await proxy.connect(path)
    await first.got(900_000)
    late = [await proxy.connect(path) for _ in range(99)]
    await gatherResults([each.got(900_000) for each in late])
    gate.release()
    replies = await gatherResults([ensureDeferred(each.reply()) for each in [first, *late]])
    assert {reply.sha256 for reply in replies} == {hashlib.sha256(BIG).hexdigest()}
    assert big.count("/packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_the_download_goes_on_when_its_only_client_leaves(big: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=1_000_000)
    client = await proxy.connect(path)
    await client.got(500_000)
    client.transport.abortConnection()
    await client.ended
    gate.release()
    await big.until(lambda: big.in_progress == 0)
    assert (await proxy.get(path)).body == BIG
    assert big.count("/packages/*") == 1


@pytest.mark.parametrize("how", ["sendfile", "tls", "chunked", "range"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_leaves_nothing_behind(
    big: FakeUpstream, run: Start, tmp_path: Path, how: str, logged: list[LogEvent]
) -> None:
    tls = None
    listen = "tcp:0:interface=127.0.0.1"
    if how == "tls":
        certificate, key = certs.server("proxy.example").write(tmp_path, "proxy")
        listen = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        authority = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(certs.authority().certificate_pem)])
        tls = ssl.optionsForClientTLS("proxy.example", authority)
    if how == "chunked":
        big.add_file("big", WHEEL, BIG, size=None)
        big.script("GET /packages/*", Fault(chunked=True), times=1)
    proxy = await run(big, listen=(listen,))
    gate = big.hold("/packages/*", after=500_000)
    client = await wire.connect(proxy.port, tls)
    client.ask("/simple/big/", Accept="application/vnd.pypi.simple.v1+json")
    (url,) = [file["url"] for file in (await client.reply()).json["files"]]
    client.ask(url.replace("../..", ""), **({"Range": "bytes=1000-1000000"} if how == "range" else {}))
    await client.got(300_000)
    await client.close()
    await proxy.service.front.quiet()
    gate.release()
    assert [event for event in logged if event["log_level"] >= LogLevel.error] == []
    assert [event["cut"] for event in logged if event.get("bytes", 0) >= 290_000] == [" cut off"]


@pytest_twisted.ensureDeferred
async def test_wrong_bytes_never_look_complete_and_are_not_kept(big: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    big.script("/packages/*", Fault(corrupt_at=-1), times=2)
    reply = await proxy.get(path)
    assert not (reply.status == 200 and reply.complete)
    assert on_disk(tmp_path) == []
    big.heal()
    assert (await proxy.get(path)).body == BIG
    assert b'event="file with wrong bytes refused"' in (await proxy.get("/-/metrics")).body


@pytest_twisted.ensureDeferred
async def test_a_download_that_breaks_is_gone_on_with_at_the_byte_where_it_broke(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    big.script("/packages/*", Fault(reset_after=1_000_000), times=1)
    assert (await proxy.get(path)).body == BIG
    ranges = [request.headers.get("range") for request in big.asked if request.path.startswith("/packages/")]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert int(ranges[1].removeprefix("bytes=").removesuffix("-")) > 0


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-99", 0, 100), ("bytes=2999990-", 2_999_990, 3_000_000), ("bytes=-7", 2_999_993, 3_000_000)],
)
@pytest_twisted.ensureDeferred
async def test_every_form_of_range_is_truthful_on_unknown_and_on_stored_files(
    big: FakeUpstream, run: Start, header: str, start: int, stop: int
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    for known in (False, True):
        if known:
            await proxy.get(path)
        reply = await proxy.get(path, Range=header)
        assert (reply.status, reply.body) == (206, BIG[start:stop])
        assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/3000000"
        refused = await proxy.get(path, Range="bytes=3000000-")
        assert (refused.status, refused.headers["content-range"]) == (416, "bytes */3000000")
        head = await proxy.head(path)
        assert (head.status, head.headers["content-length"], head.headers["accept-ranges"]) == (200, "3000000", "bytes")
    assert big.count("/packages/*") == 2


@pytest_twisted.ensureDeferred
async def test_conditions_on_a_stored_file(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    etag = (await proxy.get(path)).headers["etag"]
    assert (await proxy.get(path, If_None_Match=etag)).status == 304
    assert (await proxy.get(path, Range="bytes=0-9", If_Range=etag)).status == 206
    assert (await proxy.get(path, Range="bytes=0-9", If_Range='"other"')).status == 200
    assert (await proxy.get(path, Range="bytes=0-9,20-29")).status == 200


@pytest_twisted.ensureDeferred
async def test_metadata_that_upstream_advertises_is_served_and_kept(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    for _ in range(2):
        reply = await proxy.get(path + ".metadata")
        assert (reply.status, reply.body) == (200, b"Metadata-Version: 2.1\nName: big\nVersion: 1.0\n")
    assert big.count("*.metadata") == 1


@pytest_twisted.ensureDeferred
async def test_a_file_url_needs_a_name_and_a_digest_that_the_page_states(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    digest = path.split("/")[-2]
    await proxy.get(path)
    for wrong in (
        f"/files/big/sha256-{'0' * 64}/{WHEEL}",
        f"/files/big/{digest}/other-1.0-py3-none-any.whl",
        f"/files/other/{digest}/{WHEEL}",
        f"/files/big/{digest}/..%2F..%2Finstance",
        f"/files/big/md5/{WHEEL}",
    ):
        assert (await proxy.get(wrong)).status in (404, 409), wrong


@pytest_twisted.ensureDeferred
async def test_a_name_whose_digest_changes_upstream_keeps_its_bytes(big: FakeUpstream, run: Start) -> None:
    expires_at_once = PageLimits(ttl=0.0, soft_deadline=5.0)
    proxy = await run(big, limits=expires_at_once)
    path = await proxy.link("big", WHEEL)
    await proxy.get(path)
    big.add_file("big", WHEEL, b"other bytes")
    await proxy.stop()
    again = await run(big, limits=expires_at_once)
    page = await again.page("big")
    assert page["files"][0]["hashes"]["sha256"] == hashlib.sha256(BIG).hexdigest()
    refused = await again.get(f"/files/big/sha256-{hashlib.sha256(b'other bytes').hexdigest()}/{WHEEL}")
    assert refused.status == 409
    assert (await again.get(path)).body == BIG
    assert b'event="changed digest refused"' in (await again.get("/-/metrics")).body


@pytest_twisted.ensureDeferred
async def test_a_file_without_any_digest_is_pinned_to_its_first_bytes(upstream: FakeUpstream, run: Start) -> None:
    old = sdist("old").data
    upstream.add_file("old", "old-1.0.tar.gz", old, hashes={})
    proxy = await run(upstream)
    path = await proxy.link("old", "old-1.0.tar.gz")
    assert path == "/files/old/none/old-1.0.tar.gz"
    for _ in range(2):
        assert (await proxy.get(path)).body == old
    assert upstream.count("/packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_files_outlive_their_upstream_and_a_restart(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    await proxy.get(path)
    await proxy.stop()
    await big.down()
    assert (await (await run(big)).get(path)).body == BIG


@pytest_twisted.ensureDeferred
async def test_a_file_nobody_can_deliver_is_one_clear_error(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    big.script("/packages/*", Fault(status=502))
    reply = await proxy.get(path)
    assert (reply.status, "502" in reply.reason, "retry-after" in reply.headers) == (503, True, True)
    big.heal()
    assert (await proxy.get(path)).status in (200, 503)


@pytest_twisted.ensureDeferred
async def test_a_client_that_stops_reading_is_dropped_and_holds_nobody_up(big: FakeUpstream, run: Start) -> None:
    big.add_file("huge", "huge-1.0.tar.gz", BIG * 10)
    proxy = await run(big, stall_timeout=0.3)
    path = await proxy.link("huge", "huge-1.0.tar.gz")
    stalled = socket.create_connection(("127.0.0.1", proxy.port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await proxy.get(path)).sha256 == hashlib.sha256(BIG * 10).hexdigest()

    def drain() -> int:
        received = 0
        try:
            while data := stalled.recv(65536):
                received += len(data)
        except ConnectionResetError:
            pass
        return received

    await proxy.service.front.quiet()
    assert await deferToThread(drain) < len(BIG) * 10
    stalled.close()


@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_a_file_reaches_its_clients_and_is_not_kept(
    big: FakeUpstream, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    fill_up(monkeypatch, 1_000_000)
    replies = await gatherResults([ensureDeferred(proxy.get(path)) for _ in range(3)])
    assert {reply.sha256 for reply in replies} == {hashlib.sha256(BIG).hexdigest()}
    assert on_disk(tmp_path) == []
    monkeypatch.undo()
    assert (await proxy.get(path)).body == BIG
    assert on_disk(tmp_path) == [hashlib.sha256(BIG).hexdigest()]


@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_a_client_that_stalls_is_dropped_and_the_others_go_on(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = data_of(40_000_000)
    upstream.add_file("huge", "huge-1.0.tar.gz", huge)
    proxy = await run(upstream)
    path = await proxy.link("huge", "huge-1.0.tar.gz")
    fill_up(monkeypatch, 0)
    monkeypatch.setattr("proxy.mechanism.spool.passing.PATIENCE", 0.2)
    gate = upstream.hold("/packages/*", times=1)
    stalled = [await proxy.connect(path) for _ in range(2)]
    others = [await proxy.connect(path) for _ in range(3)]
    for each in stalled:
        each.transport.pauseProducing()
    while proxy.service.front.in_progress < 5:
        await deferLater(reactor, 0.002)
    gate.release()
    await gatherResults([each.ended for each in others])
    assert [wire.parse(bytes(each.received)).sha256 for each in others] == [hashlib.sha256(huge).hexdigest()] * 3
    for each in stalled:
        each.transport.resumeProducing()
        await each.ended
        cut = wire.parse(bytes(each.received))
        assert not cut.complete
        assert huge.startswith(cut.body)
        rest = await proxy.get(path, Range=f"bytes={len(cut.body)}-", If_Range=cut.headers["etag"])
        assert (rest.status, cut.body + rest.body == huge) == (206, True)


@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_the_end_of_a_large_file_can_be_asked_for_alone(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = data_of(40_000_000)
    upstream.add_file("huge", "huge-1.0.tar.gz", huge)
    proxy = await run(upstream)
    path = await proxy.link("huge", "huge-1.0.tar.gz")
    fill_up(monkeypatch, 0)
    reply = await proxy.get(path, Range="bytes=20000000-")
    assert (reply.status, reply.body == huge[20_000_000:]) == (206, True)


@pytest.mark.parametrize("size", [20_000, 9_000_000])
@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "whole"])
@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_a_wheel_that_nobody_bounds_is_not_whole_because_its_connection_ended(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch, size: int, cut: bool
) -> None:
    """The page states no digest and no size, and upstream no length.  Of a small one the archive itself tells."""
    made = wheel("six", size=size)
    upstream.add_file("six", made.filename, made.data, hashes={}, size=None)
    upstream.script("/packages/*.whl", Fault(no_content_length=True, cut_after=len(made.data) // 2 if cut else None))
    proxy = await run(upstream)
    path = await proxy.link("six", made.filename)
    fill_up(monkeypatch, 0)
    reply = await proxy.get(path)
    whole = not cut and size < 4_000_000
    assert (reply.status == 200 and reply.complete) == whole
    assert made.data.startswith(reply.body) or reply.status == 503
    assert (reply.body == made.data) == whole


@pytest_twisted.ensureDeferred
async def test_stopping_lets_running_responses_end(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=1_000_000)
    client = await proxy.connect(path)
    await client.got(900_000)
    stopping = ensureDeferred(proxy.stop())
    gate.release()
    assert (await client.reply()).body == BIG
    await stopping


@pytest_twisted.ensureDeferred
async def test_over_tls_a_file_is_the_same_arriving_and_stored_and_a_slow_reader_is_waited_for(
    big: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    certificate, key = certs.server("proxy.example").write(tmp_path, "proxy")
    proxy = await run(big, listen=(f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}",))
    authority = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(certs.authority().certificate_pem)])
    client = await wire.connect(proxy.port, ssl.optionsForClientTLS("proxy.example", authority))
    client.ask("/simple/big/", Accept="application/vnd.pypi.simple.v1+json")
    (url,) = [file["url"] for file in (await client.reply()).json["files"]]
    for _ in range(2):
        client.ask(url.replace("../..", ""))
        client.transport.pauseProducing()
        client.transport.resumeProducing()
        assert (await client.reply()).body == BIG
    client.ask(url.replace("../..", ""), Range="bytes=-5")
    assert (await client.reply()).body == BIG[-5:]
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_connection_goes_on_after_a_file_whose_head_filled_the_transport(
    big: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when answers that were sent before have left no room: whoever sends the file is told that there is room again."""
    proxy = await run(big, stall_timeout=1.0)
    path = await proxy.link("big", WHEEL)
    await proxy.get(path)
    monkeypatch.setattr("proxy.web.channel.send_now", lambda transport, data: data)
    monkeypatch.setattr("twisted.internet.tcp.Server.bufferSize", 100)
    client = await wire.connect(proxy.port)
    client.ask(path)
    await client.got_body(len(BIG))
    client.ask("/-/live")
    assert (await client.reply()).status == 200
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_file_of_unknown_size_is_streamed_in_chunks(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("old", "old-1.0.zip", BIG, size=None)
    upstream.script("GET /packages/*", Fault(chunked=True))
    proxy = await run(upstream)
    reply = await proxy.get(await proxy.link("old", "old-1.0.zip"))
    assert (reply.headers.get("transfer-encoding"), reply.complete, reply.body == BIG) == ("chunked", True, True)


@pytest_twisted.ensureDeferred
async def test_a_small_hot_file_is_answered_from_memory_and_forgotten_with_its_pin(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("small", "small-1.0.tar.gz", b"small" * 100)
    proxy = await run(upstream)
    path = await proxy.link("small", "small-1.0.tar.gz")
    client = await wire.connect(proxy.port)
    replies = []
    for _ in range(4):
        client.ask(path)
        replies.append(await client.reply())
    assert {(reply.status, reply.body) for reply in replies} == {(200, b"small" * 100)}
    assert replies[-1].headers["cache-status"] == "pypiproxy; hit"
    upstream.project("small").keys["project-status"] = {"status": "quarantined"}
    page = await proxy.get("/simple/small/", Cache_Control="no-cache", Accept="application/vnd.pypi.simple.v1+json")
    assert page.json["files"] != []  # within five seconds of the last look nobody can force another
    await client.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("what", ["/simple/*", "/packages/*"], ids=["page", "file"])
async def test_what_takes_too_long_is_a_503_and_is_there_when_it_is_asked_for_again(
    big: FakeUpstream, run: Start, what: str
) -> None:
    proxy = await run(big)
    path = "/simple/big/" if what.startswith("/simple") else await proxy.link("big", WHEEL)
    gate = big.hold(what)
    front = proxy.service.front
    front.patience = replace(front.patience, answer_within=0.1)
    reply = await proxy.get(path)
    assert (reply.status, reply.headers["retry-after"] in ("1", "2"), reply.json["code"]) == (503, True, "upstream-slow")
    gate.release()
    front.patience = replace(front.patience, answer_within=10.0)
    assert (await proxy.get(path)).status == 200
    assert big.count(what) == 1


@pytest_twisted.ensureDeferred
async def test_a_body_that_upstream_leaves_hanging_is_cut_off_and_goes_on_for_whoever_asks_again(
    big: FakeUpstream, run: Start
) -> None:
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    gate = big.hold("/packages/*", after=1_000_000)
    front = proxy.service.front
    front.patience = replace(front.patience, silence_within=0.1)
    reply = await proxy.get(path)
    assert (reply.status, reply.complete) == (200, False)
    assert BIG.startswith(reply.body)
    gate.release()
    front.patience = replace(front.patience, silence_within=10.0)
    assert (await proxy.get(path)).body == BIG
    assert big.count("/packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_pauses_is_not_taken_for_a_silent_upstream(
    big: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Clock()
    proxy = await run(big)
    path = await proxy.link("big", WHEEL)
    monkeypatch.setattr(proxy.service.front, "reactor", timers)
    gate = big.hold("/packages/*", after=len(BIG) // 2)
    client = await proxy.connect(path)
    client.transport.pauseProducing()
    other = await proxy.connect(path)
    await other.got(len(BIG) // 2)
    gate.release()
    assert (await other.reply()).body == BIG
    # Upstream has sent all there is, and the one who pauses has not taken it.
    for _ in range(3):
        timers.advance(proxy.service.front.patience.silence_within)
    client.transport.resumeProducing()
    assert (await client.reply()).body == BIG


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_new_upstream_is_no_404_while_its_page_cannot_be_refreshed(big: FakeUpstream, run: Start) -> None:
    proxy = await run(big)
    await proxy.page("big")
    await proxy.stop()
    new = sdist("big", "2.0")
    digest = hashlib.sha256(new.data).hexdigest()
    big.add_file("big", new.filename, new.data)
    proxy = await run(big, clock=lambda: time.time() + 3_600)
    path = f"/files/big/sha256-{digest}/{new.filename}"
    big.script("/simple/*", Fault(status=500))
    unknown = await proxy.get(path)
    assert (unknown.status, "retry-after" in unknown.headers) == (503, True)
    assert "cannot be asked for again now" in unknown.reason

"""Several upstreams of one index: whichever fails, whenever it does, the client gets its page and its file from another."""

from __future__ import annotations

import datetime
import gzip
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.logger import LogEvent, formatEvent
from twisted.web.http import datetimeToString

from proxy.settings import IndexSettings, PageLimits
from proxy.upstream.pool import evidence
from proxy.upstream.pool.upstreams import Upstreams
from tests.inprocess import JSON, Running, upstream_settings
from tests.support.fake_upstream import FakeUpstream, Fault, Gate
from tests.support.wheels import data_of

BIG = data_of(2_000_000)
FILE = "big-1.0.tar.gz"

Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
def mirrors(make_upstream: Callable[..., FakeUpstream]) -> list[FakeUpstream]:
    """Three upstreams with the same file."""
    made = [make_upstream() for _ in range(3)]
    for each in made:
        each.add_file("big", FILE, BIG, metadata=b"Metadata-Version: 2.1\n")
    return made


def index(*names: str, **settings: Any) -> tuple[IndexSettings, ...]:
    limits = PageLimits(soft_deadline=0.1)
    return (replace(IndexSettings(name="pypi", upstreams=names, default=True, limits=limits), **settings),)


def states(proxy: Running) -> dict[str, Any]:
    pool = proxy.service.proxied["pypi"].upstreams
    return {state.name: state for state in pool.states()}


FAULTS = {
    "500": Fault(status=500),
    "429": Fault(status=429, headers={"Retry-After": "60"}),
    "403": Fault(status=403),
    "garbage": Fault(garbage=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "dropped": Fault(drop=True),
    "reset": Fault(reset_after=30),
    "silent": Fault(silent=True),
    "stalled": Fault(stall_after=30),
    "sign-in form": Fault(body=b"<html><form></form></html>", headers={"Content-Type": "text/html"}),
    "bad gzip": Fault(body=b"\x1f\x8b" + b"{}" * 100, headers={"Content-Encoding": "gzip"}),
    "gzip that is cut off": Fault(body=gzip.compress(b"{}" * 100)[:-9], headers={"Content-Encoding": "gzip"}),
    "unasked 304": Fault(status=304),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_page_comes_from_the_next_upstream_within_the_same_request(
    mirrors: list[FakeUpstream], serve: Serve, fault: Fault
) -> None:
    proxy = await serve(*mirrors)
    for mirror in mirrors:
        mirror.add_file("other", "other-1.0.tar.gz", b"x")
    await proxy.page("other")
    mirrors[0].script("*", fault)
    page = await proxy.get("/simple/big/", Accept=JSON)
    assert (page.status, page.json["files"][0]["filename"]) == (200, FILE)
    first = 2 if fault.drop else 1  # a connection that was idle may have been closed just then
    assert [mirror.count("/simple/big/") for mirror in mirrors] == [first, 1, 0]


@pytest_twisted.ensureDeferred
async def test_a_404_is_definite_unless_the_mirror_is_a_partial_one(mirrors: list[FakeUpstream], serve: Serve) -> None:
    mirrors[0].remove_project("big")
    partial = upstream_settings(mirrors[0].url, "partial", partial=True)
    whole = upstream_settings(mirrors[1].url, "whole")
    proxy = await serve(partial, whole)
    assert (await proxy.page("big"))["files"]
    assert (await proxy.get("/simple/unknown/")).status == 404
    mirrors[1].script("*", Fault(status=500))
    assert (await proxy.get("/simple/nobody/")).status == 503
    await proxy.stop()
    strict = await serve(upstream_settings(mirrors[0].url, "first"), whole, data="other")
    assert (await strict.get("/simple/big/")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_file_goes_on_at_the_same_byte_at_the_next_mirror_while_a_hundred_clients_read(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("big", FILE)
    gate = mirrors[0].hold("/packages/*", after=700_000, times=1)
    clients = [await proxy.connect(path) for _ in range(100)]
    await gatherResults([client.got(600_000) for client in clients])
    await mirrors[0].down()
    gate.release()
    replies = await gatherResults([ensureDeferred(client.reply()) for client in clients])
    assert {(reply.status, reply.complete, reply.body == BIG) for reply in replies} == {(200, True, True)}
    (resumed,) = [request for request in mirrors[1].asked if request.path.startswith("/packages/")]
    assert 600_000 < int(resumed.headers["range"].removeprefix("bytes=").removesuffix("-")) <= 700_000
    assert "if-range" not in resumed.headers


@pytest_twisted.ensureDeferred
async def test_a_broken_connection_is_gone_on_with_at_the_same_upstream_first(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("big", FILE)
    mirrors[0].script("/packages/*", Fault(reset_after=500_000), times=1)
    assert (await proxy.get(path)).body == BIG
    second = [request for request in mirrors[0].asked if request.path.startswith("/packages/")][1]
    assert "range" in second.headers
    assert second.headers["if-range"].startswith('"')
    assert mirrors[1].asked == []


@pytest_twisted.ensureDeferred
async def test_a_stalled_body_goes_on_elsewhere(mirrors: list[FakeUpstream], serve: Serve) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("big", FILE)
    mirrors[0].script("/packages/*", Fault(stall_after=500_000))
    assert (await proxy.get(path)).body == BIG
    assert mirrors[0].count("/packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_without_a_digest_or_a_validator_a_file_that_clients_have_seen_is_not_started_again(
    upstream: FakeUpstream, serve: Serve
) -> None:
    upstream.add_file("old", "old-1.0.zip", BIG, hashes={})
    gate = Gate()
    fault = Fault(hold=gate, hold_after=700_000, reset_after=1_000_000, headers={"ETag": None})
    upstream.script("/packages/*", fault, times=1)
    proxy = await serve(upstream)
    client = await proxy.connect(await proxy.link("old", "old-1.0.zip"))
    await client.got(600_000)
    gate.release()
    reply = await client.reply()
    assert not reply.complete
    assert BIG.startswith(reply.body)
    assert upstream.count("/packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_a_mirror_that_sends_other_bytes_is_marked_and_the_next_one_asked(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    small = b"small" * 700  # shorter than what is held back until the digest is known
    for mirror in mirrors:
        mirror.add_file("small", "small-1.0.tar.gz", small)
    proxy = await serve(*mirrors)
    path = await proxy.link("small", "small-1.0.tar.gz")
    await mirrors[0].down()
    mirrors[1].script("/packages/*", Fault(corrupt_at=3))
    assert (await proxy.get(path)).body == small
    assert mirrors[1].count("/packages/*") == 1
    assert mirrors[2].count("/packages/*") == 1
    assert "sent other bytes for small-1.0.tar.gz" in states(proxy)["up1"].marked
    assert b'event="mirror with other bytes"} 1.0' in (await proxy.get("/-/metrics")).body


@pytest_twisted.ensureDeferred
async def test_the_digest_of_the_page_that_is_served_binds_every_mirror(mirrors: list[FakeUpstream], serve: Serve) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("big", FILE)
    mirrors[1].add_file("big", FILE, b"something else")
    await mirrors[0].down()
    assert (await proxy.get(path)).body == BIG
    assert mirrors[1].count("/packages/*") == 0
    assert "lists other bytes" in states(proxy)["up1"].marked


@pytest_twisted.ensureDeferred
async def test_metadata_comes_from_the_next_mirror_too(mirrors: list[FakeUpstream], serve: Serve) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("big", FILE)
    mirrors[0].script("*.metadata", Fault(status=404))
    assert (await proxy.get(f"{path}.metadata")).body == b"Metadata-Version: 2.1\n"


@pytest_twisted.ensureDeferred
async def test_size_and_ranges_of_a_cold_file_come_from_the_next_mirror_too(mirrors: list[FakeUpstream], serve: Serve) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("big", FILE)
    mirrors[0].script("/packages/*", Fault(ignore_range=True))
    assert (await proxy.get(path, Range="bytes=1000000-1000099")).body == BIG[1_000_000:1_000_100]
    await mirrors[0].down()
    assert (await proxy.head(path)).headers["content-length"] == str(len(BIG))


@pytest_twisted.ensureDeferred
async def test_hedging_asks_the_next_one_too_and_cancels_the_loser(mirrors: list[FakeUpstream], serve: Serve) -> None:
    hedged = [upstream_settings(each.url, f"up{number}", first_byte_timeout=9.0) for number, each in enumerate(mirrors)]
    proxy = await serve(*hedged, indexes=index("up0", "up1", "up2", hedge_after=0.05))
    mirrors[0].silent()
    assert (await proxy.page("big"))["files"]
    await mirrors[0].until(lambda: mirrors[0].in_progress == 0)
    path = await proxy.link("big", FILE)
    assert (await proxy.get(path)).body == BIG
    assert mirrors[2].asked == []
    assert states(proxy)["up0"].state == "up"  # slower is not broken


@pytest_twisted.ensureDeferred
async def test_a_silent_preferred_upstream_costs_clients_its_share_of_the_patience_and_not_its_timeout(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    slow = [upstream_settings(each.url, f"up{number}", first_byte_timeout=60.0) for number, each in enumerate(mirrors)]
    proxy = await serve(*slow)
    pool = proxy.service.proxied["pypi"].upstreams
    assert isinstance(pool, Upstreams)
    pool.rounds.hurry(0.1)
    mirrors[0].silent()
    mirrors[1].silent()
    assert (await proxy.page("big"))["files"]
    assert [mirror.count("/simple/big/") for mirror in mirrors] == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_a_mirrors_page_with_other_digests_does_not_replace_the_preferred_upstreams(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    proxy = await serve(*mirrors[:2], limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    before = await proxy.page("big")
    mirrors[1].add_file("big", FILE, b"other bytes", metadata=b"other")
    mirrors[1].project("big").serial = 1_000_000
    await mirrors[0].down()
    assert (await proxy.page("big"))["files"] == before["files"]
    assert "gives big-1.0.tar.gz of big another digest than up0 did" in (states(proxy)["up1"].marked or "")
    mirrors[1].add_file("big", FILE, BIG, metadata=b"Metadata-Version: 2.1\n")
    assert (await proxy.get(await proxy.link("big", FILE))).body == BIG


@pytest_twisted.ensureDeferred
async def test_fastest_prefers_whoever_has_answered_fastest(mirrors: list[FakeUpstream], serve: Serve) -> None:
    for number in range(8):
        mirrors[0].add_file(f"p{number}", f"p{number}-1.0.tar.gz", b"x")
        mirrors[1].add_file(f"p{number}", f"p{number}-1.0.tar.gz", b"x")
    mirrors[0].script("/simple/*", Fault(delay=0.05))
    settings = [upstream_settings(mirrors[number].url, f"up{number}") for number in range(2)]
    proxy = await serve(*settings, indexes=index("up0", "up1", policy="fastest"))
    for number in range(8):
        await proxy.page(f"p{number}")
    assert (mirrors[0].count("/simple/p*"), mirrors[1].count("/simple/p*")) == (1, 7)


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_is_down_is_probed_beside_the_clients_requests(
    mirrors: list[FakeUpstream], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        for mirror in mirrors:
            mirror.add_file(f"p{number}", f"p{number}-1.0.tar.gz", b"x")
    monkeypatch.setattr(evidence, "FIRST_PAUSE", 0.0)
    await mirrors[0].down()
    proxy = await serve(*mirrors)
    await proxy.page("p0")
    assert states(proxy)["up0"].state == "down"
    mirrors[0].up()
    gate = mirrors[0].hold("/simple/*")
    assert (await proxy.page("p3"))["files"]  # does not wait for the probe
    await mirrors[0].arrived("/simple/p3/")
    gate.release()
    await mirrors[0].until(lambda: mirrors[0].in_progress == 0)
    while states(proxy)["up0"].state != "up":
        await proxy.get("/-/live")


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest_twisted.ensureDeferred
async def test_retry_after_rests_the_url_and_nothing_else(mirrors: list[FakeUpstream], serve: Serve, form: str) -> None:
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    value = "100" if form == "seconds" else datetimeToString(when.timestamp()).decode()
    mirrors[0].script("*", Fault(status=503, headers={"Retry-After": value}))
    proxy = await serve(*mirrors[:2])
    path = await proxy.link("big", FILE)
    assert (await proxy.get(path)).body == BIG
    assert [request.path for request in mirrors[0].asked] == ["/simple/big/"]
    assert (states(proxy)["up0"].state, states(proxy)["up0"].paused_until) == ("up", None)
    assert (await proxy.get("/simple/big/?again", Cache_Control="no-cache")).status == 200
    await proxy.get("/simple/other/")
    assert [request.path for request in mirrors[0].asked] == ["/simple/big/", "/simple/other/"]


@pytest_twisted.ensureDeferred
async def test_a_mirror_that_lags_is_passed_over_as_long_as_another_one_answers(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    mirrors[0].content.mirrored_at = "20200102T03:04:05"
    settings = [upstream_settings(each.url, f"up{number}", max_lag=3600.0) for number, each in enumerate(mirrors[:2])]
    mirrors[0].add_file("gone", "gone-1.0.tar.gz", b"x")
    proxy = await serve(*settings)
    assert (await proxy.page("big"))["files"]
    assert mirrors[0].count("/simple/*") == 0
    assert states(proxy)["up0"].lag > 1e8
    await mirrors[1].down()
    assert (await proxy.page("gone"))["files"]  # better than nothing
    assert mirrors[0].count("/last-modified") == 1


@pytest_twisted.ensureDeferred
async def test_a_mirror_never_takes_a_page_back_in_time(mirrors: list[FakeUpstream], serve: Serve) -> None:
    mirrors[0].project("big").serial = 20
    mirrors[1].project("big").serial = 10
    mirrors[1].add_file("big", "big-0.9.tar.gz", b"older")
    proxy = await serve(*mirrors[:2], limits=PageLimits(ttl=0.0, soft_deadline=1.0))
    before = await proxy.page("big")
    await mirrors[0].down()
    assert await proxy.page("big") == before
    cold = await serve(*mirrors[:2], data="other")
    assert len((await cold.page("big"))["files"]) == 2


@pytest_twisted.ensureDeferred
async def test_a_full_queue_is_an_outage_of_that_upstream(mirrors: list[FakeUpstream], serve: Serve) -> None:
    for mirror in mirrors[:2]:
        mirror.add_file("one", "one-1.0.tar.gz", b"x")
    narrow = upstream_settings(mirrors[0].url, "narrow", max_connections=1, max_queue=0, first_byte_timeout=9.0)
    proxy = await serve(narrow, upstream_settings(mirrors[1].url, "wide"))
    gate = mirrors[0].hold("/simple/one/")
    waiting = await proxy.connect("/simple/one/", Accept=JSON)
    await mirrors[0].arrived("/simple/one/")
    assert (await proxy.page("big"))["files"]
    assert mirrors[1].count("/simple/big/") == 1
    gate.release()
    assert (await waiting.reply()).status == 200
    assert states(proxy)["narrow"].in_flight == 0


@pytest_twisted.ensureDeferred
async def test_no_slot_is_ever_lost(mirrors: list[FakeUpstream], serve: Serve) -> None:
    upstream = mirrors[0]
    for number in range(12):
        upstream.add_file(f"p{number}", f"p{number}-1.0.tar.gz", b"x")
    faults = [
        Fault(status=404),
        Fault(redirect="/simple/big/"),
        Fault(redirect="http://[bad/"),
        Fault(cut_after=9),
        Fault(garbage=b"?"),
    ]
    for fault in faults:
        upstream.script("*", fault, times=1)
    proxy = await serve(upstream_settings(upstream.url, "narrow", max_connections=1))
    for number in range(len(faults)):
        await proxy.get(f"/simple/p{number}/")
    for number in range(len(faults), 12):
        assert (await proxy.get(f"/simple/p{number}/")).status == 200
    client = await proxy.connect(await proxy.link("big", FILE))
    await client.got(1)
    await client.reply()
    assert states(proxy)["narrow"].in_flight == 0


@pytest_twisted.ensureDeferred
async def test_when_all_are_out_the_error_names_each_with_its_reason(mirrors: list[FakeUpstream], serve: Serve) -> None:
    await mirrors[0].down()
    mirrors[1].script("*", Fault(status=502))
    mirrors[2].script("*", Fault(garbage=b"\x00"))
    proxy = await serve(*mirrors)
    reply = await proxy.get("/simple/big/")
    assert (reply.status, int(reply.headers["retry-after"]) >= 1) == (503, True)
    reasons = {attempt["upstream"]: attempt["reason"] for attempt in reply.json["attempts"]}
    assert reasons["up0"] == "connection refused"
    assert reasons["up1"] == "answered 502 Bad Gateway"
    assert set(reasons) == {"up0", "up1", "up2"}


@pytest_twisted.ensureDeferred
async def test_a_complete_partial_file_of_an_earlier_run_is_verified_and_not_fetched_again(
    upstream: FakeUpstream, serve: Serve, tmp_path: Any
) -> None:
    upstream.add_file("big", FILE, BIG)
    proxy = await serve(upstream)
    path = await proxy.link("big", FILE)
    digest = hashlib.sha256(BIG).hexdigest()
    await proxy.stop()
    partial = tmp_path / "data" / "partial"
    (partial / f"sha256-{digest}").write_bytes(BIG)
    again = await serve(upstream)
    reply = await again.get(path)
    assert reply.body == BIG
    assert upstream.sent < len(BIG) // 2


@pytest_twisted.ensureDeferred
async def test_the_log_has_one_line_when_an_upstream_goes_down_and_one_when_it_is_up_again(
    mirrors: list[FakeUpstream], serve: Serve, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "FIRST_PAUSE", 0.0)
    proxy = await serve(mirrors[0])
    await mirrors[0].down()
    for number in range(5):
        assert (await proxy.get(f"/simple/p{number}/")).status == 503
    mirrors[0].up()
    assert (await proxy.page("big"))["files"]
    lines = [formatEvent(each) for each in logged if "upstream up0 is" in formatEvent(each)]
    assert lines == [
        "upstream up0 is down: connection refused; it is probed after growing pauses",
        "upstream up0 is up: it answers again",
    ]


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_redirects_to_another_origin_is_up_again_after_an_outage(
    mirrors: list[FakeUpstream], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "FIRST_PAUSE", 0.0)
    front, back = mirrors[:2]
    back.add_file("other", "other-1.0.tar.gz", b"x")
    for project in ("big", "other"):
        front.script(f"/simple/{project}/", Fault(redirect=f"{back.url}{project}/"))
    proxy = await serve(front, limits=PageLimits(ttl=0.0, soft_deadline=1.0))
    assert (await proxy.page("big"))["files"]
    await front.down()
    assert (await proxy.get("/simple/other/")).status == 503
    while states(proxy)["up0"].state == "probing":
        await proxy.get("/-/live")
    assert states(proxy)["up0"].state == "down"
    front.up()
    assert (await proxy.page("other"))["files"]
    assert states(proxy)["up0"].state == "up"


@pytest_twisted.ensureDeferred
async def test_pages_of_an_upstream_that_is_configured_no_more_are_served_and_renewed(
    mirrors: list[FakeUpstream], serve: Serve
) -> None:
    limits = PageLimits(ttl=0.0, soft_deadline=1.0)
    mirrors[0].project("big").serial = 20
    mirrors[1].project("big").serial = 10
    before = await serve(upstream_settings(mirrors[0].url, "old"), limits=limits)
    assert (await before.page("big"))["files"]
    await before.stop()
    after = await serve(upstream_settings(mirrors[1].url, "new"), limits=limits)
    assert (await after.page("big"))["files"]
    assert mirrors[1].count("/simple/big/") == 1
    head = await after.service.proxied["pypi"].pages.remembered("big")
    assert head is not None
    assert head.upstream == "new"

"""Every fault at every phase, with one upstream and with three, cold and warm: correct bytes or one clear error.

Never a cut-off body that looks complete, and never a hang.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred

from proxy.settings import PageLimits, UpstreamSettings
from tests.inprocess import JSON, Running, upstream_settings
from tests.support import certs
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import data_of
from tests.support.wire import Reply

DATA = data_of(200_000)
FILE = "six-1.0.tar.gz"
#: Seconds: far above what the short timeouts of these tests add up to, below what clients wait.
HANG = 10.0

FAULTS = {
    "headers: silent": Fault(silent=True),
    "headers: dropped": Fault(drop=True),
    "headers: garbage": Fault(garbage=b"\x15\x03\x01\x00\x02\x02\x46"),
    "headers: 500": Fault(status=500),
    "headers: 503": Fault(status=503, headers={"Retry-After": "9"}),
    "headers: 429": Fault(status=429, headers={"Retry-After": "9"}),
    "headers: redirect loop": Fault(redirect="/simple/six/"),
    "headers: redirect to nowhere": Fault(redirect="http://[/"),
    "first byte: silent": Fault(stall_after=0),
    "first byte: cut": Fault(cut_after=0),
    "first byte: reset": Fault(reset_after=0),
    "first byte: error page": Fault(body=b"<html>sorry</html>", headers={"Content-Type": "text/html"}),
    "mid-body: cut": Fault(cut_after=150),
    "mid-body: reset": Fault(reset_after=150),
    "mid-body: silent": Fault(stall_after=150),
    "mid-body: wrong": Fault(corrupt_at=1),
    "mid-body: cut, no length": Fault(cut_after=150, no_content_length=True),
    "mid-body: cut, chunked": Fault(cut_after=150, chunked=True),
    "last byte: cut": Fault(cut_after=-1),
    "last byte: wrong": Fault(corrupt_at=-1),
    "length: too long": Fault(content_length=900_000),
    "length: too short": Fault(content_length=100),
    "length: none": Fault(no_content_length=True),
    "coding: gzip unasked": Fault(gzip=True),
    "coding: not what it says": Fault(headers={"Content-Encoding": "gzip"}),
    "ranges: ignored": Fault(ignore_range=True),
}

Serve = Callable[..., Awaitable[Running]]


@pytest.fixture(params=[1, 3], ids=["one upstream", "three upstreams"])
def mirrors(request: pytest.FixtureRequest, make_upstream: Callable[..., FakeUpstream]) -> list[FakeUpstream]:
    made = [make_upstream() for _ in range(request.param)]
    for each in made:
        each.content.etags = False
        each.add_file("six", FILE, DATA)
    return made


async def within(proxy: Running, path: str) -> Reply:
    """The answer; TimeoutError when the client would have hung."""
    asked = ensureDeferred(proxy.get(path, Accept=JSON))
    reply: Reply = await asked.addTimeout(HANG, reactor)
    return reply


def fault_at(fault: Fault, size: int) -> Fault:
    return replace(fault, cut_after=size - 1) if fault.cut_after == -1 else fault


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_page_is_right_or_one_clear_error(mirrors: list[FakeUpstream], serve: Serve, fault: Fault, warm: bool) -> None:
    proxy = await serve(*mirrors, limits=PageLimits(ttl=0.0, soft_deadline=0.1))
    if warm:
        await proxy.page("six")
    mirrors[0].script("/simple/*", fault_at(fault, 300))
    reply = await within(proxy, "/simple/six/")
    if reply.status == 200:
        assert reply.complete
        assert [file["filename"] for file in reply.json["files"]] == [FILE]
    else:
        assert not warm
        assert len(mirrors) == 1
        assert (reply.status, reply.complete, "retry-after" in reply.headers) == (503, True, True)
        assert "up0" in reply.reason


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_file_is_right_or_visibly_incomplete(mirrors: list[FakeUpstream], serve: Serve, fault: Fault) -> None:
    proxy = await serve(
        *(upstream_settings(each.url, f"up{number}", body_idle_timeout=0.3) for number, each in enumerate(mirrors))
    )
    path = await proxy.link("six", FILE)
    # Not for ever: a connection that breaks and yet brings bytes each time is gone on with, however long it takes.
    mirrors[0].script("/packages/*", fault_at(fault, len(DATA)), times=4)
    reply = await within(proxy, path)
    if reply.status == 200 and reply.complete:
        assert reply.body == DATA
    else:
        assert reply.status == 503 or not reply.complete
        # Wrong bytes that clients have seen cannot be taken back; everything else another mirror makes good.
        assert (
            len(mirrors) == 1 or fault.corrupt_at is not None or fault.body is not None or "Content-Encoding" in fault.headers
        )


@pytest_twisted.ensureDeferred
async def test_a_stored_file_needs_no_upstream(mirrors: list[FakeUpstream], serve: Serve) -> None:
    proxy = await serve(*mirrors)
    path = await proxy.link("six", FILE)
    await proxy.get(path)
    for mirror in mirrors:
        mirror.silent()
    assert (await within(proxy, path)).body == DATA


@pytest.mark.parametrize("phase", ["resolve", "connect", "TLS", "TLS handshake"])
@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_before_a_connection_is_made_is_an_error_or_another_mirrors_answer(
    mirrors: list[FakeUpstream], make_upstream: Callable[..., FakeUpstream], serve: Serve, phase: str
) -> None:
    mirrors[0].silent()
    urls = {
        "resolve": "http://nowhere.invalid/simple/",
        "connect": "http://127.0.0.1:1/simple/",
        "TLS": make_upstream(tls=certs.server_context()).url,
        "TLS handshake": mirrors[0].url.replace("http:", "https:"),
    }
    broken: list[UpstreamSettings] = [upstream_settings(urls[phase], "broken")]
    others = [upstream_settings(each.url, f"up{number}") for number, each in enumerate(mirrors[1:])]
    proxy = await serve(*broken, *others)
    reply = await within(proxy, "/simple/six/")
    assert (reply.status, reply.complete) == (200 if others else 503, True)
    assert others or "broken" in reply.reason

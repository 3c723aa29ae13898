"""An outage is quick and honest, and what nobody waits for holds no connection."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.logger import LogEvent

from tests.evidence import BROKEN, Serve, at_once, filename, fill, harm
from tests.inprocess import upstream_settings
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream, Fault

# -- room ---------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_requests_whose_clients_have_left_before_they_started_are_not_made(upstream: FakeUpstream, serve: Serve) -> None:
    honest = ["p0", "p1", "p2"]
    fill(upstream, "first", *honest)
    gate = upstream.hold("/simple/left*")
    proxy = await serve(upstream_settings(upstream.url, max_connections=4, first_byte_timeout=30.0))
    await proxy.page("first")  # an upstream that never had a page is asked for HTML as well
    for number in range(0, 1100, 100):
        clients = [await proxy.connect(f"/simple/left{number + each}/") for each in range(100)]
        if not number:
            await upstream.arrived("/simple/left*", 4)
        for client in clients:
            client.transport.loseConnection()
        await at_once([client.ended for client in clients])
    asked = [ensureDeferred(harm(proxy, project)) for project in honest]
    # A way to know that the proxy has seen all of them leave: what it is asked afterwards is answered.
    assert (await proxy.get("/-/ready")).status == 200
    gate.release()
    assert await gatherResults(asked) == [[], [], []]
    assert upstream.count("/simple/left*") == 4


@pytest.mark.parametrize("files", [False, True], ids=["pages", "files"])
@pytest_twisted.ensureDeferred
async def test_twenty_trickles_do_not_hold_all_connections(upstream: FakeUpstream, serve: Serve, files: bool) -> None:
    slow = [f"slow{number}" for number in range(20)]
    fill(upstream, "p0", "p1", "p2", *slow)
    proxy = await serve(upstream)
    paths = [await proxy.link(each, filename(each)) if files else f"/simple/{each}/" for each in slow]
    match = "*/slow*.whl" if files else "/simple/slow*"
    upstream.script(match, Fault(trickle=(1, 1.0)))
    clients = [await proxy.connect(path) for path in paths]
    await upstream.arrived(match, 10)
    assert await at_once([harm(proxy, project) for project in ("p0", "p1", "p2")]) == [[], [], []]
    for client in clients:
        await client.close()


# -- an outage ----------------------------------------------------------------------------------------------------------------

OUTAGES = {
    "refuses": None,
    "500": Fault(status=500),
    "503 and a long pause": Fault(status=503, headers={"Retry-After": "300"}),
    "503 and a date": Fault(status=503, headers={"Retry-After": "Fri, 31 Dec 2999 23:59:59 GMT"}),
    "503 and a fraction": Fault(status=503, headers={"Retry-After": "1.7"}),
    "429 and a long pause": Fault(status=429, headers={"Retry-After": "300"}),
    "429 and nonsense": Fault(status=429, headers={"Retry-After": "nan"}),
    "dropped": Fault(drop=True),
    "another page": BROKEN["another page"],
}


@pytest.mark.parametrize("fault", OUTAGES.values(), ids=OUTAGES)
@pytest_twisted.ensureDeferred
async def test_clients_are_told_to_come_back_in_one_or_two_seconds_at_random(
    upstream: FakeUpstream, serve: Serve, fault: Fault | None
) -> None:
    fill(upstream, "p")
    proxy = await serve(upstream)
    link = await proxy.link("p", filename("p"))
    if fault is None:
        await upstream.down()
    else:
        upstream.script("*", fault)
    told = []
    for number in range(12):
        for path in (f"/simple/q{number}/", link, f"{link}.metadata", "/simple/"):
            reply = await proxy.get(path)
            # A small file that turns out to be another one has begun already.
            assert reply.status == 503 or not reply.complete, (path, reply)
            told += [reply.headers["retry-after"]] if reply.status == 503 else []
    assert set(told) == {"1", "2"}


@pytest.mark.parametrize("client", ["pip", "uv"])
@pytest_twisted.ensureDeferred
async def test_a_client_gives_up_within_its_retries_when_upstream_refuses(
    upstream: FakeUpstream, serve: Serve, logged: list[LogEvent], tmp_path: Any, client: str
) -> None:
    await upstream.down()
    proxy = await serve(upstream)
    for _ in range(5):
        await proxy.get("/simple/before/")  # the outage has been going on for a while
    scratch = Scratch(tmp_path)
    index = f"http://127.0.0.1:{proxy.port}/simple/"
    ended = await (scratch.pip if client == "pip" else scratch.uv)(index, "demo", timeout=25.0)
    assert ended.status != 0
    asked = [each for each in logged if each["log_namespace"] == "proxy.access" and each["path"] == "/simple/demo/"]
    assert 1 <= len(asked) <= 6
    assert {each["status"] for each in asked} == {503}
    reply = await proxy.get("/simple/demo/")
    assert reply.headers["retry-after"] in ("1", "2")
    assert "Traceback" not in ended.output

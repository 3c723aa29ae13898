"""One sick address of a host costs no request as long as another one works."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted

from tests.evidence import BROKEN, SIZE, Make, MakeAddresses, Names, Serve, filename, fill, harm, pester, quick
from tests.inprocess import upstream_settings
from tests.support import wire
from tests.support.addresses import SICK, sicken
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.process import ProxyProcess
from tests.support.wheels import wheel


@pytest.mark.parametrize("what", SICK)
@pytest_twisted.ensureDeferred
async def test_a_sick_address_costs_no_request_rests_and_takes_no_other_mirror(
    at_addresses: MakeAddresses, make_upstream: Make, serve: Serve, what: str
) -> None:
    projects = [f"p{number}" for number in range(6)]
    up, other = await at_addresses(), make_upstream()
    fill(up.first, *projects)
    fill(other, *projects)
    await sicken(up.first, what)
    proxy = await serve(quick(up.url), other)
    assert await harm(proxy, "p0") == []
    assert [each.path for each in other.asked] == []
    seen = len(up.first.asked)
    for project in projects[1:]:
        assert await harm(proxy, project) == []
    assert [each.path for each in up.first.asked[seen:]] == []
    assert [each.path for each in other.asked] == []


@pytest.mark.parametrize("what", SICK)
@pytest_twisted.ensureDeferred
async def test_a_sick_address_of_a_file_host_costs_no_file(at_addresses: MakeAddresses, serve: Serve, what: str) -> None:
    projects = [f"p{number}" for number in range(4)]
    files = await at_addresses("files.example")
    index = await at_addresses("index.example", 1, file_host=files.first)
    fill(index.first, *projects)
    await sicken(files.first, what)
    proxy = await serve(quick(index.url))
    for project in projects:
        assert await harm(proxy, project) == []


@pytest.mark.parametrize("what", ["dead", "502", "silent"])
@pytest_twisted.ensureDeferred
async def test_an_address_that_falls_sick_later_costs_no_request(at_addresses: MakeAddresses, serve: Serve, what: str) -> None:
    projects = [f"p{number}" for number in range(6)]
    up = await at_addresses()
    fill(up.first, *projects)
    proxy = await serve(quick(up.url))
    assert await harm(proxy, "p0") == []
    used = next(each for each in up.at if each.asked)
    await sicken(used, what)  # connections that are open and idle are broken or useless now
    for project in projects[1:]:
        assert await harm(proxy, project) == []


@pytest.mark.parametrize("next_one", [None, "dead", "502", "reset"])
@pytest.mark.parametrize(
    "fault",
    [Fault(cut_after=7_000), Fault(reset_after=7_000), Fault(stall_after=7_000)],
    ids=["cut off", "reset", "silent"],
)
@pytest_twisted.ensureDeferred
async def test_a_file_goes_on_at_the_byte_reached_at_the_next_address_before_another_mirror(
    at_addresses: MakeAddresses, make_upstream: Make, serve: Serve, fault: Fault, next_one: str | None
) -> None:
    up, other = await at_addresses(), make_upstream()
    fill(up.first, "big")
    fill(other, "big")
    up.first.script("*.whl", fault)
    proxy = await serve(quick(up.url), other)
    link = await proxy.link("big", filename("big"))
    if next_one is not None:
        await sicken(up.at[1], next_one)
    reply = await proxy.get(link)
    assert (reply.complete, reply.body == wheel("big", size=SIZE).data) == (True, True), reply
    ranges = [each.headers.get("range", "") for upstream in up.at[1:] for each in upstream.asked if each.path.endswith(".whl")]
    assert ranges
    assert set(ranges) == {"bytes=7000-"}
    assert [each.path for each in other.asked] == []


@pytest_twisted.ensureDeferred
async def test_one_request_goes_to_three_addresses_and_no_more(
    at_addresses: MakeAddresses, make_upstream: Make, serve: Serve
) -> None:
    up, other = await at_addresses(count=5), make_upstream()
    for each in up.at:
        await sicken(each, "502")
    fill(other, "p")
    proxy = await serve(quick(up.url), other)
    assert (await proxy.get("/simple/p/")).status == 200
    assert sum(up.counts()) == 3
    assert max(up.counts()) == 1


@pytest.mark.parametrize("fault", ["502", "dropped", "reset", "500"])
@pytest_twisted.ensureDeferred
async def test_a_url_that_fails_at_every_address_puts_none_of_them_to_rest(
    at_addresses: MakeAddresses, serve: Serve, fault: str
) -> None:
    projects = [f"p{number}" for number in range(20)]
    up = await at_addresses()
    fill(up.first, *projects)
    for each in up.at:
        each.script("/simple/bad/", BROKEN[fault])
    proxy = await serve(quick(up.url))
    wrong = []
    for project in projects:
        await pester(proxy, "/simple/bad/")
        wrong += await harm(proxy, project)
    assert wrong == []


@pytest_twisted.ensureDeferred
async def test_an_address_that_cannot_be_reached_costs_nothing(upstream: FakeUpstream, serve: Serve, names: Names) -> None:
    names["up.example"] = ["::1", "127.0.0.1"]  # nobody listens at the first one, if there is IPv6 here at all
    fill(upstream, "p")
    proxy = await serve(upstream_settings(f"http://up.example:{upstream.port}/simple/"))
    assert await harm(proxy, "p") == []


@pytest_twisted.ensureDeferred
async def test_an_upstream_whose_addresses_all_refuse_is_down_and_back_when_one_of_them_is(
    at_addresses: MakeAddresses, serve: Serve
) -> None:
    up = await at_addresses()
    fill(up.first, "p", "q")
    for each in up.at:
        await sicken(each, "dead")
    proxy = await serve(quick(up.url))
    for _ in range(5):
        reply = await proxy.get("/simple/p/")
        assert (reply.status, reply.headers["retry-after"] in ("1", "2")) == (503, True), reply
    up.at[-1].up()
    reply = await wire.fetch_until(proxy.port, "/simple/p/", lambda reply: reply.status == 200)
    assert reply.complete


@pytest_twisted.ensureDeferred
async def test_a_proxy_of_its_own_process_gets_by_with_one_address_of_four(
    at_addresses: MakeAddresses, make_proxy: Callable[..., ProxyProcess]
) -> None:
    up = await at_addresses(count=4)
    fill(up.first, "p")
    for each in up.at[:3]:
        await sicken(each, "502")
    proxy = make_proxy(up.url, hosts={"up.example": [each.address for each in up.at]})
    await proxy.started()
    # A request that met all three is answered with 503; a direct client that asks again finds the one that works as well.
    reply = await wire.fetch_until(proxy.port, "/simple/p/", lambda reply: reply.status == 200)
    assert reply.complete

"""A failure is evidence about its URL or its host, and harms nobody else; probes are for what can be told from them.

All of it over HTTP: what upstream does is scripted, what clients get is looked at.
"""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import ensureDeferred

from tests.evidence import BROKEN, PESTERING, SIZE, Make, MakeAddresses, Names, Serve, at_once, filename, fill, harm, pester
from tests.inprocess import Running, upstream_settings
from tests.support import wire
from tests.support.addresses import sicken
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

reactor: Any = default_reactor


# -- one URL ------------------------------------------------------------------------------------------------------------------

#: Path at upstream, and path at the proxy (none: the page says).
SUBJECTS = {
    "page": ("/simple/bad/", "/simple/bad/"),
    "file": ("*/bad-1.0-py3-none-any.whl", None),
    "metadata": ("*/bad-1.0-py3-none-any.whl.metadata", None),
    "legacy document": ("/pypi/bad/json", "/pypi/bad/json"),
    "list of projects": ("/simple/", "/simple/"),
}


#: Every subject in some ways that are its own affair, pages and files in all of them.
CASES = [
    pytest.param(subject, fault, id=f"{subject}: {name}")
    for subject in SUBJECTS
    for name, fault in BROKEN.items()
    if subject in ("page", "file") or name in ("500", "503 and a long pause", "another page", "unasked 304", "reset")
]


@pytest.mark.parametrize(("subject", "fault"), CASES)
@pytest_twisted.ensureDeferred
async def test_three_clients_that_keep_asking_for_one_broken_url_harm_nobody_else(
    upstream: FakeUpstream, serve: Serve, names: Names, subject: str, fault: Fault
) -> None:
    broken, asked = SUBJECTS[subject]
    healthy = [f"p{number}" for number in range(12)]
    names["dead.example"] = ["127.0.0.9"]
    fill(upstream, "bad", *healthy)
    upstream.script("/simple/circle/", Fault(redirect="/simple/circle/"))
    proxy = await serve(upstream)
    if asked is None:
        asked = await proxy.link("bad", filename("bad")) + (".metadata" if subject == "metadata" else "")
    upstream.script(broken, fault)
    wrong = []
    for project in healthy:
        await pester(proxy, asked)
        wrong += await harm(proxy, project)
    assert wrong == []


@pytest_twisted.ensureDeferred
async def test_a_hundred_cold_projects_are_not_harmed_by_one_that_is_asked_for_all_the_while(
    upstream: FakeUpstream, serve: Serve
) -> None:
    healthy = [f"p{number}" for number in range(100)]
    fill(upstream, *healthy)
    upstream.script("/simple/bad/", Fault(status=500))
    proxy = await serve(upstream)
    asking = True

    async def keep_asking() -> None:
        while asking:
            await proxy.get("/simple/bad/")

    clients = [ensureDeferred(keep_asking()) for _ in range(PESTERING)]
    replies = [await proxy.get(f"/simple/{project}/") for project in healthy]
    asking = False
    await at_once(clients)
    assert [each.reason for each in replies if each.status != 200] == []


@pytest.mark.parametrize("fault", [Fault(silent=True), Fault(stall_after=10)], ids=["silent", "stalls"])
@pytest.mark.parametrize("subject", ["page", "file", "metadata"])
@pytest_twisted.ensureDeferred
async def test_a_silent_url_harms_nobody_else(upstream: FakeUpstream, serve: Serve, subject: str, fault: Fault) -> None:
    broken, asked = SUBJECTS[subject]
    healthy = [f"p{number}" for number in range(8)]
    fill(upstream, "bad", *healthy)
    proxy = await serve(upstream_settings(upstream.url, first_byte_timeout=0.2, body_idle_timeout=0.05))
    if asked is None:
        asked = await proxy.link("bad", filename("bad")) + (".metadata" if subject == "metadata" else "")
    upstream.script(broken, fault)
    wrong = []
    for project in healthy:
        await pester(proxy, asked)
        wrong += await harm(proxy, project)
    assert wrong == []


@pytest.mark.parametrize("length", [200, 300])
@pytest_twisted.ensureDeferred
async def test_names_that_upstream_chokes_on_harm_no_others(upstream: FakeUpstream, serve: Serve, length: int) -> None:
    healthy = [f"p{number}" for number in range(20)]
    fill(upstream, *healthy)
    upstream.script(lambda request: len(request.path) > 150, Fault(status=500))
    proxy = await serve(upstream)
    wrong = []
    for number, project in enumerate(healthy):
        await pester(proxy, f"/simple/{'abc'[number % 3] * length}/")
        wrong += await harm(proxy, project)
    assert wrong == []


@pytest.mark.parametrize("status", [429, 503])
@pytest_twisted.ensureDeferred
async def test_a_pause_that_one_url_asks_for_is_kept_for_that_url(upstream: FakeUpstream, serve: Serve, status: int) -> None:
    fill(upstream, "bad", "good")
    upstream.script("/simple/bad/", Fault(status=status, headers={"Retry-After": "300"}))
    proxy = await serve(upstream)
    for _ in range(20):
        reply = await proxy.get("/simple/bad/")
        assert (reply.status, reply.headers["retry-after"] in ("1", "2")) == (503, True), reply
    assert upstream.count("/simple/bad/") == 1
    assert await harm(proxy, "good") == []


@pytest.mark.parametrize("subject", ["page", "file"])
@pytest_twisted.ensureDeferred
async def test_a_pause_that_every_mirror_asks_for_is_cut_short_for_who_waits(
    make_upstream: Make, serve: Serve, subject: str
) -> None:
    mirrors = [make_upstream(), make_upstream()]
    for number, mirror in enumerate(mirrors):
        fill(mirror, "p")
        pause = Fault(status=429 if number else 503, headers={"Retry-After": "300"})
        mirror.script("GET /simple/p/" if subject == "page" else "GET *.whl", pause, times=1)
    proxy = await serve(*(upstream_settings(mirror.url, f"up{number}") for number, mirror in enumerate(mirrors)))
    await wire.fetch_until(proxy.port, "/simple/p/", lambda reply: reply.status == 200)
    link = await proxy.link("p", filename("p"))
    reply = await wire.fetch_until(proxy.port, link, lambda reply: reply.status == 200)
    assert (reply.complete, len(reply.body)) == (True, len(wheel("p", size=SIZE).data))


@pytest_twisted.ensureDeferred
async def test_refusals_of_many_urls_slow_an_upstream_down_and_do_not_stop_it(upstream: FakeUpstream, serve: Serve) -> None:
    bad = [f"bad{number}" for number in range(12)]
    fill(upstream, "good", *bad)
    upstream.script("/simple/bad*", Fault(status=429, headers={"Retry-After": "300"}))
    proxy = await serve(upstream)
    await at_once([proxy.get(f"/simple/{project}/") for project in bad])
    assert await harm(proxy, "good") == []


# -- one host -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True], ids=["one file", "many files"])
@pytest.mark.parametrize("host", ["dead.example", "nowhere.example", "deaf.example"])
@pytest_twisted.ensureDeferred
async def test_files_on_a_host_that_cannot_be_reached_harm_no_others(
    upstream: FakeUpstream, serve: Serve, names: Names, at_addresses: MakeAddresses, host: str, several: bool
) -> None:
    healthy = [f"p{number}" for number in range(8 if host == "deaf.example" else 30)]
    port = upstream.port
    if host == "deaf.example":
        deaf = await at_addresses(host, 1)
        await sicken(deaf.first, "deaf")
        port = deaf.first.port
    names["dead.example"] = ["127.0.0.9"]
    fill(upstream, *healthy)
    for number in range(len(healthy)):
        url = f"http://{host}:{port}/bad-{number}.0-py3-none-any.whl"
        upstream.add_file("bad", f"bad-{number}.0-py3-none-any.whl", b"bad", url=url)
    proxy = await serve(upstream_settings(upstream.url, connect_timeout=0.2))
    links = [urljoin("/simple/bad/", each["url"]) for each in (await proxy.page("bad"))["files"]]
    wrong = []
    for number, project in enumerate(healthy):
        link = links[number if several else 0]
        await pester(proxy, link)
        wrong += await harm(proxy, project)
    assert wrong == []


@pytest_twisted.ensureDeferred
async def test_a_file_host_that_fails_for_every_file_harms_no_page(
    upstream: FakeUpstream, make_upstream: Make, serve: Serve
) -> None:
    index = make_upstream(file_host=upstream)
    projects = [f"p{number}" for number in range(20)]
    fill(index, *projects)
    proxy = await serve(index)
    links = [await proxy.link(project, filename(project)) for project in projects[:10]]
    upstream.script("*", Fault(status=500))
    for link in links:
        assert (await proxy.get(link)).status == 503
    for project in projects[10:]:
        assert (await proxy.get(f"/simple/{project}/")).status == 200


# -- probes -------------------------------------------------------------------------------------------------------------------


async def refused(upstream: FakeUpstream, proxy: Running) -> None:
    """Have *upstream* refuse connections, and *proxy* know it."""
    await upstream.down()
    for number in range(6):
        assert (await proxy.get(f"/simple/other{number}/")).status == 503


@pytest_twisted.ensureDeferred
async def test_a_resting_upstream_is_probed_with_the_last_small_page_that_worked(upstream: FakeUpstream, serve: Serve) -> None:
    fill(upstream, "good", "bad", "cold")
    proxy = await serve(upstream)
    await proxy.page("good")
    await refused(upstream, proxy)
    upstream.script("/simple/bad/", Fault(status=500))
    upstream.up()
    await wire.fetch_until(proxy.port, "/simple/bad/", lambda _: len(upstream.asked) > 1)
    assert [each.path for each in upstream.asked[:2]] == ["/simple/good/", "/simple/good/"]
    reply = await wire.fetch_until(proxy.port, "/simple/cold/", lambda reply: reply.status == 200)
    assert reply.complete


@pytest_twisted.ensureDeferred
async def test_without_a_page_that_worked_each_probe_is_for_another_url(upstream: FakeUpstream, serve: Serve) -> None:
    fill(upstream, "bad", "cold")
    proxy = await serve(upstream)
    await refused(upstream, proxy)
    upstream.script("/simple/bad/", Fault(status=502))
    upstream.up()

    reply = None
    give_up = reactor.seconds() + 8.0
    while upstream.count("/simple/cold/") == 0 and reactor.seconds() < give_up:
        for _ in range(20):
            await proxy.get("/simple/bad/")
        # Asked for seldom, so that the probe does not happen to be this one.
        reply = await proxy.get("/simple/cold/") if upstream.asked else None
    paths = [each.path for each in upstream.asked]
    assert all(one != two for one, two in itertools.pairwise(paths)), paths
    assert reply is not None
    assert reply.status == 200

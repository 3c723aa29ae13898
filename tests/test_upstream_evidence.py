"""A failure is evidence about its URL, its address or its host, and harms nobody else; an outage is quick and honest.

All of it over HTTP: what upstream does is scripted, what clients get is looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.logger import LogEvent

from proxy.settings import PageLimits
from tests.inprocess import JSON, Running, upstream_settings
from tests.support import wire
from tests.support.addresses import SICK, Addresses, sicken
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.hosts import Hosts
from tests.support.process import ProxyProcess
from tests.support.resolving import resolving
from tests.support.wheels import wheel

reactor: Any = default_reactor

Serve = Callable[..., Awaitable[Running]]
Make = Callable[..., FakeUpstream]
Names = dict[str, list[str]]
MakeAddresses = Callable[..., Awaitable[Addresses[FakeUpstream]]]

#: Clients that keep asking for what is broken.
PESTERING = 3
SIZE = 20_000


@pytest.fixture
def names(_clean_reactor: None) -> Iterator[Names]:
    """Addresses of hosts below ``.example``, to be filled in."""
    found: Names = {}
    with resolving(Hosts(found), reactor):
        yield found


@pytest.fixture
def at_addresses(names: Names) -> Iterator[MakeAddresses]:
    """Makes fake upstreams that are known by a name and listen at 127.0.0.1, 127.0.0.2 and so on."""
    made: list[Addresses[FakeUpstream]] = []

    async def make(name: str = "up.example", count: int = 3, **options: Any) -> Addresses[FakeUpstream]:
        names[name] = [f"127.0.0.{number}" for number in range(1, count + 1)]
        made.append(await Addresses(name, names[name], FakeUpstream, **options).start())
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


def fill(upstream: FakeUpstream, *projects: str, **keys: Any) -> None:
    """Have a wheel of each of *projects*, with metadata beside it."""
    for project in projects:
        made = wheel(project, size=SIZE)
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata, **keys)


def filename(project: str) -> str:
    return f"{project}-1.0-py3-none-any.whl"


async def harm(proxy: Running, project: str) -> list[str]:
    """What goes wrong with an install of *project*: its page, its metadata, its file, each asked for once."""
    page = await proxy.get(f"/simple/{project}/", Accept=JSON)
    if page.status != 200:
        return [f"{project}: {page.status} {page.reason}"]
    link = urljoin(f"/simple/{project}/", page.json["files"][0]["url"])
    made = wheel(project, size=SIZE)
    wrong = []
    for path, data in ((f"{link}.metadata", made.metadata), (link, made.data)):
        reply = await proxy.get(path)
        if reply.status != 200 or reply.body != data:
            wrong.append(f"{path.rpartition('/')[2]}: {reply.status} {reply.reason}, {len(reply.body)} of {len(data)} bytes")
    return wrong


async def pester(proxy: Running, path: str) -> None:
    """Three clients ask for *path* one after the other: requests at the same moment would be one to upstream."""
    for _ in range(PESTERING):
        await proxy.get(path)


async def at_once(asked: Iterable[Coroutine[Any, Any, Any] | Deferred[Any]]) -> list[Any]:
    found: list[Any] = await gatherResults([ensureDeferred(each) for each in asked])
    return found


# -- one URL ------------------------------------------------------------------------------------------------------------------

BROKEN = {
    "500": Fault(status=500),
    "502": Fault(status=502),
    "503": Fault(status=503),
    "503 and a long pause": Fault(status=503, headers={"Retry-After": "300"}),
    "429 and a long pause": Fault(status=429, headers={"Retry-After": "300"}),
    "429": Fault(status=429),
    "another page": Fault(body=b"<html><form>sign in</form></html>", headers={"Content-Type": "text/html"}),
    "JSON that is none": Fault(body=b'{"files": ', headers={"Content-Type": JSON}),
    "unknown type": Fault(body=b"\x89PNG", headers={"Content-Type": "image/png"}),
    "bad gzip": Fault(headers={"Content-Encoding": "gzip"}),
    "unasked 304": Fault(status=304),
    "dropped": Fault(drop=True),
    "reset": Fault(reset=True),
    "cut off": Fault(cut_after=20),
    "no HTTP": Fault(garbage=b"220 mail.example ESMTP\r\n"),
    "redirected in a circle": Fault(redirect="/simple/circle/"),
    "redirected to where nobody is": Fault(redirect="http://dead.example:9/simple/bad/"),
    "redirected to nowhere": Fault(redirect="http://nowhere.example/simple/bad/"),
}
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
    proxy = await serve(upstream_settings(upstream.url, first_byte_timeout=0.2, body_idle_timeout=0.2))
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
    upstream.script(lambda request: len(request.path) > 100, Fault(status=500))
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
    await wire.fetch_until(proxy.port, "/simple/bad/", lambda _: len(upstream.asked) > 1, timeout=8.0)
    assert [each.path for each in upstream.asked[:2]] == ["/simple/good/", "/simple/good/"]
    reply = await wire.fetch_until(proxy.port, "/simple/cold/", lambda reply: reply.status == 200, timeout=8.0)
    assert reply.complete


@pytest_twisted.ensureDeferred
async def test_without_a_page_that_worked_each_probe_is_for_another_url(upstream: FakeUpstream, serve: Serve) -> None:
    fill(upstream, "bad", "cold")
    proxy = await serve(upstream)
    await refused(upstream, proxy)
    upstream.script("/simple/bad/", Fault(status=500))
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


# -- addresses ----------------------------------------------------------------------------------------------------------------


def quick(url: str, name: str = "up") -> Any:
    return upstream_settings(url, name, connect_timeout=1.0, first_byte_timeout=0.5, body_idle_timeout=0.5)


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
    reply = await wire.fetch_until(proxy.port, "/simple/p/", lambda reply: reply.status == 200, timeout=8.0)
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
    reply = await wire.fetch_until(proxy.port, "/simple/p/", lambda reply: reply.status == 200, timeout=8.0)
    assert reply.complete


# -- room ---------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_requests_whose_clients_have_left_before_they_started_are_not_made(upstream: FakeUpstream, serve: Serve) -> None:
    honest = ["p0", "p1", "p2"]
    fill(upstream, *honest)
    gate = upstream.hold("/simple/left*")
    proxy = await serve(upstream_settings(upstream.url, max_connections=4, first_byte_timeout=30.0))
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


# -- surprises ----------------------------------------------------------------------------------------------------------------

NOT_UTF8 = '"\xff\xfe"'
SUPERSCRIPT = "\xc2\xb2"  # two bytes of UTF-8
HUGE = "9" * 5_000
SURPRISES = {
    "ETag": {"ETag": NOT_UTF8},
    "Last-Modified": {"Last-Modified": NOT_UTF8},
    "both": {"ETag": NOT_UTF8, "Last-Modified": NOT_UTF8},
    "serial not UTF-8": {"X-PyPI-Last-Serial": "\xb2"},
    "serial superscript": {"X-PyPI-Last-Serial": SUPERSCRIPT},
    "serial huge": {"X-PyPI-Last-Serial": HUGE},
    "age superscript": {"Age": SUPERSCRIPT, "Cache-Control": "max-age=60"},
    "age huge": {"Age": HUGE, "Cache-Control": "max-age=60"},
    "cache-control": {"Cache-Control": NOT_UTF8},
    "max-age other digits": {"Cache-Control": "max-age=\xd9\xa3"},
    "content type": {"Content-Type": NOT_UTF8},
    "charset unknown": {"Content-Type": "text/html; charset=\xff"},
    "charset no text": {"Content-Type": "text/html; charset=base64"},
    "content coding": {"Content-Encoding": "\xff"},
    "redirect": {":status": "302", "Location": "/simple/\xff/"},
    "redirect to a host that is none": {":status": "302", "Location": "http://\xff.example/"},
    "redirect to a port that is none": {":status": "302", "Location": "http://up.example:99999/"},
    "redirect to superscript": {":status": "302", "Location": f"http://up.example:{SUPERSCRIPT}/"},
    "pause": {":status": "503", "Retry-After": "\xff"},
    "pause superscript": {":status": "503", "Retry-After": SUPERSCRIPT},
    "pause without end": {":status": "503", "Retry-After": "1e999"},
    "range": {"Content-Range": "\xff"},
}


def surprise(headers: dict[str, str]) -> Fault:
    fields = {name: value for name, value in headers.items() if name != ":status"}
    return Fault(headers=fields, status=int(headers[":status"]) if ":status" in headers else None)


@pytest.mark.parametrize("headers", SURPRISES.values(), ids=SURPRISES)
@pytest_twisted.ensureDeferred
async def test_bytes_that_no_header_should_have_are_a_failed_attempt_and_the_second_mirror_answers(
    make_upstream: Make, serve: Serve, headers: dict[str, str]
) -> None:
    mirrors = [make_upstream(), make_upstream()]
    for each in mirrors:
        fill(each, "p")
    mirrors[0].script("*", surprise(headers))
    proxy = await serve(*mirrors)
    assert await harm(proxy, "p") == []
    for path in ("/pypi/p/json", "/simple/"):
        assert (await proxy.get(path, Accept="application/json, */*")).status == 200


@pytest.mark.parametrize("headers", SURPRISES.values(), ids=SURPRISES)
@pytest_twisted.ensureDeferred
async def test_bytes_that_no_header_should_have_leave_the_cached_page_in_use(
    upstream: FakeUpstream, serve: Serve, headers: dict[str, str]
) -> None:
    fill(upstream, "p", "q")
    proxy = await serve(upstream, limits=PageLimits(ttl=0.0, soft_deadline=1.0))
    await proxy.page("p")
    upstream.script("/simple/*", surprise(headers))
    for _ in range(3):
        assert [each["filename"] for each in (await proxy.page("p"))["files"]] == [filename("p")]
    assert (await proxy.get("/simple/q/")).status in (200, 503)


@pytest.mark.parametrize("headers", SURPRISES.values(), ids=SURPRISES)
@pytest_twisted.ensureDeferred
async def test_bytes_that_no_header_should_have_on_one_page_harm_no_others(
    upstream: FakeUpstream, serve: Serve, headers: dict[str, str], logged: list[LogEvent]
) -> None:
    healthy = [f"p{number}" for number in range(6)]
    fill(upstream, "bad", *healthy)
    upstream.script("*bad*", surprise(headers))
    proxy = await serve(upstream)
    for project in healthy:
        reply = await proxy.get("/simple/bad/")
        assert reply.status in (200, 503), reply
        assert await harm(proxy, project) == []
    assert [each for each in logged if "bug" in str(each.get("log_format"))] == []

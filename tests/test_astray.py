"""An index URL without ``simple/``, or of another product: installers and operators learn the right one, as do all others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.logger import LogEvent

from proxy.settings import IndexSettings
from tests.inprocess import Start
from tests.support.browser import Page
from tests.support.clients import Scratch, pip_install, uv_pip_install
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess
from tests.support.wheels import wheel

SIX = wheel("six", "1.0")
#: What installers send, as they sent it to this proxy.
SIMPLE = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
INSTALLERS = {
    "pip": {"Accept": SIMPLE, "User_Agent": 'pip/26.3 {"ci":null,"cpu":"x86_64"}'},
    "uv": {"Accept": SIMPLE, "User_Agent": 'uv/0.13.9 {"installer":{"name":"uv"}}'},
    "poetry": {"Accept": "*/*", "User_Agent": "poetry/2.2.1 CPython/3.12.1 Linux/6.1"},
    "setuptools": {"Accept": "text/html", "User_Agent": "Python-urllib/3.11 setuptools/65.5"},
    "an installer": {"Accept": SIMPLE, "User_Agent": "something/1"},
}
OTHERS = {
    "a browser": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User_Agent": "Mozilla/5.0 (X11; Linux x86_64)"},
    "curl": {"Accept": "*/*", "User_Agent": "curl/8.1"},
    "nothing at all": {},
}

Install = Callable[..., Awaitable[Scratch]]


def warnings(logged: list[LogEvent]) -> list[str]:
    return [each["log_format"].format(**each) for each in logged if each["log_namespace"] == "proxy.web.astray.Astray"]


@pytest.mark.parametrize("kind", INSTALLERS)
@pytest.mark.parametrize("root", ["/", "/index/pypi/"])
@pytest_twisted.ensureDeferred
async def test_installers_are_redirected_to_the_page_and_the_log_names_the_right_url(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], root: str, kind: str
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = await run(upstream)
    for spelling in ("six", "Six", "six"):
        reply = await proxy.get(f"{root}{spelling}/", Host="proxy.example:3143", **INSTALLERS[kind])
        assert (reply.status, reply.headers["location"]) == (307, "../simple/six/")
        assert reply.headers["cache-control"] == "no-store"
    page = await proxy.get(urljoin(f"{root}six/", reply.headers["location"]), **INSTALLERS[kind])
    assert page.status == 200
    assert warnings(logged) == [
        f"{kind} at 127.0.0.1 uses the URL http://proxy.example:3143{root}, which lacks simple/ at its end: "
        f"it is redirected. Set its index URL to http://proxy.example:3143{root}simple/"
    ]


@pytest.mark.parametrize("kind", OTHERS)
@pytest_twisted.ensureDeferred
async def test_others_get_a_404_that_names_the_right_path(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], kind: str
) -> None:
    proxy = await run(upstream)
    reply = await proxy.get("/Six/", **OTHERS[kind])
    assert reply.status == 404
    told = "there is nothing at /Six/: the page of a project is at /simple/six/"
    if kind == "a browser":
        assert told in [each.text for each in Page(reply, "/Six/").all("p")]
    else:
        assert reply.json["detail"] == told
    assert warnings(logged) == []
    assert upstream.asked == []


#: What devpi, Nexus and Artifactory call an index, and what is often guessed.
ELSEWHERE = ["/root/pypi/+simple/", "/repository/pypi/simple/", "/artifactory/api/pypi/pypi/simple/", "/pypi/simple/", "/pypi/"]


@pytest.mark.parametrize("kind", INSTALLERS)
@pytest.mark.parametrize("url", ELSEWHERE)
@pytest_twisted.ensureDeferred
async def test_the_url_of_another_product_is_answered_404_and_both_sides_learn_the_right_one(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], url: str, kind: str
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = await run(upstream)
    for path in (f"{url}six/", f"{url}app/"):
        reply = await proxy.get(path, Host="proxy.example:3143", **INSTALLERS[kind])
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
        detail = f"there is no index at http://proxy.example:3143{url}: set the index URL to http://proxy.example:3143/simple/"
        assert reply.json["detail"] == detail
        assert reply.reason == f"Not found: {detail}"
    assert warnings(logged) == [
        f"{kind} at 127.0.0.1 uses the URL http://proxy.example:3143{url}, which is no index of this proxy: "
        "it is answered 404. Set its index URL to http://proxy.example:3143/simple/"
    ]
    assert upstream.asked == []


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest_twisted.ensureDeferred
async def test_others_are_told_there_what_they_were_always_told(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], url: str
) -> None:
    reply = await (await run(upstream)).get(f"{url}six/", **OTHERS["curl"])
    there = "there is nothing at this path; indexes are at /simple/ and /index/NAME/simple/"
    assert (reply.status, reply.json["detail"]) == (404, f"{url}six/: {there}")
    assert warnings(logged) == []


@pytest.mark.parametrize("path", ["/simple/six/", "/index/crop/simple/six/"])
@pytest_twisted.ensureDeferred
async def test_an_index_that_is_not_at_the_root_or_is_misspelt_is_named(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], path: str
) -> None:
    proxy = await run(upstream, indexes=(IndexSettings(name="corp", upstreams=("up0",)),))
    reply = await proxy.get(path, Host="proxy.example", **INSTALLERS["pip"])
    assert reply.status == 404
    assert reply.json["detail"].endswith("set the index URL to http://proxy.example/index/corp/simple/")
    assert [each.rpartition(" ")[2] for each in warnings(logged)] == ["http://proxy.example/index/corp/simple/"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/files/", "files are not listed here; the page of a project, at /simple/PROJECT/, links to its files"),
        (
            "/index/pypi/packages/",
            "files are not listed here; the page of a project, at /index/pypi/simple/PROJECT/, links to its files",
        ),
        ("/pypi/", "the index is at /simple/, and the JSON document of a project at /pypi/PROJECT/json"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_folder_of_the_proxy_is_not_taken_for_a_project(
    upstream: FakeUpstream, run: Start, path: str, hint: str
) -> None:
    proxy = await run(upstream)
    reply = await proxy.get(path, **OTHERS["curl"])
    assert (reply.status, reply.json["detail"]) == (404, f"there is nothing at {path}: {hint}")
    assert (await proxy.get(path, **INSTALLERS["pip"])).status == 307


@pytest_twisted.ensureDeferred
async def test_each_program_at_an_address_and_each_of_its_mistakes_is_told_of(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    proxy = await run(upstream)
    for kind in ("pip", "uv"):
        for path in ("/six/", "/root/pypi/+simple/six/", "/app/", "/repository/x/simple/six/"):
            await proxy.get(path, **INSTALLERS[kind])
    told = [(each.split()[0], "lacks simple/" in each) for each in warnings(logged)]
    assert told == [("pip", True), ("pip", False), ("uv", True), ("uv", False)]


@pytest_twisted.ensureDeferred
async def test_behind_trusted_proxies_each_client_is_told_of_once(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    proxy = await run(upstream, trusted_proxies=("127.0.0.1",))
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        await proxy.get("/six/", X_Forwarded_For=address, **INSTALLERS["pip"])
    assert [each.split()[2] for each in warnings(logged)] == ["192.0.2.1", "192.0.2.2"]


@pytest_twisted.ensureDeferred
async def test_what_is_no_host_is_in_no_log_line(upstream: FakeUpstream, run: Start, logged: list[LogEvent]) -> None:
    proxy = await run(upstream)
    await proxy.get("/six/", Host="a;b='c'", **INSTALLERS["pip"])
    assert "http://localhost/simple/" in warnings(logged)[0]
    assert "b='c'" not in warnings(logged)[0]


@pytest.mark.parametrize("path", ["/simple/six", "/index/pypi/simple/six", "/simple//six/"])
@pytest_twisted.ensureDeferred
async def test_a_right_url_in_another_form_is_no_mistake(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], path: str
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = await run(upstream)
    reply = await proxy.get(path, **INSTALLERS["pip"])
    assert (reply.status, urljoin(path, reply.headers["location"])[-12:]) == (307, "/simple/six/")
    assert warnings(logged) == []


@pytest_twisted.ensureDeferred
async def test_where_no_index_is_at_the_root_nobody_is_sent_anywhere(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, indexes=(IndexSettings(name="corp", upstreams=("up0",)),))
    assert (await proxy.get("/six/", **INSTALLERS["pip"])).status == 404
    assert (await proxy.get("/index/corp/six/", **INSTALLERS["pip"])).headers["location"] == "../simple/six/"


#: pip, which takes long to start, asks for the same with and without a slash at the end.
WRONG = {uv_pip_install: ("", "/", "/index/pypi", "/index/pypi/", "/simple"), pip_install: ("", "/index/pypi/", "/simple")}


@pytest.mark.parametrize(("install", "wrong"), [(install, wrong) for install, those in WRONG.items() for wrong in those])
@pytest_twisted.ensureDeferred
async def test_real_installers_install_with_an_index_url_that_is_not_quite_right(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path, install: Install, wrong: str
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata)
    app = wheel("app", requires=["six"])
    upstream.add_file("app", app.filename, app.data, metadata=app.metadata)
    proxy = await make_proxy(upstream.url).started()
    base = proxy.url.removesuffix("/simple/")
    scratch = await install(tmp_path, base + wrong, "app")
    assert scratch.installed == {"app": "1.0", "six": "1.0"}
    await proxy.stop()
    assert proxy.log.count("lacks simple/ at its end") == (wrong != "/simple")

"""What a person sees who opens the proxy in a browser, and what programs get at the same paths."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.logger import LogEvent

from proxy import __version__
from proxy.core.clients import CLIENTS, Address, settings
from proxy.settings import IndexSettings
from tests.inprocess import Running, Start
from tests.support.browser import BROWSER, Page
from tests.support.fake_upstream import FakeUpstream

HOST = "build-host.example:3143"
PAGES = ["/", "/index/", "/index/pypi/", "/-/"]
PIP = {"Accept": "application/vnd.pypi.simple.v1+json, text/html; q=0.01", "User_Agent": "pip/26.3"}


async def seen(proxy: Running, path: str, **headers: str) -> Page:
    reply = await proxy.get(path, **{"Host": HOST, **BROWSER, **headers})
    assert reply.status == 200, reply
    return Page(reply, path)


@pytest.mark.parametrize("path", PAGES)
@pytest_twisted.ensureDeferred
async def test_a_browser_gets_a_page_that_is_complete_and_whose_links_lead_somewhere(
    upstream: FakeUpstream, run: Start, path: str
) -> None:
    proxy = await run(upstream)
    page = await seen(proxy, path)
    assert list(page.faults()) == []
    assert (page.reply.headers["cache-control"], page.reply.headers["vary"]) == ("no-store", "Accept")
    assert page.links
    for text, target in page.links.items():
        assert (await proxy.get(target, **BROWSER)).status == 200, text
    head = await proxy.head(path, Host=HOST, **BROWSER)
    assert (head.status, head.headers["content-length"]) == (200, str(len(page.reply.body)))


@pytest.mark.parametrize(("path", "index"), [("/", None), ("/index/pypi/", "pypi"), ("/index/corp/", "corp")])
@pytest_twisted.ensureDeferred
async def test_it_has_the_settings_of_every_client_for_this_host(
    upstream: FakeUpstream, run: Start, path: str, index: str | None
) -> None:
    indexes = tuple(IndexSettings(name=name, upstreams=("up0",), default=name == "pypi") for name in ("corp", "pypi"))
    page = await seen(await run(upstream, indexes=indexes), path)
    address = Address.of(f"http://{HOST}", index)
    blocks = [each.text for each in page.all("pre")]
    assert blocks[0] == address.index
    expected = []
    for client in CLIENTS:
        if client == "bandersnatch" and index is not None:
            assert "bandersnatch can mirror the default index alone" in page.text
        else:
            expected += [each.text.rstrip() for each in settings(client, address)]
    assert blocks[1:] == expected
    assert [each.text for each in page.all("summary")] == list(CLIENTS)
    assert {"pypi", "corp"} <= page.links.keys()
    assert f"pypiproxy {__version__}" in page.text


@pytest.mark.parametrize(
    ("trusted", "headers", "url"),
    [
        ((), {"X_Forwarded_Proto": "https"}, f"http://{HOST}/simple/"),
        (("127.0.0.1",), {"X_Forwarded_Proto": "https"}, f"https://{HOST}/simple/"),
        (("127.0.0.1",), {"X_Forwarded_Proto": "https, http"}, f"https://{HOST}/simple/"),
        ((), {"X_Forwarded_Host": "forged.example"}, f"http://{HOST}/simple/"),
        (
            ("127.0.0.1",),
            {"X_Forwarded_Host": "packages.example", "X_Forwarded_Proto": "https"},
            "https://packages.example/simple/",
        ),
        (("127.0.0.1",), {"X_Forwarded_Host": "packages.example, inner"}, "http://packages.example/simple/"),
        (("127.0.0.1",), {"X_Forwarded_Host": "<b>"}, "http://localhost/simple/"),
        ((), {"Host": "[2001:db8::1]:3143"}, "http://[2001:db8::1]:3143/simple/"),
        ((), {"Host": "[:::::]"}, "http://localhost/simple/"),
        ((), {"Host": "a'b;c"}, "http://localhost/simple/"),
        ((), {"Host": "&lt;"}, "http://localhost/simple/"),
        (("127.0.0.1",), {"X_Forwarded_Proto": "javascript"}, f"http://{HOST}/simple/"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_url_is_the_one_that_the_browser_has_and_nothing_that_is_no_url(
    upstream: FakeUpstream, run: Start, trusted: tuple[str, ...], headers: dict[str, str], url: str
) -> None:
    page = await seen(await run(upstream, trusted_proxies=trusted), "/", **headers)
    assert page.all("pre")[0].text == url
    assert list(page.faults()) == []


@pytest_twisted.ensureDeferred
async def test_health_is_told_in_words_as_probes_are_told_it(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    assert "Ready: everything works." in (await seen(proxy, "/")).text
    await upstream.close()
    for name in ("a", "b", "c"):
        await proxy.get(f"/simple/{name}/")
    degraded = (await proxy.get("/-/ready")).body.decode().removeprefix("degraded: ").strip()
    assert "no upstream answers for pypi" in degraded
    page = await seen(proxy, "/")
    assert "Degraded: builds are served" in page.text
    # The words may name what only the host itself should know.
    assert "upstream down" in page.text
    assert degraded not in page.text
    assert (await proxy.get("/")).json["degraded"] == ["upstream-down"]


@pytest.mark.parametrize("accept", ["application/json", "*/*", None])
@pytest_twisted.ensureDeferred
async def test_programs_get_json(upstream: FakeUpstream, run: Start, accept: str | None) -> None:
    indexes = tuple(IndexSettings(name=name, upstreams=("up0",), default=name == "pypi") for name in ("corp", "pypi"))
    proxy = await run(upstream, indexes=indexes)
    headers = {"Host": HOST} if accept is None else {"Host": HOST, "Accept": accept}
    for path in ("/", "/index/", "/index/corp/"):
        reply = await proxy.get(path, **headers)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json == {
            "service": "pypiproxy",
            "version": __version__,
            "ready": True,
            "degraded": [],
            "indexes": [
                {"name": "pypi", "kind": "proxy", "default": True, "url": f"http://{HOST}/simple/"},
                {"name": "corp", "kind": "proxy", "default": False, "url": f"http://{HOST}/index/corp/simple/"},
            ],
        }
    listed = (await proxy.get("/-/", **headers)).json
    for path in listed:
        assert (await proxy.get(path)).status == 200


@pytest_twisted.ensureDeferred
async def test_where_no_index_is_at_the_root_the_page_leads_to_those_that_there_are(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, indexes=(IndexSettings(name="corp", upstreams=("up0",)),))
    page = await seen(proxy, "/")
    assert "No index is served at the root of this host" in page.text
    assert page.links["corp"] == "/index/corp/"
    assert list(page.faults()) == []
    assert (await seen(proxy, "/index/corp/")).all("pre")[0].text == f"http://{HOST}/index/corp/simple/"


@pytest.mark.parametrize("path", ["/index", "/-", "/index/pypi"])
@pytest_twisted.ensureDeferred
async def test_a_slash_that_is_missing_is_added(upstream: FakeUpstream, run: Start, path: str) -> None:
    proxy = await run(upstream)
    reply = await proxy.get(path, **BROWSER)
    assert (reply.status, urlsplit(reply.headers["location"]).path) == (307, f"{path.rpartition('/')[2]}/")


@pytest_twisted.ensureDeferred
async def test_browsers_are_told_for_a_day_that_there_is_no_icon(upstream: FakeUpstream, run: Start) -> None:
    reply = await (await run(upstream)).get("/favicon.ico", **BROWSER)
    assert (reply.status, reply.body, reply.headers["cache-control"]) == (204, b"", "max-age=86400")


@pytest.mark.parametrize("path", ["/", "/index/pypi/"])
@pytest_twisted.ensureDeferred
async def test_an_installer_at_the_root_learns_the_url_of_the_index(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], path: str
) -> None:
    proxy = await run(upstream)
    reply = await proxy.get(path, Host=HOST, **PIP)
    assert reply.status == 404
    assert reply.json["detail"] == f"nothing is listed at {path}: the URL of the index is http://{HOST}{path}simple/"
    (warning,) = [each for each in logged if each["log_namespace"] == "proxy.web.astray.Astray"]
    assert warning["right"] == f"http://{HOST}{path}simple/"

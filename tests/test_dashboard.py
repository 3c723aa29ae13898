"""The dashboard as a browser gets it without JavaScript, its stream of events, and what it shows to whom."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from urllib.parse import urldefrag

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.logger import LogEvent

from proxy.access.rights import OpenReading
from proxy.core.uploads import Uploaded
from proxy.settings import AccessSettings, GrantSettings, IndexSettings
from proxy.web.dashboard.descriptions import described, rendered
from proxy.web.dashboard.plots import PlotBar, plot
from proxy.web.dashboard.rendering import RendererFailed, html_of
from proxy.web.hypertext import markup_bytes
from tests.hosting import hosted, upload
from tests.inprocess import JSON, LOOPBACK, Running, Start
from tests.support import wire
from tests.support.browser import BROWSER, Page
from tests.support.counter import post
from tests.support.fake_upstream import FakeUpstream
from tests.support.faults import Fault
from tests.support.logins import basic, write_users
from tests.support.wheels import Distribution, wheel

SIX = wheel("six", "1.0")
PAGES = ["/", "/-/setup", "/-/search", "/-/search?q=six", "/-/project/pypi/six"]


def add(upstream: FakeUpstream, *wheels: Distribution) -> None:
    """Have *wheels* at *upstream*."""
    for each in wheels:
        upstream.add_file(each.project, each.filename, each.data)


async def seen(proxy: Running, path: str, status: int = 200, **headers: str) -> Page:
    reply = await proxy.get(path, **{**BROWSER, **headers})
    assert reply.status == status, reply
    return Page(reply, path)


async def events(proxy: Running, count: int, **headers: str) -> dict[str, str]:
    """The parts that a new stream sends first, *count* of them."""
    client = await proxy.connect("/-/events", **headers)
    try:
        await client.until(lambda: client.body.count(b"event: part") >= count and client.body.endswith(b"\n\n\r\n"))
        assert b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in client.received
        said = [json.loads(each) for each in re.findall(rb"data: (\{.*\})\n\n", client.body)]
        return {each["id"]: each["html"] for each in said}
    finally:
        await client.close()


@pytest.mark.parametrize("path", PAGES)
@pytest_twisted.ensureDeferred
async def test_each_page_is_complete_without_javascript_and_its_links_lead_somewhere(
    upstream: FakeUpstream, run: Start, path: str
) -> None:
    add(upstream, SIX)
    proxy = await run(upstream)
    await proxy.page("six")
    page = await seen(proxy, path)
    assert list(page.faults()) == []
    for text, target in page.links.items():
        assert (await proxy.get(target.partition("#")[0], **BROWSER)).status == 200, text


@pytest_twisted.ensureDeferred
async def test_the_stylesheet_and_the_script_are_kept_by_browsers_and_change_their_names(
    upstream: FakeUpstream, run: Start
) -> None:
    proxy = await run(upstream)
    page = await seen(proxy, "/")
    (script,) = page.all("script")
    (style,) = page.all("link")
    for path, media in ((script.attributes["src"], "text/javascript"), (style.attributes["href"], "text/css")):
        reply = await proxy.get(f"/{path}")
        assert reply.headers["content-type"].startswith(media)
        assert "immutable" in reply.headers["cache-control"]
        again = await proxy.get(f"/{path}", If_None_Match=reply.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    assert (await proxy.get("/-/static/0000/dashboard.css")).status == 404


@pytest_twisted.ensureDeferred
async def test_what_happens_is_on_the_page_and_on_the_stream(upstream: FakeUpstream, run: Start) -> None:
    add(upstream, SIX)
    proxy = await run(upstream, max_size=10_000_000)
    for _ in range(4):
        await proxy.page("six")
    assert (await proxy.get(await proxy.link("six", SIX.filename))).status == 200
    page = await seen(proxy, "/")
    for words in ("Ready: everything works.", "No file is being downloaded.", "127.0.0.1", "Nothing went wrong", "10.0 MB"):
        assert words in page.text, words
    assert page.links["six"] == "/-/project/pypi/six"
    assert "Hit rate66.7%" in page.text
    parts = await events(proxy, 7)
    assert {"health", "savings", "busy", "problems", "downloads", "upstreams", "disk"} == parts.keys()
    for name, html in parts.items():
        assert f'id="{name}"' in page.reply.body.decode()
        assert "<script" not in html
    assert "six" in parts["busy"]


@pytest_twisted.ensureDeferred
async def test_problems_of_one_kind_share_a_row_however_many_names_they_are_about(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    upstream.script("GET *", Fault(status=500))
    for number in range(12):
        assert (await proxy.get(f"/simple/invented-{number}/", Accept=JSON)).status == 503
    page = await seen(proxy, "/")
    (problems,) = [each for each in page.all("div") if each.attributes.get("aria-label", "").startswith("Problems of")]
    assert len(re.findall(r"invented-\d+", problems.text)) <= 9  # three of each kind
    assert "and 9 others" in problems.text


@pytest_twisted.ensureDeferred
async def test_a_download_is_shown_with_its_progress_while_it_lasts(upstream: FakeUpstream, run: Start) -> None:
    big = wheel("big", "1.0", size=300_000)
    add(upstream, big)
    proxy = await run(upstream)
    link = await proxy.link("big", big.filename)
    upstream.script(f"GET */{big.filename}", Fault(stall_after=100_000), times=1)
    client = await proxy.connect(link)
    await client.got_body(50_000)
    page = await seen(proxy, "/")
    (progress,) = page.all("progress")
    assert progress.attributes["aria-label"] == big.filename
    assert 0 < int(progress.attributes["value"]) <= int(progress.attributes["max"]) == len(big.data)
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_project_has_its_files_and_what_is_cached_of_them(upstream: FakeUpstream, run: Start) -> None:
    newer = wheel("six", "2.0")
    add(upstream, SIX, newer)
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("six", SIX.filename))).status == 200
    await proxy.service.administration.perform("pin", project="six")
    page = await seen(proxy, "/-/project/pypi/Six")
    assert "2 versions with 2 files" in page.text
    assert "1 of them cached" in page.text
    assert page.text.index(newer.filename) < page.text.index(SIX.filename)
    assert page.text.count("not cached") == 1
    assert "pinned" in page.text
    assert (await proxy.get("/-/project/pypi/nowhere", **BROWSER)).status == 404
    assert (await proxy.get("/-/project/nowhere/six", **BROWSER)).status == 404
    assert (await proxy.get("/-/project/pypi/..%2F..", **BROWSER)).status == 404


@pytest_twisted.ensureDeferred
async def test_a_private_name_is_shown_to_those_alone_who_may_read_it(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    indexes = (
        IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False),
        hosted("corp", default=False),
    )
    grants = (GrantSettings(role="reader", principals=("user:alice",), indexes=("corp",)),)
    proxy = await run(
        upstream,
        indexes=indexes,
        access=AccessSettings(users_file=write_users(tmp_path / "users", "alice", "bob")),
        grants=grants,
    )
    secret = wheel("secret-lib", "1.0", description="About the secret.")
    assert await upload(proxy.service.receiving["corp"], secret, by="user:alice") is Uploaded.NEW
    alice, bob = basic("alice", "alice!"), basic("bob", "bob!")
    assert (await proxy.get("/index/corp/simple/secret-lib/", Accept=JSON, Authorization=alice)).status == 200
    hidden = "/-/project/corp/secret-lib"
    page = await seen(proxy, hidden, Authorization=alice)
    assert {"About the secret.", secret.filename} <= {each.text for each in page.elements}
    assert "secret-lib" in (await seen(proxy, "/-/search?q=secret", Authorization=alice)).links
    assert "secret-lib" in (await events(proxy, 7, Authorization=alice))["busy"]
    for headers, status in (({}, 401), ({"Authorization": bob}, 404)):
        for path in ("/", "/-/search", "/-/search?q=lib"):
            assert b"secret-lib" not in (await proxy.get(path, **BROWSER, **headers)).body
        assert "secret-lib" not in str(await events(proxy, 7, **headers))
        there, elsewhere = [await proxy.get(path, **BROWSER, **headers) for path in (hidden, "/-/project/corp/nowhere")]
        assert there.status == elsewhere.status == status
        bodies = [each.body.replace(each.headers["x-request-id"].encode(), b"ID") for each in (there, elsewhere)]
        assert bodies[0].replace(b"secret-lib", b"nowhere") == bodies[1]
    assert (await proxy.get("/", **BROWSER, Authorization=basic("alice", "wrong"))).status == 401


@pytest_twisted.ensureDeferred
async def test_how_the_service_stands_is_for_those_who_may_read_its_metrics(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, metrics_for=("authenticated",))
    page = await seen(proxy, "/")
    headings = {each.attributes["id"] for each in page.all("h2") if "id" in each.attributes}
    assert headings == {"savings-heading", "busy-heading", "problems-heading"}
    assert "127.0.0.1" not in str(await events(proxy, 4))


@pytest_twisted.ensureDeferred
async def test_streams_are_limited_and_end_when_the_service_stops(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, max_connections=16)  # a quarter of them may be streams
    clients = [await proxy.connect("/-/events") for _ in range(4)]
    for each in clients:
        await each.until(lambda each=each: b"event: part" in each.received)  # type: ignore[misc]  # it waits here
    refused = await proxy.get("/-/events")
    assert (refused.status, "4 dashboards are kept live already" in refused.json["detail"]) == (503, True)
    await clients.pop().close()
    again = await proxy.connect("/-/events")
    await again.until(lambda: b"event: part" in again.received)
    await proxy.stop()
    for each in (*clients, again):
        assert each.body.endswith(b"0\r\n\r\n")  # it has ended as a whole answer does


@pytest_twisted.ensureDeferred
async def test_no_address_keeps_others_from_dashboards_that_are_kept_live(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, max_connections=16, trusted_proxies=("127.0.0.1",))

    async def begun(address: str) -> wire.Client:
        client = await proxy.connect("/-/events", X_Forwarded_For=address)
        await client.until(lambda: b"event: part" in client.received)
        return client

    crowd = [await begun(f"2001:db8::{number}") for number in range(4)]  # one client may have all of these
    other = await begun("192.0.2.2")
    await crowd[-1].until(lambda: crowd[-1].body.endswith(b"\r\n0\r\n\r\n"))
    assert not any(each.body.endswith(b"\r\n0\r\n\r\n") for each in (*crowd[:-1], other))
    refused = await proxy.get("/-/events", X_Forwarded_For="2001:db8::9")
    assert (refused.status, "3 of them for your address" in refused.json["detail"]) == (503, True)
    assert refused.headers["retry-after"]
    for each in (*crowd, other):
        await each.close()


@pytest_twisted.ensureDeferred
async def test_it_can_be_switched_off(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, dashboard=False)
    page = await seen(proxy, "/")
    assert list(page.faults()) == []
    assert (page.all("script"), page.all("pre")[0].text) == ([], "http://proxy.example/simple/")
    for path in ("events", "search", "setup", "project/pypi/six"):
        assert (await proxy.get(f"/-/{path}", **BROWSER)).status == 404


@pytest_twisted.ensureDeferred
async def test_it_can_have_a_listener_of_its_own(upstream: FakeUpstream, run: Start) -> None:
    add(upstream, SIX)
    proxy = await run(upstream, dashboard_listen=(LOOPBACK,), max_connections=16)
    await proxy.page("six")
    front = await seen(proxy, "/")  # the settings for clients, as where there is no dashboard
    assert (front.all("script"), front.all("pre")[0].text) == ([], "http://proxy.example/simple/")
    for path in ("events", "search", "login", "setup", "static/x/dashboard.css", "project/pypi/six"):
        assert (await proxy.get(f"/-/{path}", **BROWSER)).status == 404
    assert (await post(proxy.port, "/-/act", b"action=purge", "application/x-www-form-urlencoded")).status == 413
    ((port,),) = (each.ports for each in proxy.service.dashboard_listenings)
    number = port.getHost().port  # type: ignore[attr-defined]  # a TCP port's address has one

    async def there(path: str, status: int = 200) -> Page:
        reply = await wire.fetch(number, path, **BROWSER)
        assert reply.status == status, (path, reply)
        return Page(reply, path)

    for path in ("/", "/-/search?q=six", "/-/project/pypi/six", "/-/login"):
        page = await there(path)
        assert list(page.faults()) == []
        for target in {urldefrag(each).url for each in page.links.values()}:
            assert (await wire.fetch(number, target, **BROWSER)).status == 200, (path, target)
    assert "pypi" in (await there("/")).text
    for path in ("/simple/", "/simple/six/", "/index/pypi/", "/index/", "/-/ready", "/-/metrics", "/-/setup", "/nothing"):
        assert "serves the dashboard and nothing else" in (await there(path, 404)).text or path == "/-/setup"
    assert (await wire.fetch(number, "/-/", **BROWSER)).headers["location"] == "../"
    assert (await wire.fetch(number, "/favicon.ico")).status == 204
    assert (await wire.fetch(number, "/", "DELETE")).status == 405
    # Its connections are not those of clients.
    clients = [await wire.ask(number, "/-/events") for _ in range(5)]
    for each in clients:
        await each.until(lambda each=each: b"event: part" in each.received)  # type: ignore[misc]  # it waits here
    # It is switched off and on by a reload, which ends what was kept live.
    settings = proxy.service.settings
    proxy.service.succeed(replace(settings, server=replace(settings.server, dashboard=False)))
    for each in clients:
        await each.until(lambda each=each: each.body.endswith(b"0\r\n\r\n"))  # type: ignore[misc]
    assert "switched off: server.dashboard" in (await there("/", 404)).text
    proxy.service.succeed(settings)
    assert "Ready: everything works." in (await there("/")).text
    last = await wire.ask(number, "/-/events")
    await last.until(lambda: b"event: part" in last.received)
    await proxy.stop()
    assert last.body.endswith(b"0\r\n\r\n")


class ImportThreads:
    """A finder of modules that finds none, and notes which thread looks for *name*."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[int] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.name:
            self.seen.append(threading.get_ident())


@pytest.mark.parametrize("apart", [False, True])
@pytest_twisted.ensureDeferred
async def test_whatever_is_requested_first_it_is_loaded_in_a_thread(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    threads = ImportThreads("proxy.composition.dashboard")
    monkeypatch.delitem(sys.modules, threads.name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [threads, *sys.meta_path])
    proxy = await run(upstream, dashboard_listen=(LOOPBACK,) if apart else ())
    ports = [each.ports[0].getHost().port for each in proxy.service.dashboard_listenings]  # type: ignore[attr-defined]  # as above
    reply = await wire.fetch(ports[0] if apart else proxy.port, "/-/search", **BROWSER)
    assert reply.status == 200
    assert len(threads.seen) == 1
    assert threading.get_ident() not in threads.seen


# -- descriptions -------------------------------------------------------------------------------------------------------------


def shown(text: str, kind: str) -> str:
    metadata = f"Metadata-Version: 2.1\nName: x\nVersion: 1\nDescription-Content-Type: {kind}\n\n{text}"
    return markup_bytes(*described(metadata.encode(), rendered(metadata.encode()))).decode()


def test_a_description_is_shown_as_the_public_index_shows_it() -> None:
    markdown = shown("# Title\n\n| a | b |\n|---|---|\n| 1 | [x](https://x.example/) |\n", "text/markdown")
    assert "<h3>Title" in markdown
    assert '<a href="https://x.example/" rel="nofollow noopener noreferrer">x</a>' in markdown
    assert "<table>" in markdown
    assert markdown.count("<a") == 1  # the one that the renderer adds to a heading leads to a place that is not there
    assert "<strong>bold</strong>" in shown("some **bold** words", "text/x-rst")
    assert shown("1 < 2", "text/plain") == "<pre>1 &lt; 2</pre>"
    assert shown("`unclosed\n====", "text/x-rst").startswith("<pre>")


@pytest.mark.parametrize("kind", ["text/markdown", "text/x-rst", "text/plain", "nonsense/x"])
@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '<img src="https://x.example/a.png" onerror="alert(1)">',
        '<a href="javascript:alert(1)" onclick="alert(1)">x</a>',
        "[x](javascript:alert(1))",
        "`x <javascript:alert(1)>`_",
        "![x](https://x.example/a.png)",
        '<p style="position: fixed" id="live">x</p>',
        "<form action=/-/act><button>x</button></form>",
        ".. raw:: html\n\n   <script>alert(1)</script>",
        ".. include:: /etc/passwd",
    ],
)
def test_nothing_in_a_description_acts_or_is_loaded(hostile: str, kind: str) -> None:
    html = shown(hostile, kind)
    for tag in re.findall(r"<[^>]*>", html):
        assert not re.search(r"(?i)<(script|img|form|button|iframe|style)|javascript:| on\w+=| style=| id=| src=", tag), tag
    assert "root:" not in html


def test_a_description_that_takes_too_long_or_is_too_much_is_shown_as_it_is_written() -> None:
    def made(text: str, kind: str, head: str = "", computes: int = 2) -> tuple[bytes, str]:
        metadata = f"Name: x\n{head}Description-Content-Type: {kind}\n\n{text}".encode()
        html = html_of(metadata, computes=computes)
        return html, markup_bytes(*described(metadata, html)).decode()

    assert made("*a*", "text/markdown")[1].strip() == "<p><em>a</em></p>"
    html, page = made(">" * 200_000, "text/markdown", computes=1)
    assert (html, page.startswith("<pre>")) == (b"", True)
    deep = "\n".join(" " * level + "a\n" for level in range(600))
    assert made(deep, "text/x-rst")[0] == b""  # too deep for the renderer
    html, page = made("> " * 150 + "a", "text/markdown")
    assert (html != b"", page.startswith("<pre>")) == (True, True)
    parts = "--x\n\na part\n--x--\n"
    assert made(parts, "text/markdown", "Content-Type: multipart/mixed; boundary=x\n") == (b"", "")


@pytest_twisted.ensureDeferred
async def test_descriptions_are_shown_as_they_are_written_while_no_process_can_render_them(
    serve: Start, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = await serve(indexes=(hosted("corp"),), rights=OpenReading())
    made = wheel("lib", "1.0", description="About *it* <b>.")
    assert await upload(proxy.service.receiving["corp"], made) is Uploaded.NEW
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module named proxy' >&2\nexit 1\n")
    broken.chmod(0o755)
    for python, why in ((tmp_path / "missing", "No such file or directory"), (broken, "no module named proxy")):
        monkeypatch.setattr("sys.executable", str(python))
        page = await seen(proxy, "/-/project/corp/lib")
        assert list(page.faults()) == []
        assert "About *it* <b>." in [each.text.strip() for each in page.all("pre")]
        with pytest.raises(RendererFailed, match=why):
            html_of(made.metadata)
    # Once per minute.
    assert len([each for each in logged if "are written" in each.get("log_format", "")]) == 1
    monkeypatch.undo()
    assert "it" in [each.text for each in (await seen(proxy, "/-/project/corp/lib")).all("em")]


def test_what_renders_descriptions_knows_no_secrets_of_the_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORP_PASSWORD", "hunter2")
    spy = tmp_path / "python"
    spy.write_text("#!/bin/sh\nexport\n")
    spy.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(spy))
    environment = html_of(b"Name: x\n")
    assert b"PYTHONPATH" in environment
    assert b"hunter2" not in environment


@given(st.text(), st.sampled_from(["text/markdown", "text/plain"]))
def test_any_description_becomes_well_formed_markup(text: str, kind: str) -> None:
    metadata = f"Name: x\nDescription-Content-Type: {kind}\n\n".encode() + text.encode("utf-8", "ignore")
    html = markup_bytes(*described(metadata, rendered(metadata)))
    opened: list[str] = []
    for end, name, empty in re.findall(r"<(/?)([a-z0-9]+)[^>]*?(/?)>", html.decode()):
        if end:
            assert opened.pop() == name
        elif not empty:
            opened.append(name)
    assert opened == []


@given(st.lists(st.none() | st.floats(allow_nan=False), max_size=30))
def test_every_bar_is_inside_of_its_plot(shares: list[float | None]) -> None:
    html = markup_bytes(plot("T", "s", [PlotBar(str(place), share, "w") for place, share in enumerate(shares)])).decode()
    heights = [(float(y), float(h)) for y, h in re.findall(r'<rect[^>]* y="([^"]+)"[^>]* height="([^"]+)"', html)]
    assert all(y >= 0 and y + h <= 120.1 for y, h in heights)

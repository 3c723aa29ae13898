"""The list of projects: a page with a search field for browsers, and for installers what it has always been."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from tests.inprocess import JSON, Running, Start
from tests.support.browser import ACCEPT, BROWSER, Page
from tests.support.fake_upstream import FakeUpstream

CACHED = ["six", "zope", "zope-event", "zope-interface", "my-zope"]
HTML = "application/vnd.pypi.simple.v1+html"
#: What installers and their libraries accept, and which form of the list that is.
INSTALLERS = {
    f"{JSON}, {HTML}; q=0.1, text/html; q=0.01": JSON,
    f"{JSON}, {HTML};q=0.2, text/html;q=0.01": JSON,
    HTML: HTML,
    "text/html": "text/html; charset=utf-8",
    "text/html, */*;q=0.1": "text/html; charset=utf-8",
    "*/*": "text/html; charset=utf-8",
    "application/xhtml+xml;q=0, */*": "text/html; charset=utf-8",
}


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    """An upstream with some projects, and one that nobody asks for."""
    for name in [*CACHED, "unknown"]:
        upstream.add_file(name, f"{name.replace('-', '_')}-1.0.tar.gz", name.encode())
    return upstream


async def filled(proxy: Running) -> Running:
    for name in CACHED:
        assert (await proxy.get(f"/simple/{name}/")).status == 200
    assert (await proxy.get("/simple/nothing/")).status == 404
    return proxy


async def shown(proxy: Running, path: str = "/simple/") -> Page:
    reply = await proxy.get(path, **BROWSER)
    assert reply.status == 200, reply
    return Page(reply, path)


def projects(page: Page) -> list[str]:
    """The projects in the list on *page*, in its order."""
    listed = {each.text for each in page.all("li")}
    return [text for text in page.links if text in listed]


@pytest.mark.parametrize("path", ["/simple/", "/index/pypi/simple/"])
@pytest_twisted.ensureDeferred
async def test_a_browser_sees_what_is_cached_and_upstream_is_not_asked(stocked: FakeUpstream, run: Start, path: str) -> None:
    proxy = await filled(await run(stocked))
    page = await shown(proxy, path)
    assert list(page.faults()) == []
    assert projects(page) == sorted(CACHED)
    assert "5 projects are cached." in page.text
    assert page.reply.headers["vary"] == "Accept"
    assert stocked.count("/simple/") == 0
    assert (await proxy.head(path, **BROWSER)).headers["content-length"] == str(len(page.reply.body))
    for target in page.links.values():
        assert (await proxy.get(target, **BROWSER)).status == 200


@pytest.mark.parametrize(
    ("wanted", "found", "said"),
    [
        ("six", ["six"], "5 projects are cached; 1 name contains “six”."),
        ("ZOPE", ["zope", "zope-event", "zope-interface", "my-zope"], "4 names contain “ZOPE”."),
        ("Zope_", ["zope-event", "zope-interface"], "2 names contain “Zope_”."),
        ("+zope.e+", ["zope-event"], "1 name contains “zope.e”."),
        ("nothing", [], "0 names contain “nothing”. nothing is not cached. Ask the index for nothing."),
        ("zope.int", ["zope-interface"], "zope-int is not cached. Ask the index for zope-int."),
        ("", sorted(CACHED), "5 projects are cached."),
        ("+++", sorted(CACHED), "5 projects are cached."),
        ("%3Cscript%3Ealert(1)%3C/script%3E", [], "0 names contain “<script>alert(1)</script>”."),
        ("%22%20autofocus%20onfocus=%22x", [], '0 names contain “" autofocus onfocus="x”.'),
        ("%00%0D%0Asix%E2%80%AE", ["six"], "1 name contains “six”."),
        ("%FF%ED%A0%80", [], "0 names contain"),
        ("a" * 7000, [], "contain “" + "a" * 100 + "”"),
        ("six&q=zope", ["six"], "1 name contains “six”."),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_search_field_finds_parts_of_names(
    stocked: FakeUpstream, run: Start, wanted: str, found: list[str], said: str
) -> None:
    page = await shown(await filled(await run(stocked)), f"/simple/?q={wanted}")
    assert list(page.faults()) == []
    assert projects(page) == found
    (main,) = page.all("main")
    assert said.replace(" ", "") in main.text.replace(" ", "")
    (field,) = page.all("input")
    assert (field.attributes["name"], page.all("form")[0].attributes.get("method", "get")) == ("q", "get")
    assert field.attributes["value"] in said or field.attributes["value"] in main.text


@pytest_twisted.ensureDeferred
async def test_a_project_that_is_not_cached_is_one_link_away(stocked: FakeUpstream, run: Start) -> None:
    proxy = await filled(await run(stocked))
    page = await shown(proxy, "/simple/?q=Unknown")
    assert page.links["Ask the index for unknown"] == "/simple/unknown/"
    assert stocked.count("/simple/unknown/") == 0
    assert (await proxy.get("/simple/unknown/", **BROWSER)).status == 200
    assert projects(await shown(proxy, "/simple/?q=unknown")) == ["unknown"]


@pytest_twisted.ensureDeferred
async def test_of_many_projects_the_first_are_shown_and_others_can_be_found(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    names = [f"project-{number:03}" for number in range(203)]
    for name in names:
        upstream.add_file(name, f"{name.replace('-', '_')}-1.0.tar.gz", b"x")
        assert (await proxy.get(f"/simple/{name}/")).status == 200
    page = await shown(proxy)
    assert projects(page) == names[:200]
    assert "203 projects are cached. The first 200 are shown: search for others." in page.text
    assert projects(await shown(proxy, "/simple/?q=t-202")) == ["project-202"]


@pytest_twisted.ensureDeferred
async def test_it_is_there_while_upstream_is_not(stocked: FakeUpstream, run: Start) -> None:
    proxy = await filled(await run(stocked))
    await stocked.close()
    assert projects(await shown(proxy)) == sorted(CACHED)


@pytest.mark.parametrize("accept", INSTALLERS)
@pytest_twisted.ensureDeferred
async def test_installers_get_the_list_of_all_projects(stocked: FakeUpstream, run: Start, accept: str) -> None:
    proxy = await filled(await run(stocked))
    await shown(proxy)
    reply = await proxy.get("/simple/", Accept=accept)
    assert reply.headers["content-type"] == INSTALLERS[accept]
    if INSTALLERS[accept] == JSON:
        assert {each["name"] for each in json.loads(reply.body)["projects"]} == {*CACHED, "unknown"}
    else:
        assert reply.body.count(b"<a href=") == len(CACHED) + 1
        assert b"<form" not in reply.body
    assert reply.headers["vary"] == "Accept, Accept-Encoding"


@pytest_twisted.ensureDeferred
async def test_a_browser_that_names_a_format_gets_it_as_installers_do(stocked: FakeUpstream, run: Start) -> None:
    proxy = await filled(await run(stocked))
    whole = await proxy.get((await shown(proxy)).links["list of all projects"], **BROWSER)
    assert whole.body == (await proxy.get("/simple/", Accept="text/html")).body
    assert (await proxy.get(f"/simple/?format={JSON.replace('+', '%2B')}", **BROWSER)).headers["content-type"] == JSON
    assert (await proxy.get("/simple/?format=odd", **BROWSER)).status == 406


@pytest_twisted.ensureDeferred
async def test_the_page_of_a_project_is_the_same_for_browsers(stocked: FakeUpstream, run: Start) -> None:
    proxy = await filled(await run(stocked))
    page = await proxy.get("/simple/six/", Accept=ACCEPT)
    assert page.body == (await proxy.get("/simple/six/", Accept="text/html")).body
    assert page.headers["etag"] == (await proxy.get("/simple/six/", Accept="text/html")).headers["etag"]

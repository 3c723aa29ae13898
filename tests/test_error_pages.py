"""Errors in a browser: a page that says what happened and what to do, where programs get problem JSON as ever."""

from __future__ import annotations

import pytest
import pytest_twisted

from proxy.settings import IndexSettings
from tests.inprocess import JSON, Running, Start
from tests.support.browser import BROWSER, Page
from tests.support.fake_upstream import FakeUpstream
from tests.support.wire import Reply, fetch

#: Who is a person, by ``Accept``.
PEOPLE = [
    BROWSER["Accept"],
    "text/html",
    "text/html, application/json",
    "application/json;q=0.9, text/html",
    "application/xhtml+xml;q=0.2",
]
#: Who is a program.
PROGRAMS: list[dict[str, str]] = [
    {},
    {"Accept": "*/*", "User_Agent": "curl/8.1"},
    {"Accept": "application/json, text/html"},
    {"Accept": "application/problem+json, text/html"},
    {"Accept": "text/html;q=0.5, application/json;q=0.9"},
    {"Accept": "text/html;q=0"},
    {"Accept": f"{JSON}, text/html;q=0.01", "User_Agent": "uv/0.13.9"},
    {"Accept": f"text/html, {JSON}"},
    {"Accept": "text/html", "User_Agent": "Python-urllib/3.11 setuptools/65.5"},
]


async def failing(proxy: Running, path: str, status: int, method: str = "GET", **headers: str) -> Page:
    reply = await fetch(proxy.port, path, method, **{**BROWSER, **headers})
    assert reply.status == status, reply
    page = Page(reply, path)
    assert list(page.faults()) == []
    assert (reply.headers["cache-control"], reply.headers["vary"]) == ("no-store", "Accept")
    assert [each.text for each in page.all("h2")] == ["What happened", "What to do"]
    return page


def titled(page: Page) -> str:
    (heading,), (title,) = page.all("h1"), page.all("title")
    assert heading.text == title.text
    return heading.text


@pytest.mark.parametrize("accept", PEOPLE)
@pytest_twisted.ensureDeferred
async def test_people_get_a_page(upstream: FakeUpstream, run: Start, accept: str) -> None:
    page = await failing(await run(upstream), "/nothing", 404, Accept=accept)
    assert titled(page) == "404 Not found"
    assert "/nothing: there is nothing at this path; indexes are at /simple/ and /index/NAME/simple/" in page.text
    assert "Check the spelling of the URL." in page.text


@pytest.mark.parametrize("headers", PROGRAMS)
@pytest_twisted.ensureDeferred
async def test_programs_get_the_same_problem_as_ever(upstream: FakeUpstream, run: Start, headers: dict[str, str]) -> None:
    reply = await (await run(upstream)).get("/nothing", **headers)
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
    assert reply.body == (
        b'{"type":"urn:pypiproxy:problem:not-found","title":"Not found","status":404,'
        b'"detail":"/nothing: there is nothing at this path; indexes are at /simple/ and /index/NAME/simple/",'
        b'"code":"not-found","request_id":"%b"}' % reply.headers["x-request-id"].encode()
    )
    assert {"vary", "content-security-policy"}.isdisjoint(reply.headers)


@pytest.mark.parametrize("path", ["/nothing", "/x/y", "/files/", "/index/other/", "/index/pypi/x/y/z", "/-/other"])
@pytest_twisted.ensureDeferred
async def test_its_links_lead_to_the_start_page_and_to_the_health_checks(upstream: FakeUpstream, run: Start, path: str) -> None:
    proxy = await run(upstream)
    page = await failing(proxy, path, 404)
    assert page.links == {"start page": "/", "health and metrics": "/-/"}


@pytest_twisted.ensureDeferred
async def test_a_page_that_upstream_cannot_give_says_who_was_asked_and_when_to_ask_again(
    upstream: FakeUpstream, run: Start
) -> None:
    proxy = await run(upstream)
    await upstream.close()
    page = await failing(proxy, "/simple/numpy/", 503)
    assert titled(page) == "503 Upstream failed"
    assert "The proxy cannot fetch" in page.text
    assert next(each.text.partition(",")[0] for each in page.all("li")) == "up0: connection refused"
    assert "Reload this page in a few seconds." in page.text
    assert "pypiproxy upstreams" in page.text
    assert page.reply.headers["retry-after"] in ("1", "2")
    assert page.reply.headers["cache-status"] == "pypiproxy; detail=upstream-failed"
    assert page.reply.reason.startswith("Upstream failed: cannot fetch")


@pytest_twisted.ensureDeferred
async def test_a_project_that_there_is_not(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    page = await failing(proxy, "/simple/nothing/", 404)
    plain: Reply = await proxy.get("/simple/nothing/")
    assert plain.json["detail"] in page.text
    assert page.reply.reason == plain.reason


@pytest_twisted.ensureDeferred
async def test_what_an_offline_index_has_not_got_can_be_brought_there(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream, indexes=(IndexSettings(name="corp", upstreams=("up0",), offline=True),))
    page = await failing(proxy, "/index/corp/simple/six/", 404)
    assert titled(page) == "404 Not on this offline index"
    assert "ask those who run this proxy to bring it here" in page.text


@pytest.mark.parametrize(
    ("method", "path", "status", "advice"),
    [
        ("DELETE", "/simple/six/", 405, "nothing can be uploaded, changed or removed here"),
        ("GET", "/simple/six/?format=nonsense", 406, "Omit format= from the URL"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_errors(upstream: FakeUpstream, run: Start, method: str, path: str, status: int, advice: str) -> None:
    page = await failing(await run(upstream), path, status, method)
    assert advice in page.text
    assert ("allow" in page.reply.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/index/%3Cscript%3Ealert(1)%3C%2fscript%3E/", "<script>alert(1)</script>"),
        ("/simple/%3Cimg%20src=x%3E/", "<img src=x>"),
        ("/index/%22%20onload=1/", '" onload=1'),
        ("/index/&lt;b&gt;/", "&lt;b&gt;"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_in_a_url_becomes_part_of_the_page(upstream: FakeUpstream, run: Start, path: str, shown: str) -> None:
    page = await failing(await run(upstream), path, 404)
    assert shown in page.text
    assert {each.tag for each in page.elements} == {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "p", "main", "h2", "footer", "a")
    }


@pytest_twisted.ensureDeferred
async def test_the_head_of_a_page_is_that_of_the_page(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    page = await failing(proxy, "/nothing", 404)
    head = await proxy.head("/nothing", **BROWSER)
    assert (head.status, head.body, head.headers["content-length"]) == (404, b"", str(len(page.reply.body)))

"""Each request has an id, which is in its answer, in the log and upstream; whose it is decides who sent it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, globalLogPublisher

from proxy.host.logs import LogLines, json_line, short_line, text_line
from proxy.mechanism.request_ids import RequestIds
from tests.inprocess import Running, Start
from tests.support import wire
from tests.support.browser import BROWSER
from tests.support.fake_upstream import FakeUpstream
from tests.support.faults import Fault
from tests.support.wire import Reply

OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{6}")
TRUSTED = ("127.0.0.0/8",)
#: What is no id, whoever states it.
HOSTILE = ("x" * 65, "a b", 'a"b', "<b>a</b>", "a,b", "ä", "", "a:b", "{id}", "%s")


@pytest.fixture
def lines() -> Iterator[dict[str, io.StringIO]]:
    """What is written to the log in each of its forms."""
    made = {each.__name__: io.StringIO() for each in (short_line, text_line, json_line)}
    not_running = SimpleNamespace(running=False)
    observers = [LogLines(made[each.__name__], each, not_running) for each in (short_line, text_line, json_line)]
    for each in observers:
        globalLogPublisher.addObserver(each)
    yield made
    for each in observers:
        globalLogPublisher.removeObserver(each)


def ids(logged: list[LogEvent]) -> list[str]:
    """Those of the requests that were answered, in that order."""
    return [event["request_id"] for event in logged if event["log_namespace"] == "proxy.access"]


def sent(upstream: FakeUpstream) -> list[str | None]:
    """The ids that came upstream."""
    return [each.headers.get("x-request-id") for each in upstream.asked]


async def one_after_another(proxy: Running, path: str, *stated: str) -> list[Reply]:
    """The answers to as many requests for *path* on one connection, which state these ids."""
    client, replies = await wire.connect(proxy.port), []
    for each in stated:
        client.ask(path, X_Request_ID=each)
        replies.append(await client.reply())
    await client.close()
    return replies


@pytest_twisted.ensureDeferred
async def test_each_request_has_an_id_of_its_own_whatever_its_client_says(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream)
    first, hot = await one_after_another(proxy, "/simple/six/", "mine", "mine")
    missing = await proxy.get("/simple/nothing/", X_Request_ID="mine")
    refused = await proxy.get("/simple/six/", X_Request_ID="mine", Content_Length="1", Transfer_Encoding="chunked")
    assert refused.status == 400
    known = ids(logged)
    assert len(set(known)) == 4
    assert all(OURS.fullmatch(each) for each in known)
    answers = (first, hot, missing, refused)
    # What is answered by the shortest way is the same for all.
    assert [each.headers.get("x-request-id") for each in answers] == [known[0], None, *known[2:]]
    assert [each.json["request_id"] for each in (missing, refused)] == known[2:]
    assert sent(upstream) == [known[0], known[2]]


@pytest_twisted.ensureDeferred
async def test_without_an_access_log_answers_and_requests_upstream_have_ids(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream, access_log=False)
    first, _ = await one_after_another(proxy, "/simple/six/", "mine", "mine")
    missing = await proxy.get("/simple/nothing/")
    assert ids(logged) == []
    assert sent(upstream) == [first.headers["x-request-id"], missing.json["request_id"]]


@pytest_twisted.ensureDeferred
async def test_a_trusted_proxy_names_the_request_on_every_way_to_an_answer(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six" * 100_000)
    proxy = await run(upstream, trusted_proxies=TRUSTED)
    first, hot, _ = await one_after_another(proxy, "/simple/six/", "Build-7.a_1", "the-second", "the-third")
    assert [each.headers.get("x-request-id") for each in (first, hot)] == ["Build-7.a_1", None]
    assert (await proxy.get("/simple/nothing/", X_Request_ID="9" * 64)).json["request_id"] == "9" * 64
    link = await proxy.link("six", "six-1.0.tar.gz")
    files = await one_after_another(proxy, link, "file-1", "file-2", "file-3")
    assert [each.headers["x-request-id"] for each in files] == ["file-1", "file-2", "file-3"]
    assert [each for each in ids(logged) if not OURS.fullmatch(each)] == [
        "Build-7.a_1",
        "the-second",
        "the-third",
        "9" * 64,
        "file-1",
        "file-2",
        "file-3",
    ]
    assert sent(upstream) == ["Build-7.a_1", "9" * 64, "file-1"]


@pytest_twisted.ensureDeferred
async def test_a_hostile_id_is_replaced_even_if_a_trusted_proxy_passes_it_on(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream, trusted_proxies=TRUSTED)
    for path in ("/simple/six/", "/nothing"):
        await one_after_another(proxy, path, *HOSTILE, "one\r\nX-Request-ID: two")
    assert len(ids(logged)) == 2 * (len(HOSTILE) + 1)
    assert all(OURS.fullmatch(each) for each in [*ids(logged), *map(str, sent(upstream))])


@pytest_twisted.ensureDeferred
async def test_an_error_is_found_in_the_log_by_what_its_client_was_told(
    upstream: FakeUpstream, run: Start, lines: dict[str, io.StringIO]
) -> None:
    upstream.script("*", Fault(status=500))
    proxy = await run(upstream)
    problem = await proxy.get("/simple/six/")
    told = problem.json["request_id"]
    assert (problem.status, problem.headers["x-request-id"]) == (503, told)
    page = await proxy.get("/simple/attrs/", **BROWSER)
    assert f"request {page.headers['x-request-id']}</footer>" in page.body.decode()
    await proxy.get("/-/live")
    for form, access in (
        ("short_line", rf" 503 \S+ \S+ upstream-failed - id={told}$"),
        ("text_line", rf'"-" {told}$'),
        ("json_line", rf'"path":"/simple/six/","status":503.*"request_id":"{told}"}}$'),
    ):
        found = [each for each in lines[form].getvalue().splitlines() if told in each]
        assert len(found) > 1, form
        assert re.search(access, found[-1]), found[-1]
        assert any("[proxy.web#error]" in each or '"level":"error"' in each for each in found[:-1])
    assert "/-/live" in lines["short_line"].getvalue()
    assert not re.search(r"/-/live.*id=", lines["short_line"].getvalue())


@pytest_twisted.ensureDeferred
async def test_a_request_upstream_has_the_id_of_the_one_that_began_it(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream)
    gate = upstream.hold("/simple/six/")
    first = await proxy.connect("/simple/six/", Accept="text/html")
    await upstream.arrived("/simple/six/")
    # Another representation is no answer that can be shared, and its page is.
    second = await proxy.connect("/simple/six/", Accept="application/vnd.pypi.simple.v1+json")
    gate.release()
    told = [(await each.reply()).headers["x-request-id"] for each in (first, second)]
    assert told[0] != told[1]
    assert sent(upstream) == [told[0]]
    assert sorted(ids(logged)) == sorted(told)


@given(st.binary(max_size=80))
def test_what_is_taken_of_a_proxy_is_a_short_token(value: bytes) -> None:
    made = RequestIds(lambda: "own")
    raw = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + value.translate(None, b"\r\n") + b"\r\n\r\n"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", made.of(raw, True))
    assert re.fullmatch(r"own-[0-9a-f]{6}", made.of(raw, False))

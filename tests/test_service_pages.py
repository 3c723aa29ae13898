"""Project pages through the whole service: negotiation, redirects, staleness, errors as clients see them."""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted
import treq.client
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from proxy.settings import PageLimits
from tests.inprocess import JSON, Start, start, upstream_settings
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream, Fault

HTML_V1 = "application/vnd.pypi.simple.v1+html"
EXPIRES_AT_ONCE = PageLimits(ttl=0.0, soft_deadline=0.1, negative_ttl=60.0)


@pytest.fixture
def six(upstream: FakeUpstream) -> FakeUpstream:
    upstream.add_file("six", "six-1.0.tar.gz", b"six" * 1000, requires_python=">=3.9")
    upstream.add_file("six", "six-1.0-py3-none-any.whl", b"wheel" * 1000, metadata=b"Name: six\n", yanked="broken")
    return upstream


@pytest_twisted.ensureDeferred
async def test_a_page_is_served_in_each_media_type_with_relative_links(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    page = await proxy.page()
    wheel = next(file for file in page["files"] if file["filename"].endswith(".whl"))
    assert wheel["url"] == f"../../files/six/sha256-{wheel['hashes']['sha256']}/six-1.0-py3-none-any.whl"
    assert (wheel["yanked"], page["meta"]["api-version"], page["versions"]) == ("broken", "1.4", ["1.0"])
    for accept in (HTML_V1, "text/html", "*/*"):
        reply = await proxy.get("/simple/six/", Accept=accept)
        assert reply.headers["content-type"].startswith(HTML_V1 if accept == HTML_V1 else "text/html")
        assert f'href="{wheel["url"]}#sha256={wheel["hashes"]["sha256"]}"'.encode() in reply.body
    assert six.count("/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_a_page_is_compressed_validated_and_says_how_fresh_it_is(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    plain = await proxy.get("/simple/six/", Accept=JSON)
    packed = await proxy.get("/simple/six/", Accept=JSON, Accept_Encoding="gzip, deflate")
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["vary"] == "Accept, Accept-Encoding"
    assert plain.headers["etag"] != packed.headers["etag"]
    assert packed.headers["cache-status"].startswith("pypiproxy; hit; ttl=")
    assert 590 <= int(packed.headers["cache-control"].removeprefix("max-age=")) <= 600
    again = await proxy.get("/simple/six/", Accept=JSON, If_None_Match=plain.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    head = await proxy.head("/simple/six/", Accept=JSON)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(plain.body)))


@pytest_twisted.ensureDeferred
async def test_unnormalised_names_and_missing_slashes_are_redirected_for_now_and_not_for_ever(
    six: FakeUpstream, run: Start
) -> None:
    proxy = await run(six)
    for path, location in {
        "/simple/Six/": "../six/",
        "/simple/six": "six/",
        "/simple/S_ix": "s-ix/",
        "/simple//six/": "../six/",
        "/simple/Six/?format=x": "../six/?format=x",
        "/index/pypi/simple/SIX": "six/",
    }.items():
        reply = await proxy.get(path)
        assert (reply.status, reply.headers["location"]) == (307, location), path
    assert six.asked == []


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_a_404_that_is_remembered(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    await proxy.page()
    for _ in range(2):
        reply = await proxy.get("/simple/unknown/")
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
        assert "unknown" in reply.json["detail"]
    assert six.count("/simple/unknown/") == 1
    for path in ("/nothing/", "/nothing", "/index/other/simple/six/", "/files/six/none", "/simple/%2e%2e/", "/simple/a%2Fb/"):
        assert (await proxy.get(path)).status == 404, path
    assert (await (await proxy.connect("/simple/six/", "DELETE")).reply()).status == 405
    assert (await proxy.get("/simple/six/", Accept="image/png")).status == 406


@pytest_twisted.ensureDeferred
async def test_an_html_only_upstream_is_understood(six: FakeUpstream, run: Start) -> None:
    six.content.json = False
    proxy = await run(six)
    page = await proxy.page()
    assert page["meta"]["api-version"] == "1.0"
    assert [file["requires-python"] for file in page["files"] if "requires-python" in file] == [">=3.9"]


FAILURES = {
    "silent": Fault(silent=True),
    "500": Fault(status=500),
    "502": Fault(status=502),
    "503": Fault(status=503, headers={"Retry-After": "30"}),
    "429": Fault(status=429),
    "cut off": Fault(cut_after=20),
    "reset": Fault(reset_after=20),
    "garbage": Fault(garbage=b"\x00\xffnot http at all\r\n\r\n"),
    "error page with status 200": Fault(
        body=b"<html><title>Sign in</title><form></form></html>", headers={"Content-Type": "text/html"}
    ),
    "not the JSON it says": Fault(body=b"<html></html>"),
    "another project's page": Fault(body=b'{"meta": {"api-version": "1.0"}, "name": "seven", "files": []}'),
    "nothing": Fault(drop=True),
}


@pytest.mark.parametrize("fault", FAILURES.values(), ids=FAILURES)
@pytest_twisted.ensureDeferred
async def test_a_warm_page_survives_upstream(six: FakeUpstream, run: Start, fault: Fault) -> None:
    six.content.etags = False  # a 304 has no body to break
    proxy = await run(six, limits=EXPIRES_AT_ONCE)
    before = await proxy.page()
    six.script("*", fault)
    for _ in range(3):
        reply = await proxy.get("/simple/six/", Accept=JSON)
        assert reply.json == before
        assert reply.headers["cache-status"].startswith("pypiproxy; hit; ttl=")
    asked = six.count("/simple/six/")
    for _ in range(20):
        await proxy.page()
    assert six.count("/simple/six/") == asked


@pytest.mark.parametrize("fault", FAILURES.values(), ids=FAILURES)
@pytest_twisted.ensureDeferred
async def test_a_cold_page_that_fails_says_which_upstream_and_how_and_is_not_remembered(
    six: FakeUpstream, run: Start, fault: Fault
) -> None:
    six.add_file("other", "other-1.0.tar.gz", b"x")
    proxy = await run(six)
    await proxy.page("other")
    # A connection that was idle may have been closed by upstream just then: that is not counted.
    six.script("*", fault, times=2 if fault.drop else 1)
    reply = await proxy.get("/simple/six/", Accept=JSON)
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert "up0" in reply.reason
    assert reply.json["attempts"][0]["upstream"] == "up0"
    if fault.status not in (429, 503):  # that URL rests
        assert [file["filename"] for file in (await proxy.page())["files"]]


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_and_a_restart_cost_no_warm_page(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six, limits=EXPIRES_AT_ONCE)
    before = await proxy.page()
    await six.down()
    assert await proxy.page() == before
    await proxy.stop()
    again = await run(six, limits=EXPIRES_AT_ONCE)
    assert await again.page() == before
    cold = await again.get("/simple/seven/")
    assert cold.status == 503
    assert "up0: connection refused" in cold.reason


@pytest_twisted.ensureDeferred
async def test_two_hundred_askers_of_a_cold_page_cause_one_upstream_request(six: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream_settings(six.url, "up0", first_byte_timeout=60.0))  # two hundred connections take their time
    gate = six.hold("/simple/six/")
    clients = [await proxy.connect("/simple/six/", Accept=JSON) for _ in range(200)]
    await six.arrived("/simple/six/")
    gate.release()
    replies = await gatherResults([ensureDeferred(client.reply()) for client in clients])
    assert {(reply.status, reply.sha256) for reply in replies} == {(200, replies[0].sha256)}
    assert six.count("/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_a_request_that_has_been_here_before_is_refused_and_says_which_setting_is_wrong(
    tmp_path: Path, six: FakeUpstream
) -> None:
    proxy = await start(tmp_path / "data", upstream_settings(six.url, "corp"))
    gate = six.hold("/simple/six/")
    first = await proxy.connect("/simple/six/")
    await six.arrived("/simple/six/")
    looped = await proxy.get("/simple/six/", Via=six.asked[0].headers["via"])
    gate.release()
    assert (await first.reply()).status == 200
    await proxy.stop()
    assert looped.status == 508
    assert "upstream.corp.url" in looped.reason


@pytest_twisted.ensureDeferred
async def test_upstream_is_told_who_asks(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    reply = await proxy.get("/simple/six/")
    headers = six.asked[0].headers
    assert headers["user-agent"].startswith("pypiproxy/")
    assert headers["via"].startswith("1.1 pypiproxy-")
    assert JSON in headers["accept"]
    assert reply.headers["via"] == headers["via"].partition(" (")[0]


@pytest_twisted.ensureDeferred
async def test_operations_are_answered(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    await proxy.get("/simple/six/")
    assert (await proxy.get("/-/live")).body == b"alive\n"
    assert (await proxy.get("/-/ready")).body == b"ready\n"
    counted = b'pypiproxy_requests_total{cache="miss",index="pypi",route="page",status="200"} 1.0'
    assert counted in (await proxy.get("/-/metrics")).body


@pytest_twisted.ensureDeferred
async def test_a_quarantined_project_offers_no_file_and_serves_none_that_it_has(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six, limits=EXPIRES_AT_ONCE)
    path = await proxy.link("six", "six-1.0.tar.gz")
    assert (await proxy.get(path)).status == 200
    six.project("six").keys["project-status"] = {"status": "quarantined", "reason": "malware"}
    page = await proxy.page()
    assert (page["files"], page["project-status"]["status"]) == ([], "quarantined")
    assert (await proxy.get(path)).status == 404


@pytest_twisted.ensureDeferred
async def test_a_malformed_request_is_refused_and_its_connection_closed(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    for raw in (b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        client = await wire.connect(proxy.port)
        client.transport.write(raw)
        await client.ended
        assert client.received.startswith(b"HTTP/1.1 400")


@pytest_twisted.ensureDeferred
async def test_every_answer_says_how_the_cache_came_by_it_and_bears_each_header_once(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    for path in ("/simple/six/", "/simple/Six/", "/simple/unknown/", "/nothing", await proxy.link("six", "six-1.0.tar.gz")):
        client = await proxy.connect(path)
        await client.ended
        head = bytes(client.received).partition(b"\r\n\r\n")[0].decode().lower()
        names = [line.partition(":")[0] for line in head.split("\r\n")[1:]]
        assert sorted(names) == sorted(set(names)), path
        assert "cache-status" in names, path


@pytest_twisted.ensureDeferred
async def test_a_request_with_a_body_is_refused_before_the_body_is_taken(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    for framing in ("Content-Length: 10000000000", "Transfer-Encoding: chunked"):
        client = await wire.connect(proxy.port)
        client.transport.write(f"POST /simple/six/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        await client.ended
        assert client.received.startswith(b"HTTP/1.1 413 ")


@pytest_twisted.ensureDeferred
async def test_treq_reads_pages_and_files_as_any_other_client_does(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    pool = HTTPConnectionPool(reactor, persistent=False)
    client = treq.client.HTTPClient(Agent(reactor, pool=pool))
    for _ in range(2):
        page = await client.get(f"http://127.0.0.1:{proxy.port}/simple/Six", headers=Headers({"Accept": [JSON]}))
        files = (await page.json())["files"]
        (url,) = [file["url"] for file in files if file["filename"] == "six-1.0.tar.gz"]
        file = await client.get(urljoin(f"http://127.0.0.1:{proxy.port}/simple/six/", url))
        assert await file.content() == b"six" * 1000

"""Bytes that no header should have are a failed attempt at that URL and nothing else."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.logger import LogEvent

from proxy.settings import PageLimits
from tests.evidence import Make, Serve, filename, fill, harm
from tests.support.fake_upstream import FakeUpstream, Fault

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
        # A redirect whose target can be spelled leads to where nothing is.
        assert reply.status in ((404,) if headers.get("Location") == "/simple/\xff/" else (200, 503)), reply
        assert await harm(proxy, project) == []
    assert [each for each in logged if "bug" in str(each.get("log_format"))] == []

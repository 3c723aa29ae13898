"""The Simple API's rules, one test each, through HTTP against the running service, named after the PEP or the client."""

from __future__ import annotations

import hashlib
import html
import json
import re
from typing import Any
from urllib.parse import unquote, urljoin

import pytest
import pytest_twisted
from packaging.specifiers import SpecifierSet

from proxy.settings import PageLimits
from tests.inprocess import JSON, Running, Start
from tests.support import wire
from tests.support.content import HTML_TYPE, JSON_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import sdist, wheel

SIX, OLD = wheel("six", "1.1"), wheel("six", "1.0")
PIP = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
POETRY = "application/vnd.pypi.simple.v1+json, */*;q=0.1"
SHA = "a" * 64


@pytest.fixture
def six(upstream: FakeUpstream) -> FakeUpstream:
    for each in (OLD, SIX):
        upstream.add_file("six", each.filename, each.data, metadata=each.metadata, requires_python=">=3.9")
    return upstream


def raw(upstream: FakeUpstream, *files: dict[str, Any], **keys: Any) -> None:
    """Have *upstream* serve a JSON page of six with these very entries."""
    stated = [{"url": f"{upstream.base}/f/{file['filename']}", "hashes": {"sha256": SHA}, "size": 1, **file} for file in files]
    document = {"meta": {"api-version": "1.4"}, "name": "six", "versions": ["1.0"], "files": stated, **keys}
    upstream.project("six").raw = (JSON_TYPE, json.dumps(document).encode())


def raw_html(upstream: FakeUpstream, body: str) -> None:
    upstream.content.json = False
    upstream.project("six").raw = ("text/html", f"<!DOCTYPE html><html><body>{body}</body></html>".encode())


async def html_page(proxy: Running, project: str = "six") -> str:
    return (await proxy.get(f"/simple/{project}/", Accept="text/html")).body.decode()


async def entries(proxy: Running) -> dict[str, Any]:
    return {file["filename"]: file for file in (await proxy.page())["files"]}


NAME = "six-1.0.tar.gz"
#: What no digest vouches for is kept only if it is whole.
SDIST, WHEEL = sdist("six", "1.0").data, wheel("six", "1.0").data

# -- PEP 503: HTML ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_pep_503_an_anchors_text_is_the_last_component_of_its_url(six: FakeUpstream, run: Start) -> None:
    six.add_file("six", "six-1.0+cpu-py3-none-any.whl", b"local version")
    proxy = await run(six)
    anchors = re.findall(r'<a href="([^"]+)"[^>]*>([^<]+)</a>', await html_page(proxy))
    assert len(anchors) == 3
    for href, text in anchors:
        assert unquote(html.unescape(href).partition("#")[0].rpartition("/")[2]) == html.unescape(text)


@pytest_twisted.ensureDeferred
async def test_pep_503_html_bears_the_digest_as_a_fragment(six: FakeUpstream, run: Start) -> None:
    page = await html_page(await run(six))
    assert f"{SIX.filename}#sha256={SIX.sha256}" in page


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("asked", ["/simple/six", "/simple/Six/", "/simple/SIX", "/simple//six/", "/index/pypi/simple/six"])
async def test_pep_503_other_spellings_are_redirected_for_now_only(six: FakeUpstream, run: Start, asked: str) -> None:
    proxy = await run(six)
    place, hops = asked, 0
    while (reply := await proxy.get(place)).status != 200:
        assert reply.status in (302, 307)
        place, hops = urljoin(place, reply.headers["location"]), hops + 1
        assert hops < 4
    assert place.endswith("/simple/six/")


@pytest_twisted.ensureDeferred
async def test_pep_503_urls_are_relative_to_the_page_after_redirects(make_upstream: Any, run: Start) -> None:
    upstream = make_upstream()
    upstream.add_path("/elsewhere/six/", b'<a href="files/six-1.0.tar.gz">six-1.0.tar.gz</a>')
    upstream.add_path("/elsewhere/six/files/six-1.0.tar.gz", SDIST, "application/octet-stream")
    upstream.script("/simple/six/", Fault(redirect="/elsewhere/six/"))
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("six", NAME))).body == SDIST


@pytest_twisted.ensureDeferred
async def test_pep_503_base_href_counts(make_upstream: Any, run: Start) -> None:
    upstream = make_upstream()
    raw_html(upstream, f'<base href="{upstream.base}/deep/down/"><a href="../six-1.0.tar.gz">six-1.0.tar.gz</a>')
    upstream.add_path("/deep/six-1.0.tar.gz", SDIST, "application/octet-stream")
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("six", NAME))).body == SDIST


@pytest_twisted.ensureDeferred
async def test_pep_503_protocol_relative_and_percent_encoded_urls_lead_to_their_files(make_upstream: Any, run: Start) -> None:
    upstream = make_upstream()
    host = upstream.base.removeprefix("http:")
    raw_html(upstream, f'<a href="{host}/f/six-1.0%2Bcpu-py3-none-any.whl">w</a><a href="{host}/f/a%20b/six-1.0.tar.gz">s</a>')
    upstream.add_path("/f/six-1.0+cpu-py3-none-any.whl", WHEEL, "application/octet-stream")
    upstream.add_path("/f/a b/six-1.0.tar.gz", SDIST, "application/octet-stream")
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("six", "six-1.0+cpu-py3-none-any.whl"))).body == WHEEL
    assert (await proxy.get(await proxy.link("six", NAME))).body == SDIST


# -- PEP 592: yanking ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("stated", "as_json", "as_html"),
    [
        (True, True, 'data-yanked=""'),
        ("broken &", "broken &", 'data-yanked="broken &amp;"'),
        ("", False, None),
        (False, False, None),
        (None, False, None),
    ],
    ids=["true", "a reason", "what bandersnatch says of others", "false", "null"],
)
async def test_pep_592_yanked_is_never_lost(
    upstream: FakeUpstream, run: Start, stated: Any, as_json: Any, as_html: str | None
) -> None:
    raw(upstream, {"filename": NAME, "yanked": stated})
    proxy = await run(upstream)
    assert (await entries(proxy))[NAME]["yanked"] == as_json
    page = await html_page(proxy)
    assert (as_html in page) if as_html else ("data-yanked" not in page)


@pytest_twisted.ensureDeferred
async def test_pep_592_an_empty_attribute_in_html_is_true_in_json(upstream: FakeUpstream, run: Start) -> None:
    raw_html(upstream, f'<a href="/f/{NAME}" data-yanked="">{NAME}</a>')
    assert (await entries(await run(upstream)))[NAME]["yanked"] is True


@pytest_twisted.ensureDeferred
async def test_pep_592_a_file_can_be_unyanked(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    for yanked in (True, False):
        six.project("six").files[SIX.filename]["yanked"] = yanked
        assert (await entries(proxy))[SIX.filename]["yanked"] is yanked


# -- PEP 629: versions --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_pep_629_html_and_json_state_the_same_version(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    assert (await proxy.page())["meta"]["api-version"] == "1.4"
    assert '<meta name="pypi:repository-version" content="1.4">' in await html_page(proxy)


@pytest_twisted.ensureDeferred
async def test_pep_629_a_newer_upstream_is_not_outbid(six: FakeUpstream, run: Start) -> None:
    six.content.api_version = "1.9"
    assert (await (await run(six)).page())["meta"]["api-version"] == "1.4"


@pytest_twisted.ensureDeferred
async def test_pep_629_a_page_of_another_major_version_is_not_understood(six: FakeUpstream, run: Start) -> None:
    six.content.api_version = "2.0"
    assert (await (await run(six)).get("/simple/six/")).status == 503


# -- PEP 658, 714: metadata ---------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("key", ["core-metadata", "data-dist-info-metadata", "dist-info-metadata"])
async def test_pep_714_every_spelling_is_read_and_one_is_written(upstream: FakeUpstream, run: Start, key: str) -> None:
    raw(upstream, {"filename": SIX.filename, key: {"sha256": "b" * 64}})
    proxy = await run(upstream)
    entry = (await entries(proxy))[SIX.filename]
    assert entry["core-metadata"] == {"sha256": "b" * 64}
    assert not {"data-dist-info-metadata", "dist-info-metadata"} & entry.keys()
    page = await html_page(proxy)
    for attribute in ("data-core-metadata", "data-dist-info-metadata"):
        assert f'{attribute}="sha256={"b" * 64}"' in page


@pytest_twisted.ensureDeferred
async def test_pep_658_what_is_advertised_is_served(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    path = await proxy.link("six", SIX.filename) + ".metadata"
    assert (await proxy.get(path)).body == SIX.metadata


# -- PEP 691: JSON and negotiation --------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
        ("text/*", "text/html; charset=utf-8"),
        ("application/*", JSON_TYPE),
        (PIP, JSON_TYPE),
        (UV, JSON_TYPE),
        (POETRY, JSON_TYPE),
        (HTML_TYPE, HTML_TYPE),
        ("application/vnd.pypi.simple.latest+json", JSON_TYPE),
        ("application/vnd.pypi.simple.latest+html", HTML_TYPE),
        ("text/html, application/vnd.pypi.simple.v1+json", JSON_TYPE),
        ("application/vnd.pypi.simple.v1+json;q=0.1, text/html;q=0.9", "text/html; charset=utf-8"),
        ("application/vnd.pypi.simple.v1+json;q=0, */*", "text/html; charset=utf-8"),
        ("text/html;q=0.5, application/vnd.pypi.simple.v1+html;q=0.5", HTML_TYPE),
    ],
)
async def test_pep_691_quality_decides_and_among_equals_the_richest_wins(
    six: FakeUpstream, run: Start, accept: str | None, media: str
) -> None:
    proxy = await run(six)
    reply = await (proxy.get("/simple/six/") if accept is None else proxy.get("/simple/six/", Accept=accept))
    assert (reply.status, reply.headers["content-type"]) == (200, media)
    assert reply.headers["vary"] == "Accept, Accept-Encoding"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["/simple/six/", "/simple/"])
async def test_pep_691_what_cannot_be_made_is_406(six: FakeUpstream, run: Start, path: str) -> None:
    proxy = await run(six)
    for accept in ("application/vnd.pypi.simple.v2+json", "image/png", "text/html;q=0"):
        reply = await proxy.get(path, Accept=accept)
        assert reply.status == 406
        assert JSON_TYPE in reply.reason


@pytest_twisted.ensureDeferred
async def test_pep_691_format_overrides_accept(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    reply = await proxy.get(f"/simple/six/?format={JSON_TYPE.replace('+', '%2B')}", Accept="text/html")
    assert reply.headers["content-type"] == JSON_TYPE
    assert (await proxy.get("/simple/six/?format=image/png", Accept=JSON)).status == 406


@pytest_twisted.ensureDeferred
async def test_pep_691_hashes_are_always_there(upstream: FakeUpstream, run: Start) -> None:
    raw(upstream, {"filename": NAME, "hashes": {}})
    assert (await entries(await run(upstream)))[NAME]["hashes"] == {}


@pytest_twisted.ensureDeferred
async def test_pep_691_keys_nobody_knows_are_kept(upstream: FakeUpstream, run: Start) -> None:
    raw(upstream, {"filename": NAME, "_size": "big", "new-key": {"a": [1]}}, _page=7, later=None)
    proxy = await run(upstream)
    page = await proxy.page()
    assert (page["_page"], page["later"]) == (7, None)
    assert (page["files"][0]["_size"], page["files"][0]["new-key"]) == ("big", {"a": [1]})


@pytest_twisted.ensureDeferred
async def test_pep_708_rejected_keys_are_never_passed_on(upstream: FakeUpstream, run: Start) -> None:
    raw(upstream, {"filename": NAME}, **{"tracks": [], "alternate-locations": ["https://x.example/"]})
    page = await (await run(upstream)).page()
    assert not {"tracks", "alternate-locations"} & page.keys()


@pytest_twisted.ensureDeferred
async def test_pep_752_namespaces_are_not_promised(upstream: FakeUpstream, run: Start) -> None:
    raw(upstream, {"filename": NAME}, namespaces=["x"])
    assert "namespaces" not in await (await run(upstream)).page()


# -- PEP 700: versions, sizes, upload times -----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_pep_700_a_page_out_of_html_says_1_0(six: FakeUpstream, run: Start) -> None:
    six.content.json = False
    page = await (await run(six)).page()
    assert (page["meta"]["api-version"], "versions" in page) == ("1.0", False)


@pytest_twisted.ensureDeferred
async def test_pep_700_from_1_1_on_versions_and_sizes_are_there(six: FakeUpstream, run: Start) -> None:
    page = await (await run(six)).page()
    assert page["versions"] == ["1.0", "1.1"]
    assert all(isinstance(file["size"], int) and file["upload-time"].endswith("Z") for file in page["files"])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("size", [None, "", "big", -1, 1.5, True], ids=repr)
async def test_pep_700_a_size_that_is_none_is_left_out_and_the_page_promises_less(
    upstream: FakeUpstream, run: Start, size: Any
) -> None:
    raw(upstream, {"filename": NAME, "size": size})
    page = await (await run(upstream)).page()
    assert "size" not in page["files"][0]
    assert page["meta"]["api-version"] == "1.0"


@pytest_twisted.ensureDeferred
async def test_pep_700_a_size_that_is_a_text_becomes_the_number(upstream: FakeUpstream, run: Start) -> None:
    raw(upstream, {"filename": NAME, "size": "12"})
    assert (await entries(await run(upstream)))[NAME]["size"] == 12


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("time", ["", None, "yesterday", 7], ids=repr)
async def test_pep_700_an_upload_time_that_is_none_is_left_out(upstream: FakeUpstream, run: Start, time: Any) -> None:
    raw(upstream, {"filename": NAME, "upload-time": time})
    assert "upload-time" not in (await entries(await run(upstream)))[NAME]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("specifier", ["", ">=3.6.*,<", "python 3", 3], ids=repr)
async def test_requires_python_that_uv_could_not_parse_is_mended_or_left_out(
    upstream: FakeUpstream, run: Start, specifier: Any
) -> None:
    raw(upstream, {"filename": NAME, "requires-python": specifier})
    SpecifierSet((await entries(await run(upstream)))[NAME].get("requires-python", ""))


# -- PEP 740: provenance ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("url", ["https://x.example/provenance", "http://x.example/p", "/relative", None], ids=repr)
async def test_pep_740_provenance_is_an_absolute_https_url_or_not_there(
    upstream: FakeUpstream, run: Start, url: str | None
) -> None:
    raw(upstream, {"filename": NAME, "provenance": url})
    stated = (await entries(await run(upstream)))[NAME].get("provenance")
    assert stated == (url if url is not None and url.startswith("https://") else None)


# -- PEP 792: project status --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("as_html", [False, True], ids=["from JSON", "from HTML"])
async def test_pep_792_the_status_and_its_reason_are_kept(six: FakeUpstream, run: Start, as_html: bool) -> None:
    six.content.json = not as_html
    six.project("six").keys["project-status"] = {"status": "deprecated", "reason": "use <seven>"}
    proxy = await run(six)
    page = await proxy.page()
    assert page["project-status"] == {"status": "deprecated", "reason": "use <seven>"}
    assert len(page["files"]) == 2
    shown = await html_page(proxy)
    assert '<meta name="pypi:project-status" content="deprecated">' in shown
    assert '<meta name="pypi:project-status-reason" content="use &lt;seven&gt;">' in shown


@pytest_twisted.ensureDeferred
async def test_pep_792_a_quarantined_project_offers_no_file_cached_ones_included(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    path = await proxy.link("six", SIX.filename)
    assert [(await proxy.get(path + suffix)).status for suffix in ("", ".metadata")] == [200, 200]
    six.project("six").keys["project-status"] = {"status": "quarantined"}
    six.project("six").serial += 1
    page = await proxy.page()
    assert (page["project-status"]["status"], page["files"]) == ("quarantined", [])
    assert "<a " not in await html_page(proxy)
    for suffix in ("", ".metadata", ".provenance"):
        reply = await proxy.get(path + suffix)
        assert (reply.status, "quarantined" in reply.reason) == (404, True)
    assert (await proxy.get("/pypi/six/json")).json["urls"] == []


# -- what clients need --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["/simple/six/", "/simple/", "/pypi/six/json", "/last-modified", "file", "metadata"])
async def test_head_is_answered_everywhere_get_is(six: FakeUpstream, run: Start, path: str) -> None:
    proxy = await run(six)
    link = await proxy.link("six", SIX.filename)
    path = {"file": link, "metadata": f"{link}.metadata"}.get(path, path)
    head = await proxy.head(path)
    get = await proxy.get(path)
    assert (head.status, head.body) == (200, b"")
    for name in ("content-type", "content-length", "etag"):
        assert head.headers.get(name) == get.headers.get(name)


@pytest_twisted.ensureDeferred
async def test_pip_quotes_a_plus_and_uv_does_not(upstream: FakeUpstream, run: Start) -> None:
    name = "six-1.0+cpu-py3-none-any.whl"
    upstream.add_file("six", name, b"local version")
    proxy = await run(upstream)
    path = await proxy.link("six", name)
    for spelling in (path.replace("%2B", "+"), path.replace("+", "%2B")):
        assert (await proxy.get(spelling)).body == b"local version"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_an_outage_is_a_503_with_seconds_to_wait_and_never_a_504_or_404(
    six: FakeUpstream, run: Start, status: int
) -> None:
    six.script("*", Fault(status=status, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}))
    proxy = await run(six)
    for path in ("/simple/six/", "/simple/", f"/files/six/sha256-{SIX.sha256}/{SIX.filename}"):
        reply = await proxy.get(path)
        assert (reply.status, reply.headers["retry-after"].isdigit()) == (503, True)


@pytest_twisted.ensureDeferred
async def test_pip_prints_the_reason_and_uv_the_problem(six: FakeUpstream, run: Start) -> None:
    six.script("/simple/*", Fault(status=502))
    reply = await (await run(six)).get("/simple/six/")
    assert "up0: answered 502" in reply.reason
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json
    assert (problem["status"], problem["title"], problem["code"]) == (503, "Upstream failed", "upstream-failed")
    assert "up0: answered 502" in problem["detail"]


@pytest_twisted.ensureDeferred
async def test_a_page_says_its_serial_and_how_long_it_is_fresh(six: FakeUpstream, run: Start) -> None:
    reply = await (await run(six)).get("/simple/six/", Accept=JSON)
    assert reply.headers["x-pypi-last-serial"] == str(six.project("six").serial)
    assert reply.json["meta"]["_last-serial"] == six.project("six").serial
    assert 0 < int(re.fullmatch(r"max-age=(\d+)", reply.headers["cache-control"])[1]) <= 600  # type: ignore[index]  # it matches
    assert "date" in reply.headers, "pip needs one"


@pytest_twisted.ensureDeferred
async def test_pips_max_age_0_is_no_wish_for_a_new_page_and_no_cache_is_one(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    await proxy.page()
    await proxy.get("/simple/six/", **{"Cache-Control": "max-age=0"})
    assert six.count("/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_fast_deps_and_uvs_lazy_reading_cost_upstream_what_they_ask_for(upstream: FakeUpstream, run: Start) -> None:
    big = wheel("big", size=2_000_000)
    upstream.add_file("big", big.filename, big.data)
    proxy = await run(upstream)
    path = await proxy.link("big", big.filename)
    assert (await proxy.head(path)).headers["accept-ranges"] == "bytes"
    before = upstream.sent
    size = len(big.data)
    for asked, expected in (
        ("bytes=-16384", big.data[-16384:]),
        (f"bytes={size - 20000}-{size - 10001}", big.data[-20000:-10000]),
    ):
        reply = await proxy.get(path, Range=asked)
        assert (reply.status, reply.body) == (206, expected)
    assert upstream.sent - before < 40_000


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("hashes", [{"md5": "0" * 32}, {}], ids=["md5 alone", "none"])
async def test_files_with_a_weak_digest_or_none_are_served_and_keep_their_first_bytes(
    upstream: FakeUpstream, run: Start, hashes: dict[str, str]
) -> None:
    data = SDIST
    stated = {"md5": hashlib.md5(data).hexdigest()} if hashes else {}
    upstream.add_file("six", NAME, data, hashes=stated)
    proxy = await run(upstream)
    path = await proxy.link("six", NAME)
    assert ("/none/" if not hashes else f"/md5-{stated['md5']}/") in path
    assert (await proxy.get(path)).body == data
    await upstream.down()
    again = await proxy.get(path)
    assert (again.status, again.body, "hit" in again.headers["cache-status"]) == (200, data, True)


@pytest_twisted.ensureDeferred
async def test_bytes_that_an_md5_does_not_vouch_for_are_refused(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", NAME, b"other bytes", hashes={"md5": "0" * 32})
    proxy = await run(upstream)
    reply = await proxy.get(await proxy.link("six", NAME))
    assert reply.status == 503 or not reply.complete


@pytest_twisted.ensureDeferred
async def test_errors_close_nothing_and_bear_no_freshness(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six)
    client = await wire.connect(proxy.port)
    client.ask("/simple/no-such-project/")
    reply = await client.reply()
    assert (reply.status, reply.headers.get("cache-control")) == (404, "no-store")
    client.ask("/simple/six/")
    assert (await client.reply()).status == 200
    await client.close()

"""The list of projects, the legacy JSON API and provenance through the whole service."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import zstandard
from msgspec.structs import replace
from twisted.internet.defer import ensureDeferred, gatherResults

from proxy.settings import IndexSettings, PageLimits
from tests.inprocess import JSON, Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.content import HTML_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import sdist, wheel

SIX = [wheel("six", "1.0"), wheel("six", "2.0"), sdist("six", "2.0")]


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    for each in (*SIX, wheel("flask"), wheel("zope.interface")):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    return upstream


async def names(proxy: Running, path: str = "/simple/") -> list[str]:
    reply = await proxy.get(path, Accept=JSON)
    assert reply.status == 200, reply
    return [project["name"] for project in reply.json["projects"]]


# -- the list of projects -------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_list_is_fetched_once_and_served_in_every_form(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    plain = await proxy.get("/simple/", Accept=JSON)
    assert plain.headers["content-type"] == JSON
    assert [project["name"] for project in plain.json["projects"]] == ["flask", "six", "zope-interface"]
    assert all(isinstance(project["_last-serial"], int) for project in plain.json["projects"])
    assert plain.headers["vary"] == "Accept, Accept-Encoding"
    zipped = await proxy.get("/simple/", **{"Accept": JSON, "Accept-Encoding": "gzip"})
    assert (zipped.headers["content-encoding"], gzip.decompress(zipped.body)) == ("gzip", plain.body)
    dense = await proxy.get("/index/pypi/simple/", **{"Accept": JSON, "Accept-Encoding": "zstd, gzip"})
    assert zstandard.ZstdDecompressor().decompressobj().decompress(dense.body) == plain.body
    html = await proxy.get("/simple/", Accept="*/*")
    assert html.headers["content-type"] == "text/html; charset=utf-8"
    assert b'<a href="zope-interface/">zope-interface</a>' in html.body
    again = await proxy.get("/simple/", **{"Accept": JSON, "If-None-Match": plain.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert len({each.headers["etag"] for each in (plain, zipped, dense, html)}) == 4
    assert stocked.count("/simple/") == 1


@pytest_twisted.ensureDeferred
async def test_without_the_slash_get_is_redirected_and_head_answered(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    reply = await proxy.get("/simple")
    assert (reply.status, reply.headers["location"]) == (307, "simple/")
    for path in ("/simple", "/simple/"):
        head = await proxy.head(path, Accept=JSON)
        assert (head.status, head.headers["content-type"], head.body) == (200, JSON, b"")
    assert head.headers["content-length"] == str(len((await proxy.get("/simple/", Accept=JSON)).body))


@pytest_twisted.ensureDeferred
async def test_a_hundred_askers_at_once_cost_one_request(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    gate = stocked.hold("/simple/")
    asked = gatherResults([ensureDeferred(names(proxy)) for _ in range(100)])
    await stocked.arrived("/simple/")
    gate.release()
    assert {tuple(each) for each in await asked} == {("flask", "six", "zope-interface")}
    assert stocked.count("/simple/") == 1


@pytest_twisted.ensureDeferred
async def test_a_stale_list_is_served_when_upstream_fails_also_after_a_restart(stocked: FakeUpstream, run: Start) -> None:
    limits = PageLimits(ttl=0.0, soft_deadline=0.1)
    proxy = await run(stocked, limits=limits)
    before = await names(proxy)
    await stocked.down()
    assert await names(proxy) == before
    await proxy.stop()
    again = await run(stocked, limits=limits)
    assert await names(again) == before


@pytest_twisted.ensureDeferred
async def test_a_new_list_replaces_the_old_one_and_its_files(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(stocked, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    await names(proxy)
    newer = wheel("werkzeug")
    stocked.add_file("werkzeug", newer.filename, newer.data)
    assert "werkzeug" in await names(proxy)
    kept = {path.name.partition(".")[0] for path in (tmp_path / "data" / "lists" / "pypi").iterdir()}
    assert len(kept) == 1


@pytest_twisted.ensureDeferred
async def test_a_conditional_request_renews_it(stocked: FakeUpstream, run: Start) -> None:
    stocked.add_path(
        "/simple/", json.dumps({"meta": {"api-version": "1.0"}, "projects": [{"name": "x"}]}).encode(), JSON, ETag='"e"'
    )
    proxy = await run(stocked, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    assert await names(proxy) == ["x"]
    stocked.script("/simple/", Fault(status=304, body=b""))
    assert await names(proxy) == ["x"]
    assert stocked.asked[-1].headers["if-none-match"] == '"e"'


@pytest_twisted.ensureDeferred
async def test_where_upstream_has_no_list_the_projects_kept_here_are_it(stocked: FakeUpstream, run: Start) -> None:
    stocked.script("/simple/", Fault(status=404))
    proxy = await run(stocked)
    assert await names(proxy) == []
    await proxy.page("six")
    await proxy.page("flask")
    assert await names(proxy) == ["flask", "six"]


@pytest_twisted.ensureDeferred
async def test_a_portals_page_is_no_list_and_the_next_mirror_is_asked(make_upstream: Any, run: Start) -> None:
    portal, good = make_upstream(), make_upstream()
    portal.script("*", Fault(body=b"<html><form>Sign in</form></html>", headers={"Content-Type": "text/html"}))
    good.add_file("six", SIX[0].filename, SIX[0].data)
    proxy = await run(portal, good)
    assert await names(proxy) == ["six"]


@pytest_twisted.ensureDeferred
async def test_a_list_is_read_as_static_generators_write_it(upstream: FakeUpstream, run: Start) -> None:
    links = (
        '<a href="blinker/index.html">blinker</a><br><A HREF=https://index.example/simple/zope-interface>zope.interface</A><br>'
    )
    upstream.add_path("/simple/", f"<!DOCTYPE html><title>Simple index</title>{links}".encode(), "")
    upstream.script("/simple/", Fault(no_content_length=True, close=True))
    proxy = await run(upstream)
    assert await names(proxy) == ["blinker", "zope.interface"]


@pytest_twisted.ensureDeferred
async def test_a_list_that_is_cut_off_is_not_the_list(make_upstream: Any, run: Start) -> None:
    links = "".join(f"<a href='p{number}/'>p{number}</a><br>\n" for number in range(3000))
    for number, page in enumerate(
        (f"<!DOCTYPE html><title>Simple index</title>{links}", f"<html><body><ul>{links}</ul></body></html>")
    ):
        upstream = make_upstream()
        upstream.add_path("/simple/", page.encode(), "text/html" if number else "")
        proxy = await run(upstream, data=f"data-{number}")
        upstream.script("/simple/", Fault(no_content_length=True, close=True, cut_after=page.index("p2999</a>")), times=1)
        assert (await proxy.get("/simple/")).status == 503
        upstream.script("/simple/", Fault(no_content_length=True, close=True))
        reply = await wire.fetch_until(proxy.port, "/simple/", lambda reply: reply.status == 200)
        assert reply.body.count(b"<a ") == 3000


@pytest_twisted.ensureDeferred
async def test_with_no_list_and_no_upstream_it_is_503(stocked: FakeUpstream, run: Start) -> None:
    await stocked.down()
    proxy = await run(stocked)
    reply = await proxy.get("/simple/", Accept=JSON)
    assert reply.status == 503
    assert reply.headers["retry-after"].isdigit()


# -- the legacy API -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("path", "files"),
    [
        # bandersnatch wants /packages; pip-tools, which asks for the others, the URLs that the page has
        ("/pypi/six/json", "/packages/"),
        ("/pypi/Six/json", "/packages/"),
        ("/index/pypi/pypi/six/json", "/index/pypi/packages/"),
        ("/six/json", "/files/"),
        ("/simple/pypi/six/json", "/files/"),
        ("/index/pypi/six/json", "/index/pypi/files/"),
        ("/index/pypi/simple/pypi/six/json", "/index/pypi/files/"),
    ],
)
async def test_legacy_documents_point_to_our_files(stocked: FakeUpstream, run: Start, path: str, files: str) -> None:
    proxy = await run(stocked)
    reply = await proxy.get(path, Host="proxy.example:3143")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    document = reply.json
    assert document["info"]["name"] == "six"
    assert {entry["filename"] for entry in document["urls"]} == {each.filename for each in SIX[1:]}
    for entry in [*document["urls"], *document["releases"]["1.0"]]:
        assert entry["url"].startswith(f"http://proxy.example:3143{files}six/sha256-{entry['digests']['sha256']}/")
        local = entry["url"].removeprefix("http://proxy.example:3143")
        assert hashlib.sha256((await proxy.get(local)).body).hexdigest() == entry["digests"]["sha256"]
    assert int(reply.headers["x-pypi-last-serial"]) == stocked.project("six").serial
    assert stocked.count("/pypi/*") == 1


@pytest_twisted.ensureDeferred
async def test_legacy_documents_quote_urls_as_pip_does_those_on_a_page(upstream: FakeUpstream, run: Start) -> None:
    """pip-tools knows a file's digest by its URL."""
    made = wheel("local", "1.0+cpu")
    upstream.add_file("local", made.filename, made.data)
    proxy = await run(upstream)
    entry = (await proxy.get("/local/json")).json["urls"][0]
    assert entry["url"].endswith("/local-1.0%2Bcpu-py3-none-any.whl")
    assert (await proxy.get(entry["url"].partition("proxy.example")[2])).body == made.data


@pytest_twisted.ensureDeferred
async def test_a_version_has_a_document_of_its_own(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    document = (await proxy.get("/pypi/six/1.0/json")).json
    assert [entry["filename"] for entry in document["urls"]] == [SIX[0].filename]
    assert (await proxy.get("/pypi/six/9.9/json")).status == 404
    assert (await proxy.get("/pypi/no-such-project/json")).status == 404


@pytest_twisted.ensureDeferred
async def test_behind_tls_the_urls_are_https(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked, trusted_proxies=("127.0.0.1",))
    for scheme in ("https", "http", "https"):
        reply = await proxy.get("/pypi/six/json", **{"Host": "proxy.example", "X-Forwarded-Proto": scheme})
        assert all(entry["url"].startswith(f"{scheme}://proxy.example/packages/") for entry in reply.json["urls"])
        assert reply.headers["vary"] == "Accept-Encoding, Host, X-Forwarded-Host, X-Forwarded-Proto"
    odd = await proxy.get("/pypi/six/json", Host='x"><script>')
    assert b"script" not in odd.body


@pytest_twisted.ensureDeferred
async def test_the_scheme_that_a_client_states_is_not_believed(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    for fields in ({"X-Forwarded-Proto": "https"}, {"X-Forwarded-Host": "evil.example"}):
        reply = await proxy.get("/pypi/six/json", Host="proxy.example", **fields)
        assert all(entry["url"].startswith("http://proxy.example/packages/") for entry in reply.json["urls"])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "fault", [Fault(status=404), Fault(status=403), Fault(body=b"<html>", headers={"Content-Type": "text/html"})]
)
async def test_an_upstream_without_the_api_gets_one_made_of_its_pages(stocked: FakeUpstream, run: Start, fault: Fault) -> None:
    stocked.script("/pypi/*", fault)
    proxy = await run(stocked)
    document = (await proxy.get("/pypi/six/json")).json
    assert (document["info"]["name"], document["info"]["version"]) == ("six", "2.0")
    assert set(document["releases"]) == {"1.0", "2.0"}
    digests = {entry["filename"]: entry["digests"]["sha256"] for entry in document["urls"]}
    assert digests == {each.filename: each.sha256 for each in SIX[1:]}
    assert {entry["packagetype"] for entry in document["urls"]} == {"sdist", "bdist_wheel"}
    assert (await proxy.get("/pypi/six/1.0/json")).json["urls"][0]["filename"] == SIX[0].filename
    assert (await proxy.get("/pypi/six/3.0/json")).status == 404
    (state,) = proxy.service.proxied["pypi"].upstreams.states()
    assert state.state == "up"


@pytest_twisted.ensureDeferred
async def test_it_is_kept_like_a_page_and_served_stale(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked, limits=PageLimits(ttl=0.0, soft_deadline=0.1))
    before = (await proxy.get("/pypi/six/json")).json
    await stocked.down()
    reply = await proxy.get("/pypi/six/json")
    assert reply.json == before
    assert "ttl=" in reply.headers["cache-status"]


@pytest_twisted.ensureDeferred
async def test_a_hundred_askers_for_a_legacy_document_cost_one_request(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    gate = stocked.hold("/pypi/*")
    asked = gatherResults([ensureDeferred(proxy.get("/pypi/six/json")) for _ in range(100)])
    await stocked.arrived("/pypi/*")
    gate.release()
    assert {reply.status for reply in await asked} == {200}
    assert stocked.count("/pypi/*") == 1


@pytest_twisted.ensureDeferred
async def test_a_quarantined_project_offers_no_file_there_either(stocked: FakeUpstream, run: Start) -> None:
    stocked.project("six").keys["project-status"] = {"status": "quarantined"}
    proxy = await run(stocked)
    document = (await proxy.get("/pypi/six/json")).json
    assert (document["urls"], [each for there in document["releases"].values() for each in there]) == ([], [])


@pytest_twisted.ensureDeferred
async def test_legacy_documents_are_compressed_and_conditional(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    plain = await proxy.get("/pypi/six/json")
    zipped = await proxy.get("/pypi/six/json", **{"Accept-Encoding": "gzip"})
    assert gzip.decompress(zipped.body) == plain.body
    again = await proxy.get("/pypi/six/json", **{"If-None-Match": plain.headers["etag"]})
    assert again.status == 304


# -- provenance -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_provenance_passes_through_and_is_refreshed(make_upstream: Any, run: Start, tmp_path: Path) -> None:
    upstream = make_upstream(tls=certs.server_context())
    made = SIX[0]
    path = "/integrity/six/1.0/provenance"
    upstream.add_file("six", made.filename, made.data, provenance=f"{upstream.base}{path}")
    upstream.add_path(path, b'{"version":1}', "application/json")
    settings = upstream_settings(upstream.url, "pypi", ca_file=certs.authority().write(tmp_path, "ca")[0])
    proxy = await run(settings, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    there = await proxy.link("six", made.filename) + ".provenance"
    assert (await proxy.get(there)).body == b'{"version":1}'
    upstream.add_path(path, b'{"version":2}', "application/json")
    reply = await proxy.get(there)
    assert (reply.body, reply.headers["cache-control"]) == (b'{"version":2}', "max-age=0")
    assert (await proxy.page("six"))["files"][0]["provenance"] == f"{upstream.base}{path}"


@pytest_twisted.ensureDeferred
async def test_a_file_without_provenance_says_so(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    reply = await proxy.get(await proxy.link("six", SIX[0].filename) + ".provenance")
    assert (reply.status, "no provenance" in reply.reason) == (404, True)


@pytest_twisted.ensureDeferred
async def test_each_index_has_documents_of_its_own(make_upstream: Any, run: Start) -> None:
    first, second = make_upstream(), make_upstream()
    first.add_file("six", SIX[0].filename, SIX[0].data)
    second.add_file("six", SIX[1].filename, SIX[1].data)
    one = IndexSettings(name="one", upstreams=("up0",), default=True)
    proxy = await run(first, second, indexes=(one, replace(one, name="two", upstreams=("up1",), default=False)))
    first_one = (await proxy.get("/pypi/six/json")).json
    second_one = (await proxy.get("/index/two/pypi/six/json")).json
    assert [list(first_one["releases"]), list(second_one["releases"])] == [["1.0"], ["2.0"]]
    assert HTML_TYPE not in (await proxy.get("/index/two/simple/", Accept=JSON)).headers["content-type"]


# -- mirror age -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_last_modified_says_when_upstream_last_answered(stocked: FakeUpstream, run: Start) -> None:
    proxy = await run(stocked)
    assert (await proxy.get("/last-modified")).status == 404
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    await proxy.page("six")
    for path in ("/last-modified", "/index/pypi/last-modified"):
        reply = await proxy.get(path)
        assert reply.headers["content-type"] == "text/plain"
        stamp = datetime.datetime.strptime(reply.body.decode(), "%Y%m%dT%H:%M:%S\n").replace(tzinfo=datetime.UTC)
        assert before <= stamp <= datetime.datetime.now(datetime.UTC)


@pytest_twisted.ensureDeferred
async def test_a_mirrors_own_age_is_added(stocked: FakeUpstream, run: Start) -> None:
    day_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    stocked.content.mirrored_at = day_ago.strftime("%Y%m%dT%H:%M:%S")
    proxy = await run(upstream_settings(stocked.url, "pypi", max_lag=172_800.0))
    await proxy.page("six")
    stamp = datetime.datetime.strptime((await proxy.get("/last-modified")).body.decode(), "%Y%m%dT%H:%M:%S\n")
    assert abs(stamp.replace(tzinfo=datetime.UTC) - day_ago) < datetime.timedelta(minutes=5)


@pytest_twisted.ensureDeferred
async def test_one_proxy_reads_the_age_of_another(stocked: FakeUpstream, run: Start) -> None:
    first = await run(stocked)
    await first.page("six")
    url = f"http://127.0.0.1:{first.port}/index/pypi/simple/"
    second = await run(upstream_settings(url, "first", max_lag=600.0), data="second")
    assert (await second.page("six"))["name"] == "six"
    (state,) = second.service.proxied["pypi"].upstreams.states()
    assert state.lag is not None
    assert state.lag < 600

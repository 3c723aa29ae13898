"""An index with ``offline = true``: upstream is never asked, and what is there is all that is offered."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from proxy.settings import IndexSettings, PageLimits, UpstreamSettings
from tests.inprocess import JSON, Start, upstream_settings
from tests.support import certs, wire
from tests.support.clients import pip_install, uv_pip_install
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import Distribution, sdist, wheel

OFFLINE = (IndexSettings(name="pypi", default=True, offline=True, limits=PageLimits(stale_if_error=0.0)),)
APP, OLD, LIB = wheel("app", "1.0"), wheel("app", "0.9"), sdist("app", "0.8")


def publish(upstream: FakeUpstream, *distributions: Distribution, metadata: bool = True) -> None:
    for each in distributions:
        stated = each.metadata if metadata and each.filename.endswith(".whl") else None
        upstream.add_file(each.project, each.filename, each.data, metadata=stated)


async def fill(serve: Start, upstream: FakeUpstream | UpstreamSettings, *names: str) -> dict[str, str]:
    """Ask a proxy that is not offline for the page of app and for its files *names*; the paths of all its files."""
    proxy = await serve(upstream)
    paths = {each["filename"]: await proxy.link("app", each["filename"]) for each in (await proxy.page("app"))["files"]}
    for name in names:
        file, _, companion = name.partition("#")
        assert (await proxy.get(paths[file] + companion)).status == 200
    await proxy.stop()
    return paths


def offered(page: Any) -> list[str]:
    return [each["filename"] for each in page["files"]]


@pytest_twisted.ensureDeferred
async def test_only_files_that_are_there_are_offered_and_nobody_is_asked(serve: Start, upstream: FakeUpstream) -> None:
    publish(upstream, APP, OLD, LIB)
    paths = await fill(serve, upstream, APP.filename, LIB.filename)
    before = upstream.count()
    proxy = await serve(upstream, indexes=OFFLINE)

    page = await proxy.get("/simple/app/", Accept=JSON, Cache_Control="no-cache")
    assert offered(page.json) == [APP.filename, LIB.filename]
    assert page.headers["cache-status"] == "pypiproxy; hit; detail=offline"
    assert page.headers["cache-control"] == "max-age=0"
    assert (await proxy.get(paths[APP.filename])).body == APP.data
    for method in ("GET", "HEAD"):
        reply = await wire.fetch(proxy.port, paths[OLD.filename], method, Range="bytes=0-9")
        assert reply.status == 404
        assert "index pypi is offline and has not got app-0.9" in reply.reason
    assert (await proxy.get("/simple/", Accept=JSON)).json["projects"] == [{"name": "app"}]
    assert upstream.count() == before


@pytest_twisted.ensureDeferred
async def test_an_offline_index_says_so_of_what_it_has_not_got(serve: Start, upstream: FakeUpstream) -> None:
    proxy = await serve(indexes=OFFLINE)
    for path in ("/simple/app/", "/pypi/app/json", f"/files/app/sha256-{APP.sha256}/{APP.filename}"):
        reply = await proxy.get(path, Accept=JSON)
        assert (reply.status, reply.reason) == (
            404,
            "Not on this offline index: index pypi is offline and has not got the page of app: bring it with pypiproxy import",
        )
        assert reply.json["code"] == "not-here"
    assert (await proxy.get("/simple/", Accept=JSON)).json["projects"] == []
    assert await proxy.service.administration.operations["upstreams"](print) == []
    counted = (await proxy.get("/-/metrics")).body.decode().splitlines()
    assert {line.rpartition(" ")[2] for line in counted if "refresh failed" in line and not line.startswith("#")} == {"0.0"}


@pytest_twisted.ensureDeferred
async def test_metadata_is_there_with_its_file_or_not_at_all(serve: Start, upstream: FakeUpstream) -> None:
    publish(upstream, APP, OLD)
    paths = await fill(serve, upstream, APP.filename, f"{APP.filename}#.metadata", f"{OLD.filename}#.metadata")
    proxy = await serve(upstream, indexes=OFFLINE)
    page = await proxy.page("app")
    assert offered(page) == [APP.filename]
    (listed,) = page["files"]
    assert listed["core-metadata"] == {"sha256": hashlib.sha256(APP.metadata).hexdigest()}
    assert (await proxy.get(paths[APP.filename] + ".metadata")).body == APP.metadata
    assert (await proxy.get(paths[OLD.filename] + ".metadata")).status == 404


@pytest_twisted.ensureDeferred
async def test_metadata_that_is_not_there_is_read_out_of_the_wheel_that_is(serve: Start, upstream: FakeUpstream) -> None:
    publish(upstream, APP)
    paths = await fill(serve, upstream, APP.filename)
    before = upstream.count()
    proxy = await serve(upstream, indexes=OFFLINE)
    (listed,) = (await proxy.page("app"))["files"]
    assert listed["core-metadata"] is True
    assert (await proxy.get(paths[APP.filename] + ".metadata")).body == APP.metadata
    (listed,) = (await proxy.page("app"))["files"]
    assert listed["core-metadata"] == {"sha256": hashlib.sha256(APP.metadata).hexdigest()}
    assert upstream.count() == before


@pytest_twisted.ensureDeferred
async def test_provenance_is_not_offered_and_is_there_with_its_file_if_it_was_asked_for(
    serve: Start, make_upstream: Any, tmp_path: Path
) -> None:
    upstream = make_upstream(tls=certs.server_context())
    authority, _ = certs.authority().write(tmp_path, "authority")
    for each in (APP, OLD):
        path = f"/provenance/{each.filename}"
        upstream.add_file("app", each.filename, each.data, provenance=f"{upstream.base}{path}")
        upstream.add_path(path, b"{}", "application/json")
    names = (APP.filename, f"{APP.filename}#.provenance", f"{OLD.filename}#.provenance")
    paths = await fill(serve, upstream_settings(upstream.url, ca_file=authority), *names)
    proxy = await serve(indexes=OFFLINE)
    (listed,) = (await proxy.page("app"))["files"]
    assert "provenance" not in listed
    assert (await proxy.get(paths[APP.filename] + ".provenance")).body == b"{}"
    assert (await proxy.get(paths[OLD.filename] + ".provenance")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_page_follows_the_files_that_come_and_go(serve: Start, upstream: FakeUpstream) -> None:
    """Another index of the same proxy brings the bytes; taking them away stands for an eviction."""
    publish(upstream, APP, OLD)
    paths = await fill(serve, upstream, APP.filename)
    online = IndexSettings(name="online", upstreams=("up0",))
    proxy = await serve(upstream, indexes=(*OFFLINE, online))
    for _ in range(2):  # the second time from memory
        page = await proxy.get("/simple/app/", Accept=JSON)
        assert offered(page.json) == [APP.filename]

    assert (await proxy.get(f"/index/online{paths[OLD.filename]}")).status == 200
    more = await proxy.get("/simple/app/", Accept=JSON, If_None_Match=page.headers["etag"])
    assert offered(more.json) == [APP.filename, OLD.filename]
    assert (await proxy.get(paths[OLD.filename])).body == OLD.data

    await proxy.service.storage.files.delete(APP.sha256)
    less = await proxy.get("/simple/app/", Accept=JSON, If_None_Match=more.headers["etag"])
    assert offered(less.json) == [OLD.filename]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["/simple/app/", "/pypi/app/json"])
async def test_a_quarantined_project_offers_nothing_offline_either(serve: Start, upstream: FakeUpstream, path: str) -> None:
    publish(upstream, APP)
    paths = await fill(serve, upstream, APP.filename)
    upstream.project("app").keys["project-status"] = {"status": "quarantined"}
    first = await serve(upstream, limits=PageLimits(ttl=0.0))
    await first.page("app")
    await first.stop()
    proxy = await serve(upstream, indexes=OFFLINE)
    document = (await proxy.get(path, Accept=JSON)).json
    assert document.get("files", document.get("urls")) == []
    assert (await proxy.get(paths[APP.filename])).status == 404


@pytest_twisted.ensureDeferred
async def test_a_file_without_a_digest_on_its_page_is_there_by_its_pin(serve: Start, upstream: FakeUpstream) -> None:
    for each in (LIB, OLD):
        upstream.add_file("app", each.filename, each.data, hashes={}, size=None)
    paths = await fill(serve, upstream, LIB.filename)
    proxy = await serve(upstream, indexes=OFFLINE)
    assert offered(await proxy.page("app")) == [LIB.filename]
    assert (await proxy.get(paths[LIB.filename])).body == LIB.data
    assert (await proxy.get(paths[OLD.filename])).status == 404


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("install", [pip_install, uv_pip_install])
async def test_real_clients_install_what_is_there(serve: Start, upstream: FakeUpstream, tmp_path: Path, install: Any) -> None:
    """A newer version is on the page and not there: clients take the one that is."""
    publish(upstream, APP, OLD)
    await fill(serve, upstream, OLD.filename)
    proxy = await serve(upstream, indexes=OFFLINE)
    scratch = await install(tmp_path, f"http://127.0.0.1:{proxy.port}/simple/", "app")
    assert scratch.installed == {"app": "0.9"}

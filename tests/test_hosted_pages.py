"""A hosted index over HTTP: flat pages, provenance, rules, ranges, and bytes that nothing takes away."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted

from proxy.errors import BadRequest, NotFound
from proxy.policy.policy import Policy
from proxy.policy.quarantine import Quarantine
from proxy.settings import IndexSettings
from tests.hosting import drop, hosted, listed, upload
from tests.inprocess import JSON, Running, Start, upstream_settings
from tests.support.fake_upstream import FakeUpstream
from tests.support.larger_than import LargerThan
from tests.support.process import environment, run
from tests.support.wheels import data_of, sdist, wheel

INDEX = "internal"
APP, OLD, LARGE = wheel("app", "2.0"), sdist("app", "1.0"), wheel("app", "3.0", size=200_000)
ATTESTATIONS = [{"version": 1, "verification_material": {"certificate": "…"}, "envelope": {"statement": "e30="}}]


async def stocked(serve: Start, *files: Any, **options: Any) -> Running:
    """A hosted index with *files*."""
    proxy = await serve(indexes=(hosted(),), **options)
    for each in files or (APP, OLD, LARGE, wheel("Other.Name")):
        await upload(proxy.service.receiving[INDEX], each)
    return proxy


async def path_of(proxy: Running, project: str, filename: str) -> str:
    url: str = (await listed(proxy, project))[filename]["url"]
    return urljoin(f"/simple/{project}/", url)


# -- one page with all files --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_links_is_one_page_with_all_files(serve: Start) -> None:
    proxy = await stocked(serve)
    reply = await proxy.get(f"/index/{INDEX}/links/")
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-cache")
    page = reply.body.decode()
    for each in (APP, OLD, LARGE, other := wheel("Other.Name")):
        name = "other-name" if each == other else "app"
        assert f'<a href="../files/{name}/sha256-{each.sha256}/{each.filename}#sha256={each.sha256}"' in page
    again = await proxy.get(f"/index/{INDEX}/links/", If_None_Match=reply.headers["etag"])
    assert again.status == 304
    await upload(proxy.service.receiving[INDEX], wheel("third"))
    assert b"third-1.0" in (await proxy.get("/links/", If_None_Match=reply.headers["etag"])).body
    await proxy.service.administration.perform("delete", index=INDEX, project="third")
    assert b"third-1.0" not in (await proxy.get("/links/")).body
    await proxy.service.administration.perform("status", index=INDEX, project="app", status="quarantined")
    assert b"app-" not in (await proxy.get("/links/")).body
    assert (await proxy.get("/links")).headers["location"] == "links/"


@pytest_twisted.ensureDeferred
async def test_pip_installs_from_links(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, APP, wheel("tool", requires=["app>=1"]))
    where = ["--no-index", "--find-links", f"{proxy.base}/index/{INDEX}/links/", "--target", str(tmp_path / "target")]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", *where, "tool"]
    ended = await run(command, environment(tmp_path), tmp_path)
    assert ended.status == 0, ended.output
    assert sorted(each.name for each in (tmp_path / "target").glob("*.py")) == ["app.py", "tool.py"]


@pytest_twisted.ensureDeferred
async def test_an_index_of_upstreams_has_no_flat_page(upstream: FakeUpstream, serve: Start) -> None:
    proxy = await serve(upstream)
    reply = await proxy.get("/links/")
    assert (reply.status, "from upstream" in reply.json["detail"]) == (404, True)


# -- provenance ---------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_attestations_are_served_as_provenance_at_an_absolute_https_url(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, OLD, trusted_proxies=("127.0.0.1",))
    await upload(proxy.service.receiving[INDEX], APP, attestations=json.dumps(ATTESTATIONS))
    path = await path_of(proxy, "app", APP.filename)
    for _ in range(2):
        for host in ("pypi.corp.example", "other.example"):
            page = await proxy.get("/simple/app/", Accept=JSON, Host=host, X_Forwarded_Proto="https")
            found = {each["filename"]: each.get("provenance") for each in page.json["files"]}
            assert found == {APP.filename: f"https://{host}{path}.provenance", OLD.filename: None}
        assert all(each.get("provenance") is None for each in (await listed(proxy, "app")).values())
    html = await proxy.get("/simple/app/", Accept="text/html", Host="pypi.corp.example", X_Forwarded_Proto="https")
    assert f'data-provenance="https://pypi.corp.example{path}.provenance"' in html.body.decode()
    document = await proxy.get(f"{path}.provenance")
    assert (document.status, document.headers["cache-control"]) == (200, "no-cache")
    assert document.json["attestation_bundles"][0]["attestations"] == ATTESTATIONS
    assert (await proxy.get(f"{await path_of(proxy, 'app', OLD.filename)}.provenance")).status == 404
    note = tmp_path / "data" / "hosted" / INDEX / "app" / f"{APP.filename}.json"
    assert json.loads(note.read_text())["attestations"] == ATTESTATIONS


# -- rules --------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_a_rule_hides_is_hidden_on_every_route(serve: Start) -> None:
    then, now = 1_800_000_000.0, [1_799_999_000.0]
    policy = Policy((Quarantine(), LargerThan(100_000, then)))
    proxy = await stocked(serve, policy=policy, clock=lambda: now[0])
    path = await path_of(proxy, "app", LARGE.filename)
    routes = ("/simple/app/", "/links/", "/pypi/app/json")
    for moment, visible in ((now[0], True), (then, False)):
        now[0] = moment
        for route in routes * 2:
            assert (LARGE.filename.encode() in (await proxy.get(route, Accept=f"{JSON}, */*")).body) is visible, route
        for end in ("", ".metadata"):
            assert (await proxy.get(path + end)).status == (200 if visible else 404)
        assert (await proxy.get("/pypi/app/3.0/json")).status == (200 if visible else 404)


# -- files --------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_files_have_ranges_and_validators(serve: Start) -> None:
    proxy = await stocked(serve)
    path = await path_of(proxy, "app", LARGE.filename)
    head = await proxy.head(path)
    assert (head.status, head.headers["content-length"], head.headers["accept-ranges"]) == (200, str(len(LARGE.data)), "bytes")
    part = await proxy.get(path, Range="bytes=100-199", If_Range=head.headers["etag"])
    assert (part.status, part.body) == (206, LARGE.data[100:200])
    assert (await proxy.get(path, Range=f"bytes={len(LARGE.data)}-")).status == 416
    assert (await proxy.get(path, If_None_Match=head.headers["etag"])).status == 304
    md5 = path.replace(f"sha256-{LARGE.sha256}", f"md5-{hashlib.md5(LARGE.data, usedforsecurity=False).hexdigest()}")
    assert (await proxy.get(md5)).body == LARGE.data
    for wrong in (path.replace(LARGE.sha256, "0" * 64), path.replace("3.0", "3.1"), path.replace("/app/", "/other-name/")):
        assert (await proxy.get(wrong)).status == 404
    assert (await proxy.get(f"{await path_of(proxy, 'app', OLD.filename)}.metadata")).status == 404


@pytest_twisted.ensureDeferred
async def test_bytes_that_the_store_has_lost_come_from_the_directory(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve)
    path = await path_of(proxy, "app", APP.filename)
    stored = tmp_path / "data" / "files" / APP.sha256[:2] / APP.sha256
    stored.unlink()
    assert (await proxy.get(path)).body == APP.data
    assert stored.read_bytes() == APP.data
    stored.unlink()
    place = tmp_path / "data" / "hosted" / INDEX / "app" / APP.filename
    place.write_bytes(APP.data[:-1] + b"x")
    reply = await proxy.get(f"{path}?again")
    assert (reply.status, reply.json["code"]) == (503, "storage-failed")


@pytest_twisted.ensureDeferred
async def test_what_is_hosted_is_never_evicted(upstream: FakeUpstream, serve: Start, tmp_path: Path) -> None:
    size = 100_000
    upstream.rate = None
    for number in range(6):
        upstream.add_file(f"p{number}", f"p{number}-1.0-py3-none-any.whl", data_of(size, number))
    proxied = IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False)
    proxy = await serve(
        upstream_settings(upstream.url, "up0"), indexes=(proxied, hosted(default=False)), max_size=int(3.5 * size)
    )
    own = [wheel("own", f"{number}.0", size=size, seed=number) for number in range(3)]
    for each in own:
        await upload(proxy.service.receiving[INDEX], each)
        stored = tmp_path / "data" / "files" / each.sha256[:2] / each.sha256
        os.utime(stored, (1_000_000_000, 1_000_000_000))  # nobody has asked for it for long
    for number in range(6):
        project = f"p{number}"
        assert (await proxy.get(await proxy.link(project, f"{project}-1.0-py3-none-any.whl"))).status == 200
        await proxy.service.caches.room.settled()
    sizes = dict(await proxy.service.storage.files.walk())
    assert {each.sha256 for each in own} <= sizes.keys()
    assert len(sizes) < 3 + 6


@pytest_twisted.ensureDeferred
async def test_purge_leaves_what_is_hosted_and_names_the_command_that_does_not(
    upstream: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    upstream.add_file("app", APP.filename, APP.data)
    proxied = IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False)
    proxy = await serve(upstream_settings(upstream.url, "up0"), indexes=(proxied, hosted(default=False)))
    await upload(proxy.service.receiving[INDEX], OLD)
    await upload(proxy.service.receiving[INDEX], wheel("own"))
    assert (await proxy.get(await proxy.link("app", APP.filename))).status == 200
    operations = proxy.service.administration.operations
    for question in ({"project": "own"}, {"project": "own", "index": INDEX}, {"project": "app", "index": INDEX}):
        with pytest.raises(BadRequest, match=f"pypiproxy delete {INDEX}"):
            await operations["purge"](lambda note: None, **question)
    gone: Any = await operations["purge"](lambda note: None, project="app")
    assert [each["filename"] for each in gone["removed"]] == [APP.filename]
    await operations["purge_unused"](lambda note: None, seconds=-1.0)
    with pytest.raises(NotFound):
        await operations["purge"](lambda note: None, project="nothing")
    stored = {sha256 for sha256, _ in await proxy.service.storage.files.walk()}
    assert {OLD.sha256, wheel("own").sha256} <= stored
    for project, each in (("app", OLD), ("own", wheel("own"))):
        page = await listed(proxy, project, f"/index/{INDEX}")
        assert page[each.filename]["hashes"] == {"sha256": each.sha256}


@pytest_twisted.ensureDeferred
async def test_a_project_in_several_spellings_of_its_directory_is_one(serve: Start, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "hosted" / INDEX
    for spelling, each in (("My_App", wheel("my.app", "1.0")), ("my-app", wheel("my.app", "2.0"))):
        drop(folder, each)
        (folder / "my-app").rename(folder / f"{spelling}.d")
    (folder / "My_App.d").rename(folder / "My_App")
    (folder / "my-app.d").rename(folder / "my-app")
    proxy = await serve(indexes=(hosted(),))
    assert sorted(await listed(proxy, "my-app")) == ["my_app-1.0-py3-none-any.whl", "my_app-2.0-py3-none-any.whl"]

"""Digests that cannot be one, through the whole service: what they were meant for is not offered, nor served unchecked."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogEvent

from proxy.settings import PageLimits
from tests.inprocess import JSON, Running, Start
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel

MADE = wheel("demo")
NAME, SHA = MADE.filename, MADE.sha256
OTHER = wheel("demo", "2.0")


def publish(upstream: FakeUpstream, hashes: Any, **keys: Any) -> None:
    """A JSON page of two files, one with *hashes*."""
    files = [
        {"filename": NAME, "url": f"{upstream.base}/f/{NAME}", "hashes": hashes, **keys},
        {"filename": OTHER.filename, "url": f"{upstream.base}/f/{OTHER.filename}", "hashes": {"sha256": OTHER.sha256}},
    ]
    document = {"meta": {"api-version": "1.0"}, "name": "demo", "files": files}
    upstream.project("demo").raw = (JSON_TYPE, json.dumps(document).encode())
    for each in (MADE, OTHER):
        upstream.add_path(f"/f/{each.filename}", each.data, "application/octet-stream")


def publish_html(upstream: FakeUpstream, fragment: str, attributes: str = "") -> None:
    upstream.content.json = False
    body = f'<!DOCTYPE html><html><body><a href="/f/{NAME}{fragment}" {attributes}>{NAME}</a></body></html>'
    upstream.project("demo").raw = ("text/html", body.encode())
    upstream.add_path(f"/f/{NAME}", MADE.data, "application/octet-stream")


async def offered(proxy: Running) -> list[str]:
    return [file["filename"] for file in (await proxy.page("demo"))["files"]]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "fragment", ["#sha256=" + SHA[:40], "#md5=" + SHA, "#sha256=" + "z" * 64, "#sha256=", "#sha256%3D" + SHA[:40]]
)
async def test_a_file_whose_fragment_is_no_digest_is_not_offered(upstream: FakeUpstream, run: Start, fragment: str) -> None:
    publish_html(upstream, fragment)
    proxy = await run(upstream)
    assert await offered(proxy) == []
    assert NAME.encode() not in (await proxy.get("/simple/demo/", Accept="text/html")).body
    for asked in ("none", "sha256-" + SHA, "sha256-" + SHA[:40]):
        reply = await proxy.get(f"/files/demo/{asked}/{NAME}")
        assert (reply.status, "digest" in reply.reason) == (404, True), reply
    assert upstream.count("/f/*") == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("hashes", [{"sha256": SHA[:40]}, {"md5": SHA}, {"sha256": 5}, {"sha256": ""}, [SHA], SHA])
async def test_a_file_whose_hashes_are_none_is_not_offered_and_the_others_are(
    upstream: FakeUpstream, run: Start, hashes: Any
) -> None:
    publish(upstream, hashes)
    proxy = await run(upstream)
    assert await offered(proxy) == [OTHER.filename]
    assert (await proxy.get(f"/files/demo/none/{NAME}")).status == 404
    legacy = await proxy.get("/pypi/demo/json")
    assert NAME.encode() not in legacy.body
    assert (await proxy.get(await proxy.link("demo", OTHER.filename))).body == OTHER.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "fragment", ["#sha256%3D" + SHA, "#sha256=" + SHA.upper(), "#SHA256=" + SHA, "#egg=demo&amp;sha256=" + SHA]
)
async def test_a_digest_that_is_written_in_another_way_is_verified(upstream: FakeUpstream, run: Start, fragment: str) -> None:
    publish_html(upstream, fragment)
    proxy = await run(upstream)
    path = await proxy.link("demo", NAME)
    assert path == f"/files/demo/sha256-{SHA}/{NAME}"
    upstream.add_path(f"/f/{NAME}", OTHER.data, "application/octet-stream")
    refused = await proxy.get(path)
    assert not (refused.status == 200 and refused.complete)
    upstream.add_path(f"/f/{NAME}", MADE.data, "application/octet-stream")
    proxy = await run(upstream, data="fresh")
    assert (await proxy.get(await proxy.link("demo", NAME))).body == MADE.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "hashes", [{"sha256": SHA[:40], "md5": hashlib.md5(MADE.data).hexdigest()}, {"sha256": SHA, "md5": SHA}]
)
async def test_where_one_of_several_digests_can_be_one_it_is_verified(upstream: FakeUpstream, run: Start, hashes: Any) -> None:
    publish(upstream, hashes)
    proxy = await run(upstream)
    path = await proxy.link("demo", NAME)
    upstream.add_path(f"/f/{NAME}", OTHER.data, "application/octet-stream")
    refused = await proxy.get(path)
    assert not (refused.status == 200 and refused.complete)
    upstream.add_path(f"/f/{NAME}", MADE.data, "application/octet-stream")
    proxy = await run(upstream, data="fresh")
    assert (await proxy.get(await proxy.link("demo", NAME))).body == MADE.data


@pytest_twisted.ensureDeferred
async def test_what_is_not_offered_is_logged_once_for_each_state_of_the_page(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent]
) -> None:
    publish(upstream, {"sha256": SHA[:40]})
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=5.0))

    def told() -> list[str]:
        return [event["names"] for event in logged if "cannot be verified" in (event.get("log_format") or "")]

    for _ in range(3):
        await proxy.get("/simple/demo/", Accept=JSON)
        await proxy.get("/simple/demo/", Accept="text/html", Cache_Control="no-cache")
        await proxy.get(f"/files/demo/none/{NAME}")
    assert upstream.count("/simple/demo/") > 1
    assert told() == [NAME]
    publish(upstream, {"sha256": SHA[:39]})
    await proxy.page("demo")
    assert told() == [NAME, NAME]
    assert b'event="file with an impossible digest"} 2' in (await proxy.get("/-/metrics")).body


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_verified_stay_when_their_page_is_broken_later(upstream: FakeUpstream, run: Start) -> None:
    publish(upstream, {"sha256": SHA})
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    path = await proxy.link("demo", NAME)
    await proxy.get(path)
    publish(upstream, {"sha256": SHA[:40]})
    assert await proxy.link("demo", NAME) == path
    assert (await proxy.get(path)).body == MADE.data
    assert (await proxy.get(path + ".metadata")).body == MADE.metadata


@pytest_twisted.ensureDeferred
async def test_bytes_that_were_never_verified_do_not_make_up_for_a_broken_digest(upstream: FakeUpstream, run: Start) -> None:
    publish(upstream, {})
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    await proxy.get(await proxy.link("demo", NAME))
    publish(upstream, {"sha256": SHA[:40]})
    assert await offered(proxy) == [OTHER.filename]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("stated", [{"sha256": "0" * 40}, {"md5": "0" * 64}, {"sha256": 5}, {"sha256": None}])
async def test_metadata_whose_digest_cannot_be_one_is_not_asked_for_and_read_out_of_the_wheel(
    upstream: FakeUpstream, run: Start, stated: Any
) -> None:
    publish(upstream, {"sha256": SHA}, **{"core-metadata": stated})
    upstream.add_path(f"/f/{NAME}.metadata", b"Metadata-Version: 2.1\nName: demo\nVersion: 6.6.6\n")
    proxy = await run(upstream)
    path = await proxy.link("demo", NAME)
    assert (await proxy.get(path + ".metadata")).body == MADE.metadata
    assert upstream.count("*.metadata") == 0
    (entry,) = [file for file in (await proxy.page("demo"))["files"] if file["filename"] == NAME]
    assert entry["core-metadata"] == {"sha256": hashlib.sha256(MADE.metadata).hexdigest()}


@pytest_twisted.ensureDeferred
async def test_signatures_are_neither_announced_nor_looked_for(upstream: FakeUpstream, run: Start) -> None:
    publish(upstream, {"sha256": SHA}, **{"gpg-sig": True})
    upstream.add_path(f"/f/{NAME}.asc", b"-----BEGIN PGP SIGNATURE-----", "application/octet-stream")
    proxy = await run(upstream)
    path = await proxy.link("demo", NAME)
    assert not [file for file in (await proxy.page("demo"))["files"] if "gpg-sig" in file]
    assert b"gpg-sig" not in (await proxy.get("/simple/demo/", Accept="text/html")).body
    asked = len(upstream.asked)
    reply = await proxy.get(path + ".asc")
    assert (reply.status, "signatures are not served" in reply.reason) == (404, True)
    assert len(upstream.asked) == asked

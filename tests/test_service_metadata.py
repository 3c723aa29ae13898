"""Metadata of wheels through the whole service: upstream's own, read out by ranges, of the stored file, or none (PEP 658)."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred, gatherResults

from tests.inprocess import Running, Start
from tests.support.content import HTML_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import Distribution, sdist, wheel

BIG = wheel("big", size=400_000)


async def entry(proxy: Running, made: Distribution) -> Any:
    page = await proxy.page(made.project)
    (found,) = [file for file in page["files"] if file["filename"] == made.filename]
    return found


async def metadata_path(proxy: Running, made: Distribution) -> str:
    return await proxy.link(made.project, made.filename) + ".metadata"


@pytest.fixture
def bare(upstream: FakeUpstream) -> FakeUpstream:
    """An upstream that offers no metadata."""
    upstream.add_file("big", BIG.filename, BIG.data)
    return upstream


@pytest_twisted.ensureDeferred
async def test_metadata_is_read_out_of_the_wheel_by_a_small_range_and_never_again(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    assert (await entry(proxy, BIG))["core-metadata"] is True
    path = await metadata_path(proxy, BIG)
    first, second = [await proxy.get(path) for _ in range(2)]
    assert (first.status, first.body, second.body) == (200, BIG.metadata, BIG.metadata)
    assert first.headers["etag"] == second.headers["etag"] == f'"{hashlib.sha256(BIG.metadata).hexdigest()}"'
    assert first.headers["cache-control"] == "public, immutable, max-age=31536000"
    assert ("fwd=miss" in first.headers["cache-status"], "hit" in second.headers["cache-status"]) == (True, True)
    assert bare.count("GET /packages/*") == 1
    assert bare.sent < 100_000


@pytest_twisted.ensureDeferred
async def test_its_digest_is_on_the_page_once_it_is_known(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    await proxy.get(await metadata_path(proxy, BIG))
    digest = hashlib.sha256(BIG.metadata).hexdigest()
    assert (await entry(proxy, BIG))["core-metadata"] == {"sha256": digest}
    html = await proxy.get("/simple/big/", Accept="text/html")
    assert f'data-core-metadata="sha256={digest}"'.encode() in html.body


@pytest_twisted.ensureDeferred
async def test_it_is_kept_over_a_restart(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    path = await metadata_path(proxy, BIG)
    await proxy.get(path)
    await proxy.stop()
    await bare.down()
    again = await run(bare)
    assert (await again.get(path)).body == BIG.metadata
    assert (await entry(again, BIG))["core-metadata"] == {"sha256": hashlib.sha256(BIG.metadata).hexdigest()}


@pytest_twisted.ensureDeferred
async def test_a_hundred_askers_cost_one_range(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    path = await metadata_path(proxy, BIG)
    gate = bare.hold("GET /packages/*")
    replies = gatherResults([ensureDeferred(proxy.get(path)) for _ in range(100)])
    await bare.arrived("GET /packages/*")
    gate.release()
    assert {reply.body for reply in await replies} == {BIG.metadata}
    assert bare.count("GET /packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_metadata_that_stands_at_the_front_takes_a_second_range(upstream: FakeUpstream, run: Start) -> None:
    ballast = {f"{number}.bin": bytes([number]) * 40_000 for number in range(5)}
    front = wheel("front")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("front-1.0.dist-info/METADATA", front.metadata)
        for name, data in ballast.items():
            packed.writestr(name, data)
    upstream.add_file("front", front.filename, out.getvalue())
    proxy = await run(upstream)
    assert (await proxy.get(await metadata_path(proxy, front))).body == front.metadata
    assert upstream.count("GET /packages/*") == 2


@pytest_twisted.ensureDeferred
async def test_a_stored_wheel_is_read_without_asking_upstream(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    path = await proxy.link("big", BIG.filename)
    await proxy.get(path)
    await bare.down()
    assert (await proxy.get(path + ".metadata")).body == BIG.metadata


@pytest_twisted.ensureDeferred
async def test_where_ranges_are_ignored_the_wheel_is_downloaded_once(bare: FakeUpstream, run: Start) -> None:
    bare.script("GET /packages/*", Fault(ignore_range=True))
    proxy = await run(bare)
    path = await proxy.link("big", BIG.filename)
    assert (await proxy.get(path + ".metadata")).body == BIG.metadata
    asked = bare.count("GET /packages/*")
    assert (await proxy.get(path)).body == BIG.data
    assert bare.count("GET /packages/*") == asked


@pytest_twisted.ensureDeferred
async def test_a_wheel_without_readable_metadata_is_not_advertised_again(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("odd", "odd-1.0-py3-none-any.whl", b"no archive at all")
    odd = Distribution("odd", "odd-1.0-py3-none-any.whl", b"", b"")
    proxy = await run(upstream)
    path = await metadata_path(proxy, odd)
    for _ in range(2):
        reply = await proxy.get(path)
        assert reply.status == 404
    assert "no metadata" in reply.reason
    assert (await entry(proxy, odd))["core-metadata"] is False
    html = await proxy.get("/simple/odd/", Accept="text/html")
    assert b"core-metadata" not in html.body
    assert upstream.count("GET /packages/*") == 2, "a range, and the download that settles it"


@pytest.mark.parametrize("core_metadata", [None, True], ids=["no sidecar", "a sidecar that is missing"])
@pytest_twisted.ensureDeferred
async def test_a_damaged_range_is_no_verdict_on_the_wheel(upstream: FakeUpstream, run: Start, core_metadata: Any) -> None:
    upstream.add_file("big", BIG.filename, BIG.data, core_metadata=core_metadata)
    size, length = len(BIG.data), 32_768
    stated = {"Content-Range": f"bytes {size - length}-{size - 1}/{size}"}
    upstream.script("GET *.whl", Fault(status=206, body=bytes(length), headers=stated), times=1)
    proxy = await run(upstream)
    path = await metadata_path(proxy, BIG)
    for _ in range(2):
        reply = await proxy.get(path)
        assert (reply.status, reply.body) == (200, BIG.metadata)
    assert (await entry(proxy, BIG))["core-metadata"] == {"sha256": hashlib.sha256(BIG.metadata).hexdigest()}


@pytest_twisted.ensureDeferred
async def test_an_outage_is_no_verdict_on_the_wheel(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    path = await metadata_path(proxy, BIG)
    bare.script("*/packages/*", Fault(status=500))
    reply = await proxy.get(path)
    assert (reply.status, "retry-after" in reply.headers) == (503, True)
    assert (await entry(proxy, BIG))["core-metadata"] is True


@pytest_twisted.ensureDeferred
async def test_advertised_metadata_that_upstream_does_not_have_is_read_out_of_the_wheel(
    upstream: FakeUpstream, run: Start
) -> None:
    upstream.add_file("big", BIG.filename, BIG.data, core_metadata=True)
    proxy = await run(upstream)
    reply = await proxy.get(await metadata_path(proxy, BIG))
    assert (reply.status, reply.body) == (200, BIG.metadata)


@pytest_twisted.ensureDeferred
async def test_upstreams_own_metadata_is_preferred(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("big", BIG.filename, BIG.data, metadata=BIG.metadata)
    proxy = await run(upstream)
    assert (await proxy.get(await metadata_path(proxy, BIG))).body == BIG.metadata
    assert upstream.count("*.whl") == 0


@pytest_twisted.ensureDeferred
async def test_sdists_are_not_offered_with_metadata(upstream: FakeUpstream, run: Start) -> None:
    made = sdist("src")
    upstream.add_file("src", made.filename, made.data)
    proxy = await run(upstream)
    assert "core-metadata" not in await entry(proxy, made)
    assert (await proxy.get(await metadata_path(proxy, made))).status == 404


@pytest_twisted.ensureDeferred
async def test_head_of_metadata_is_truthful(bare: FakeUpstream, run: Start) -> None:
    proxy = await run(bare)
    reply = await proxy.head(await metadata_path(proxy, BIG))
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(BIG.metadata)))


@pytest_twisted.ensureDeferred
async def test_files_without_any_digest_have_metadata_too(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("big", BIG.filename, BIG.data, hashes={})
    proxy = await run(upstream)
    assert (await proxy.get(await metadata_path(proxy, BIG))).body == BIG.metadata


@pytest_twisted.ensureDeferred
async def test_a_page_out_of_html_becomes_one_of_1_1_when_all_its_sizes_are_known(upstream: FakeUpstream, run: Start) -> None:
    upstream.content.json = False
    made = [wheel("small", version) for version in ("1.0", "2.0")]
    for each in made:
        upstream.add_file("small", each.filename, each.data)
    proxy = await run(upstream)
    for each in made:
        assert (await proxy.page("small"))["meta"]["api-version"] == "1.0"
        await proxy.get(await proxy.link("small", each.filename))
    page = await proxy.page("small")
    assert (page["meta"]["api-version"], page["versions"]) == ("1.1", ["1.0", "2.0"])
    assert [file["size"] for file in page["files"]] == [len(each.data) for each in made]
    html = await proxy.get("/simple/small/", Accept=HTML_TYPE)
    assert b'content="1.1"' in html.body

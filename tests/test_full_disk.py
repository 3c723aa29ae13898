"""A disk that is really full, under a real proxy: nothing crashes, every client gets its bytes."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from urllib.parse import urljoin

import pytest
import pytest_twisted

from tests.inprocess import JSON
from tests.support import wire
from tests.support.catalogue import list_names
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess, can_mount
from tests.support.wheels import data_of, wheel

pytestmark = pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")

DISK = 8_000_000
A, B, C = (data_of(3_000_000, seed=seed) for seed in range(3))
MakeProxy = Callable[..., ProxyProcess]


@pytest.fixture
def three(upstream: FakeUpstream) -> FakeUpstream:
    for name, data in (("a", A), ("b", B), ("c", C)):
        upstream.add_file(name, f"{name}-1.0-py3-none-any.whl", data)
    return upstream


async def get(proxy: ProxyProcess, project: str, companion: str = "") -> wire.Reply:
    page = await wire.fetch(proxy.port, f"/simple/{project}/", Accept=JSON)
    assert page.status == 200, page
    return await wire.fetch(proxy.port, urljoin(f"/simple/{project}/", page.json["files"][0]["url"]) + companion)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest_twisted.ensureDeferred
async def test_without_limits_a_full_disk_is_passed_by(three: FakeUpstream, make_proxy: MakeProxy) -> None:
    proxy = await make_proxy(three.url, disk=DISK).started()
    for project, data in (("a", A), ("b", B), ("c", C), ("a", A), ("c", C)):
        assert (await get(proxy, project)).body == data
    assert proxy.files == sorted(map(sha256, (A, B)))
    await proxy.stop()
    assert "no room in the data directory for c-1.0-py3-none-any.whl" in proxy.log
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_with_limits_files_make_room_for_others(three: FakeUpstream, make_proxy: MakeProxy) -> None:
    proxy = await make_proxy(three.url, disk=DISK, config='[server]\nmax_size = "1GB"\n').started()
    for project, data in (("a", A), ("b", B), ("a", A), ("c", C), ("c", C)):
        assert (await get(proxy, project)).body == data
    assert proxy.files == sorted(map(sha256, (A, C)))
    assert three.count("/packages/*c-1.0*") == 1
    await proxy.stop()
    assert "evicted 1 files" in proxy.log
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_a_file_that_does_not_fit_at_all_drives_out_nothing(three: FakeUpstream, make_proxy: MakeProxy) -> None:
    huge = data_of(2 * DISK)
    three.add_file("huge", "huge-1.0-py3-none-any.whl", huge)
    proxy = await make_proxy(three.url, disk=DISK, config='[server]\nmax_size = "1GB"\n').started()
    assert (await get(proxy, "a")).body == A
    assert (await get(proxy, "huge")).body == huge
    assert proxy.files == [sha256(A)]


@pytest_twisted.ensureDeferred
async def test_while_not_one_byte_fits_pages_and_files_are_served_all_the_same(
    three: FakeUpstream, make_proxy: MakeProxy
) -> None:
    huge = data_of(2 * DISK)
    three.add_file("huge", "huge-1.0-py3-none-any.whl", huge)
    small = wheel("small")
    three.add_file("small", small.filename, small.data)
    proxy = await make_proxy(three.url, disk=DISK).started()
    gate = three.hold("/packages/*huge*", after=DISK + 1_000_000)
    page = await wire.fetch(proxy.port, "/simple/huge/", Accept=JSON)
    first = await wire.ask(proxy.port, urljoin("/simple/huge/", page.json["files"][0]["url"]))
    await first.got(DISK)
    for project, data in (("a", A), ("b", B), ("a", A)):
        assert (await get(proxy, project)).body == data
    assert (await get(proxy, "small", ".metadata")).body == small.metadata
    assert (await wire.fetch(proxy.port, "/-/ready")).status == 200
    for accept, coding in ((JSON, "identity"), (JSON, "gzip"), ("text/html", "identity"), (JSON, "identity")):
        listed = await wire.fetch(proxy.port, "/simple/", Accept=accept, Accept_Encoding=coding)
        assert listed.status == 200
        assert b"huge" in (gzip.decompress(listed.body) if coding == "gzip" else listed.body)
    assert proxy.files == []
    gate.release()
    assert (await first.reply()).body == huge
    assert (await get(proxy, "a")).body == A
    assert proxy.files == [sha256(A)]
    await proxy.stop()
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_a_list_of_projects_that_does_not_fit_is_whole(three: FakeUpstream, make_proxy: MakeProxy) -> None:
    names, room = 100_000, 3_000_000
    list_names(three, names)
    proxy = await make_proxy(three.url, disk=room).started()
    for _ in range(2):
        listed = await wire.fetch(proxy.port, "/simple/", Accept=JSON)
        assert (listed.status, len(listed.json["projects"])) == (200, names)
    assert len(listed.body) > room
    await proxy.stop()
    assert "cannot be written and is held in memory: No space left on device" in proxy.log
    assert "Traceback" not in proxy.log

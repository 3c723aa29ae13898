"""``pypiproxy pin``, ``unpin`` and ``pins``: with a real proxy, and without."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from urllib.parse import urljoin

import pytest_twisted

from tests.inprocess import JSON
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ProxyProcess
from tests.support.wheels import data_of

MakeProxy = Callable[..., ProxyProcess]
SIZE = 100_000
FILES = ["a_b-1.0-py3-none-any.whl", "a_b-1.0.tar.gz", "a_b-2.0.tar.gz"]


async def with_files(upstream: FakeUpstream, make_proxy: MakeProxy, **options: str) -> tuple[ProxyProcess, Operator]:
    """A proxy that has all files but the last of *a-b*, and who looks after it."""
    for number, filename in enumerate(FILES):
        upstream.add_file("a-b", filename, data_of(SIZE, number))
    proxy = await make_proxy(upstream.url, **options).started()
    for filename in FILES[:2]:
        assert (await wire.fetch(proxy.port, await path_of(proxy, filename))).status == 200
    return proxy, Operator(proxy.place, proxy.data_dir)


async def path_of(proxy: ProxyProcess, filename: str) -> str:
    page = await wire.fetch(proxy.port, "/simple/a-b/", Accept=JSON)
    (url,) = [file["url"] for file in page.json["files"] if file["filename"] == filename]
    return str(urljoin("/simple/a-b/", url))


@pytest_twisted.ensureDeferred
async def test_pinned_files_are_listed_until_they_are_unpinned(upstream: FakeUpstream, make_proxy: MakeProxy) -> None:
    _, operator = await with_files(upstream, make_proxy)
    pinned = await operator.run("pin", "A.b")
    assert pinned.output.splitlines() == [f"{FILES[0]} (pypi)", f"{FILES[1]} (pypi)", "2 files pinned"]
    (wheel, sdist) = await operator.lines("pins")
    assert (wheel["index"], wheel["project"], wheel["filename"]) == ("pypi", "a-b", FILES[0])
    assert sdist["size"] == SIZE
    assert await operator.json("unpin", "a-b", FILES[1]) == [{"index": "pypi", "project": "a-b", "filename": FILES[1]}]
    shown = (await operator.run("pins")).output
    assert FILES[0] in shown
    assert "100.0 kB" in shown
    assert FILES[1] not in shown


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_told(upstream: FakeUpstream, make_proxy: MakeProxy) -> None:
    _, operator = await with_files(upstream, make_proxy)
    for arguments, said in (
        (("pin", "a-b", "2.0"), "nothing of a-b 2.0 is stored yet: fetch it through the proxy, then pin it"),
        (("unpin", "a-b"), "nothing of a-b is pinned; pypiproxy pins lists what is"),
        (("pin", "a/b"), "'a/b' is no name of a project"),
        (("pin", "a-b", "--index", "corp"), "there is no index named 'corp' here; there is pypi"),
    ):
        ended = await operator.run(*arguments)
        assert (ended.status, ended.output.strip()) == (1, said)


@pytest_twisted.ensureDeferred
async def test_without_a_running_proxy_files_are_pinned_for_the_next(upstream: FakeUpstream, make_proxy: MakeProxy) -> None:
    proxy, operator = await with_files(upstream, make_proxy)
    await proxy.stop()
    assert (await operator.run("pin", "a-b", "1.0")).status == 0
    await proxy.started()
    assert [file["filename"] for file in await operator.lines("pins")] == FILES[:2]


@pytest_twisted.ensureDeferred
async def test_files_of_a_pinned_project_that_are_stored_later_are_pinned_too(
    upstream: FakeUpstream, make_proxy: MakeProxy
) -> None:
    proxy, operator = await with_files(upstream, make_proxy, config='[server]\nmax_size = "250kB"\n')
    pinned = await operator.run("pin", "A.b", "--project")
    assert pinned.output.splitlines() == [
        "a-b: all files, also future ones (pypi)",
        f"{FILES[0]} (pypi)",
        f"{FILES[1]} (pypi)",
        "2 files pinned",
    ]
    assert (await wire.fetch(proxy.port, await path_of(proxy, FILES[2]))).status == 200
    assert proxy.process is not None
    await proxy.process.until(lambda: "bytes too many are on the disk" in proxy.log, 60.0)
    assert [each["filename"] for each in await operator.lines("pins")] == [None, *FILES]
    await proxy.restart()
    assert [each["filename"] for each in await operator.lines("pins")] == [None, *FILES]
    gone = await operator.json("purge", "--unused-for", "0s")
    assert (gone["files"], len(gone["pinned"])) == (0, 3)
    ended = await operator.run("unpin", "a-b", "2.0")
    assert (ended.status, "unpin a-b as a whole" in ended.output) == (1, True)
    assert (await operator.json("unpin", "a-b"))[0] == {"index": "pypi", "project": "a-b", "filename": None}
    assert await operator.lines("pins") == []
    assert (await operator.json("purge", "--unused-for", "0s"))["files"] == 3


@pytest_twisted.ensureDeferred
async def test_a_project_may_be_pinned_before_anything_of_it_is_stored(upstream: FakeUpstream, make_proxy: MakeProxy) -> None:
    _, operator = await with_files(upstream, make_proxy)
    assert (await operator.run("pin", "other", "--project")).status == 0
    (row,) = await operator.lines("pins")
    assert (row["project"], row["filename"], row["size"]) == ("other", None, None)
    ended = await operator.run("pin", "other", "1.0", "--project")
    assert (ended.status, "leave VERSION or FILE out" in ended.output) == (2, True)


@pytest_twisted.ensureDeferred
async def test_a_pinned_file_stays_where_others_go(upstream: FakeUpstream, make_proxy: MakeProxy) -> None:
    proxy, operator = await with_files(upstream, make_proxy, config='[server]\nmax_size = "250kB"\n')
    await operator.json("pin", "a-b", FILES[0])
    assert (await wire.fetch(proxy.port, await path_of(proxy, FILES[2]))).status == 200
    assert proxy.process is not None
    await proxy.process.until(lambda: "evicted 1 files" in proxy.log, 60.0)
    await proxy.stop()
    left = {hashlib.sha256(data_of(SIZE, number)).hexdigest() for number in (0, 2)}
    assert {path.name for path in proxy.data_dir.glob("files/*/*")} == left

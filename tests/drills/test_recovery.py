"""The runbook's two sections about disasters, done by its steps: a lost data directory, and a disk that is full at night."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater

from tests.drills.monitoring import PROMETHEUS, Monitoring
from tests.support import wire
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import Ended, ProxyProcess, can_mount, environment, run
from tests.support.wheels import data_of

reactor: Any = default_reactor

MakeProxy = Callable[..., ProxyProcess]
MEGABYTE = 1_000_000
BYTES = {name: data_of(3_000, seed=seed) for seed, name in enumerate(("old", "older", "new"))}


async def page(proxy: ProxyProcess, project: str) -> wire.Reply:
    return await wire.fetch(proxy.port, f"/simple/{project}/", Accept=JSON_TYPE)


async def file(proxy: ProxyProcess, project: str) -> bytes:
    """The bytes of the only file of *project*."""
    (listed,) = (await page(proxy, project)).json["files"]
    reply = await wire.fetch(proxy.port, urljoin(f"/simple/{project}/", listed["url"]))
    assert reply.status == 200, reply
    return reply.body


async def ready(proxy: ProxyProcess) -> str:
    return (await wire.fetch(proxy.port, "/-/ready")).body.decode()


def downloads(upstream: FakeUpstream) -> int:
    return upstream.count("/packages/*")


class Disaster:
    """A proxy that was backed up yesterday, and has stored something since."""

    def __init__(self, proxy: ProxyProcess, upstream: FakeUpstream) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self.operator = Operator(proxy.place, proxy.data_dir)
        self.backup = proxy.place / "backup.tar.zst"
        self.old = proxy.place / "data.old"

    async def prepared(self) -> Disaster:
        for name, data in BYTES.items():
            self.upstream.add_file(name, f"{name}-1.0.tar.gz", data)
        await self.proxy.started()
        for name in ("old", "older"):
            assert await file(self.proxy, name) == BYTES[name]
        assert (await self.operator.run("pin", "old")).status == 0
        assert (
            await self.operator.without_directory("backup", "--data-dir", str(self.proxy.data_dir), str(self.backup))
        ).status == 0
        assert await file(self.proxy, "new") == BYTES["new"]
        await self.proxy.stop()
        return self

    async def restore(self) -> None:
        """Steps 1 and 2 of the runbook."""
        self.proxy.data_dir.rename(self.old)
        self.proxy.data_dir.mkdir(mode=0o700)
        ended = await self.operator.without_directory("restore", str(self.backup), str(self.proxy.data_dir))
        assert ended.status == 0, ended

    async def put_files_back(self) -> None:
        """Step 3."""
        command = f'test ! -d "{self.old}/files" || cp --archive --no-clobber "{self.old}/files" "{self.proxy.data_dir}/"'
        ended = await run(["/bin/sh", "-c", command], environment(self.proxy.place), self.proxy.place)
        assert ended.status == 0, ended

    async def repair(self) -> Ended:
        """Step 4."""
        await self.proxy.started()
        return await self.operator.run("verify", "--repair")

    async def pinned(self) -> set[str]:
        return {each["filename"] for each in await self.operator.lines("pins")}

    async def everything_is_served(self) -> None:
        for name, data in BYTES.items():
            assert await file(self.proxy, name) == data
        assert await self.pinned() == {"old-1.0.tar.gz"}
        assert await ready(self.proxy) == "ready\n"


@pytest_twisted.ensureDeferred
async def test_a_lost_directory_is_restored_and_what_it_had_is_fetched_again(
    upstream: FakeUpstream, make_proxy: MakeProxy
) -> None:
    lost = await Disaster(make_proxy(upstream.url), upstream).prepared()
    shutil.rmtree(lost.proxy.data_dir)
    lost.proxy.data_dir.mkdir()
    await lost.restore()
    await lost.put_files_back()  # there are none
    assert downloads(upstream) == 3
    ended = await lost.repair()
    assert (ended.status, "0 damaged" in ended.output) == (0, True), ended
    assert downloads(upstream) == 5
    await upstream.down()
    for name in ("old", "older"):  # what the backup knew is complete without any upstream
        assert await file(lost.proxy, name) == BYTES[name]
    upstream.up()
    await wire.fetch_until(lost.proxy.port, "/simple/new/", lambda reply: reply.status == 200)
    await lost.everything_is_served()


@pytest.mark.parametrize(
    "gone", [("files",), ("ledger", "files"), ("ledger-copy", "records"), ("records", "files", "statistics")]
)
@pytest_twisted.ensureDeferred
async def test_half_a_directory_is_completed_by_a_start(
    upstream: FakeUpstream, make_proxy: MakeProxy, gone: tuple[str, ...]
) -> None:
    half = await Disaster(make_proxy(upstream.url), upstream).prepared()
    for name in gone:
        shutil.rmtree(half.proxy.data_dir / name)
    ended = await half.repair()
    assert (ended.status, "0 damaged" in ended.output) == (0, True), ended
    assert downloads(upstream) == (6 if "files" in gone else 3)
    # The first-seen digests are still known: other bytes under an old name are refused.
    upstream.add_file("old", "old-1.0.tar.gz", BYTES["new"])
    await half.operator.run("refresh", "old")
    await half.everything_is_served()


@pytest_twisted.ensureDeferred
async def test_the_backup_of_yesterday_and_the_files_of_today_need_no_download(
    upstream: FakeUpstream, make_proxy: MakeProxy
) -> None:
    half = await Disaster(make_proxy(upstream.url), upstream).prepared()
    for name in ("ledger", "ledger-copy", "records"):
        shutil.rmtree(half.proxy.data_dir / name)
    await half.restore()
    await half.put_files_back()
    await upstream.down()
    await half.proxy.started()
    for name in ("old", "older"):
        assert await file(half.proxy, name) == BYTES[name]
    assert (await page(half.proxy, "new")).status == 503  # its page is younger than the backup
    upstream.up()
    await wire.fetch_until(half.proxy.port, "/simple/new/", lambda reply: reply.status == 200)
    await half.everything_is_served()
    assert downloads(upstream) == 3
    ended = await half.operator.run("verify")
    assert (ended.status, "0 damaged, 0 missing" in ended.output) == (0, True), ended


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (make system-packages)")
@pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_full_at_four_in_the_morning(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    for number in range(8):
        upstream.add_file(f"big{number}", f"big{number}-1.0.tar.gz", data_of(3 * MEGABYTE, seed=number))
    proxy = await make_proxy(upstream.url, disk=20 * MEGABYTE).started()
    assert proxy.process is not None
    inside = ("nsenter", "--target", str(proxy.process.pid), "--user", "--mount", "--preserve-credentials")
    operator = Operator(proxy.place, proxy.data_dir, before=inside)
    monitoring = Monitoring(tmp_path / "prometheus", proxy.port, 360.0)
    try:
        await monitoring.start()
        # The nightly job, which fills the disk.
        for number in range(8):
            assert await file(proxy, f"big{number}") == data_of(3 * MEGABYTE, seed=number)

        async def builds() -> None:
            assert await file(proxy, "big7") == data_of(3 * MEGABYTE, seed=7)

        noticed = await monitoring.fires("PypiproxyDiskFull", builds)
        assert noticed.runbook.endswith("#pypiproxydiskfull")
        assert "the file system of the data directory is full" in await ready(proxy)
        stored = len(proxy.files)
        await deferLater(reactor, 3.5)  # for 90 days
        dry = await operator.run("purge", "--unused-for", "3s", "--dry-run")
        assert (dry.status, f"{stored} files would be removed" in dry.output, len(proxy.files)) == (0, True, stored), dry
        purged = await operator.run("purge", "--unused-for", "3s")
        assert (purged.status, f"{stored} files removed" in purged.output) == (0, True), purged
        await monitoring.is_over("PypiproxyDiskFull", builds)
        assert await ready(proxy) == "ready\n"
        # Files are stored again, without a restart.
        await builds()
        assert len(proxy.files) == 1
    finally:
        await monitoring.stop()
    await proxy.stop()
    assert "Traceback" not in proxy.log

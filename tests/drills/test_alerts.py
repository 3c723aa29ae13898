"""Each alert fires when its fault is made, in a real proxy that a real Prometheus scrapes, and is over when the fault is.

``make drills`` runs this.  The rules are those of ``conf/prometheus/alerts.yml``, with durations that are much shorter.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from msgspec import Struct
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater

from proxy.accounts.passwords import hashed
from tests.drills.monitoring import PROMETHEUS, Monitoring
from tests.support import certs, wire
from tests.support.alerting import alert_rules
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ProxyProcess, can_mount
from tests.support.wheels import wheel

reactor: Any = default_reactor

MEGABYTE = 1_000_000


class Scene(Struct):
    """A proxy, its upstream, and what happens there until the alert is noticed; *shown* is what a first look has to show."""

    proxy: ProxyProcess
    upstream: FakeUpstream
    shown: str = ""
    also: Callable[[], Awaitable[None]] | None = None

    @property
    def data(self) -> Path:
        """The data directory as the process sees it."""
        assert self.proxy.process is not None
        return Path(f"/proc/{self.proxy.process.pid}/root{self.proxy.data_dir}")

    @property
    def operator(self) -> Operator:
        return Operator(self.proxy.place, self.proxy.data_dir)

    async def meanwhile(self) -> None:
        """What a farm does: builds that request what is cached, and what is not."""
        if self.also is not None:
            await self.also()
        if self.proxy.process is not None:
            await self.page("six")
            await self.page(f"new-{os.urandom(4).hex()}")

    async def page(self, project: str) -> wire.Reply:
        return await wire.fetch(self.proxy.port, f"/simple/{project}/", Accept=JSON_TYPE)

    async def file(self, project: str) -> wire.Reply:
        """The first file of *project*."""
        listed = (await self.page(project)).json["files"][0]
        return await wire.fetch(self.proxy.port, urljoin(f"/simple/{project}/", listed["url"]))

    async def ready(self) -> str:
        return (await wire.fetch(self.proxy.port, "/-/ready")).body.decode()


Cause = Callable[[Scene], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def the_proxy_is_stopped(scene: Scene) -> AsyncIterator[None]:
    await scene.proxy.stop()
    yield
    await scene.proxy.started()


@asynccontextmanager
async def the_proxy_crashes_again_and_again(scene: Scene) -> AsyncIterator[None]:
    for _ in range(4):
        await scene.proxy.kill()
        await scene.proxy.started()
        await deferLater(reactor, 2.5)  # each is to be scraped
    yield


@asynccontextmanager
async def upstream_refuses_connections(scene: Scene) -> AsyncIterator[None]:
    await scene.upstream.down()
    scene.shown = "no upstream answers"
    yield
    scene.upstream.up()


@asynccontextmanager
async def the_process_is_stopped_most_of_the_time(scene: Scene) -> AsyncIterator[None]:
    process = scene.proxy.process
    assert process is not None

    async def stumble() -> None:
        process.signal(signal.SIGSTOP)
        await deferLater(reactor, 2.0)
        process.signal(signal.SIGCONT)
        await deferLater(reactor, 1.3)

    scene.also = stumble
    yield
    scene.also = None


@asynccontextmanager
async def a_directory_cannot_be_written(scene: Scene) -> AsyncIterator[None]:
    place, away = scene.data / "partial", scene.data / "partial.away"
    place.rename(away)
    place.write_text("no directory")
    scene.shown = "partial/ in the data directory cannot be written"
    yield
    place.unlink()
    away.rename(place)


@asynccontextmanager
async def another_program_locks_the_database(scene: Scene) -> AsyncIterator[None]:
    await scene.proxy.stop()  # it shares its databases with nobody
    database = sqlite3.connect(scene.proxy.data_dir / "records" / "cache.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    await scene.proxy.started()
    scene.shown = "the database records takes nothing"
    yield
    database.execute("ROLLBACK")
    database.close()


@asynccontextmanager
async def the_file_of_users_is_taken_away(scene: Scene) -> AsyncIterator[None]:
    users, away = scene.data / "users", scene.data / "users.away"
    users.write_text(f"alice:{hashed(b'correct horse battery')}\n", "utf-8")
    assert await scene.ready() == "ready\n"  # and it has been read
    users.rename(away)
    scene.shown = "access.users_file cannot be read"
    yield
    away.rename(users)


@asynccontextmanager
async def too_many_wait_for_upstream(scene: Scene) -> AsyncIterator[None]:
    gate = scene.upstream.hold("/simple/*")
    waits = await wire.ask(scene.proxy.port, "/simple/waits/")
    scene.shown = "may wait"
    yield
    gate.release()
    await waits.ended


@asynccontextmanager
async def the_disk_fills_up(scene: Scene) -> AsyncIterator[None]:
    filler = scene.data / "core.dump"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MEGABYTE // 10))
        except OSError:
            scene.shown = "the file system of the data directory is full"
    yield
    filler.unlink()


@asynccontextmanager
async def the_disk_fills_slowly(scene: Scene) -> AsyncIterator[None]:
    filler = scene.data / "core.dump"

    async def fill() -> None:
        with filler.open("ab") as file:
            file.write(bytes(MEGABYTE // 10))

    scene.also = fill
    yield
    scene.also = None
    filler.unlink()


@asynccontextmanager
async def a_stored_file_is_damaged(scene: Scene) -> AsyncIterator[None]:
    (stored,) = (path for path in (scene.data / "files").rglob("*") if path.is_file())
    stored.write_bytes(stored.read_bytes()[::-1])
    found = await scene.operator.run("verify")
    assert (found.status, "1 damaged" in found.output) == (1, True), found
    scene.shown = "set aside within the last day"
    yield
    for each in (scene.data / "quarantine").iterdir():
        each.unlink()


@asynccontextmanager
async def upstream_replaces_a_file(scene: Scene) -> AsyncIterator[None]:
    first, other = wheel("six"), wheel("six", size=30_000)
    scene.upstream.add_file("six", first.filename, other.data)
    (refreshed,) = await scene.operator.lines("refresh", "six")
    assert refreshed["outcome"] == "changed", (refreshed, scene.proxy.log)
    yield


@asynccontextmanager
async def a_certificate_expires(scene: Scene) -> AsyncIterator[None]:
    certs.server("127.0.0.1", expired=True).write(scene.proxy.place, "server")
    scene.shown = "has expired"
    yield
    certs.server("127.0.0.1").write(scene.proxy.place, "server")


@asynccontextmanager
async def a_certificate_is_overwritten_with_something_else(scene: Scene) -> AsyncIterator[None]:
    certificate = scene.proxy.place / "server.crt"
    good = certificate.read_bytes()
    certificate.write_bytes(b"not a certificate")
    scene.shown = "the last good value is still used"
    yield
    certificate.write_bytes(good)


class Drill(Struct, frozen=True):
    """What causes an alert, on a proxy with these settings and a disk of its own of so many bytes.

    Durations of the rules are divided by *factor*.
    """

    cause: Cause
    server: str = ""
    index: str = ""
    disk: int | None = None
    factor: float = 360.0
    with_tls: bool = False


#: The drill of each alert.
DRILLS: Mapping[str, Drill] = {
    "PypiproxyDown": Drill(the_proxy_is_stopped),
    "PypiproxyRestarts": Drill(the_proxy_crashes_again_and_again, factor=45.0),
    "PypiproxyBuildsFail": Drill(upstream_refuses_connections),
    "PypiproxyReactorBlocked": Drill(the_process_is_stopped_most_of_the_time, factor=20.0),
    "PypiproxyStoreUnusable": Drill(a_directory_cannot_be_written),
    "PypiproxyDatabaseUnavailable": Drill(another_program_locks_the_database),
    "PypiproxyRightsUnknown": Drill(the_file_of_users_is_taken_away),
    "PypiproxyUpstreamDown": Drill(upstream_refuses_connections),
    "PypiproxyServingStale": Drill(upstream_refuses_connections, index='ttl = "1s"'),
    "PypiproxyOverloaded": Drill(too_many_wait_for_upstream, server="max_waiting = 1"),
    "PypiproxyDiskFull": Drill(the_disk_fills_up, disk=20 * MEGABYTE),
    "PypiproxyDiskFillsSoon": Drill(the_disk_fills_slowly, disk=400 * MEGABYTE),
    "PypiproxyDamage": Drill(a_stored_file_is_damaged),
    "PypiproxyDigestChanged": Drill(upstream_replaces_a_file),
    "PypiproxyCertificateExpires": Drill(a_certificate_expires, with_tls=True),
    "PypiproxyDegraded": Drill(a_certificate_is_overwritten_with_something_else, with_tls=True),
}

CONFIG = """\
[server]
{server}
[upstream.pypi]
url = "{url}"
[[index]]
name = "pypi"
upstreams = ["pypi"]
prefetch = false
{index}
"""


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (make system-packages)")
@pytest.mark.parametrize("alert", DRILLS)
@pytest_twisted.ensureDeferred
async def test_the_alert_fires_and_is_over(
    alert: str, upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    drill = DRILLS[alert]
    if drill.disk is not None and not can_mount():
        pytest.skip("file systems cannot be mounted here")
    made = wheel("six")
    upstream.add_file("six", made.filename, made.data)
    options = []
    if drill.with_tls:
        certificate, key = certs.server("127.0.0.1").write(tmp_path, "server")
        options = ["--listen", f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"]
    config = CONFIG.format(server=drill.server, url=upstream.url, index=drill.index)
    proxy = make_proxy(config=config, options=options, disk=drill.disk)
    if drill.with_tls:
        for name in ("server.crt", "server.key"):
            (proxy.place / name).symlink_to(tmp_path / name)
    await proxy.started()
    scene = Scene(proxy, upstream)
    assert (await scene.file("six")).body == made.data
    assert await scene.ready() == "ready\n"
    monitoring = Monitoring(tmp_path / "prometheus", proxy.port, drill.factor)
    try:
        await monitoring.start()
        async with drill.cause(scene):
            noticed = await monitoring.fires(alert, scene.meanwhile)
            (rule,) = (each for each in alert_rules() if each.name == alert)
            assert noticed.runbook == rule.runbook
            assert "<" not in noticed.summary  # what Prometheus writes where a template cannot be filled in
            assert f"127.0.0.1:{proxy.port}" in noticed.summary
            assert scene.shown in (await scene.ready() if scene.shown else "")
        await monitoring.is_over(alert, scene.meanwhile)
        # Whatever was wrong, builds get what is cached.
        assert (await scene.file("six")).body == made.data
    finally:
        await monitoring.stop()

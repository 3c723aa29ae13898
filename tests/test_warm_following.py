"""Keeping ready what is wanted: the running proxy by its ``[warm]``, and ``pypiproxy warm --follow``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from proxy.host.following import Following, goal
from proxy.settings import GrantSettings, PageLimits, WarmSettings
from proxy.warm.following import follow
from proxy.warm.inputs import Problem
from proxy.warm.looking import Warmed, look
from proxy.warm.progress import Quiet
from proxy.warm.report import Outcome, WarmReport
from tests.inprocess import Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess
from tests.support.wheels import wheel

OLD, NEW = wheel("lib", "1.0"), wheel("lib", "1.1")


class FollowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[WarmReport] = []
        self.reports: list[WarmReport] = []
        self.looks = 0

    async def look(self) -> WarmReport:
        self.looks += 1
        return self.reports.pop(0) if self.reports else WarmReport()

    def start(self, *reports: WarmReport) -> Deferred[WarmReport]:
        self.reports += reports
        return Deferred.fromCoroutine(follow(self.look, 3600.0, self.clock, self.told.append))

    def test_it_looks_at_once_and_then_at_intervals(self) -> None:
        running = self.start()
        self.assertEqual(self.looks, 1)
        self.clock.advance(3599)
        self.assertEqual(self.looks, 1)
        self.clock.advance(1)
        self.assertEqual(self.looks, 2)
        running.cancel()
        self.failureResultOf(running)

    def test_only_what_changes_is_told(self) -> None:
        failing = [WarmReport(problems=[Problem("six", "gone")]) for _ in range(3)]
        fetching = WarmReport(outcomes=[Outcome("lib", "1.0", OLD.filename, "fetched", 1)])
        quiet = WarmReport(outcomes=[Outcome("lib", "1.0", OLD.filename, "there", 1)])
        running = self.start(*failing, fetching, quiet, quiet)
        for _ in range(5):
            self.clock.advance(3600)
        self.assertEqual(self.told, [failing[0], fetching])
        running.cancel()
        self.failureResultOf(running)

    def test_one_that_was_stopped_ends_it(self) -> None:
        stopped = WarmReport(stopped=True)
        self.assertIs(self.successResultOf(self.start(stopped)), stopped)


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    upstream.add_file("lib", OLD.filename, OLD.data, metadata=OLD.metadata)
    return upstream


def following(proxy: Running, settings: WarmSettings) -> Following:
    return Following(settings, lambda: f"http://127.0.0.1:{proxy.port}/simple/", proxy.service.administration.perform, reactor)


async def looked(proxy: Running, settings: WarmSettings, folder: Path) -> dict[str, str]:
    """What one look makes of each file."""
    warmed = Warmed(f"http://127.0.0.1:{proxy.port}/simple/", proxy.service.administration.perform)
    report = await look(goal(settings), warmed, folder, Quiet(), reactor)
    return {outcome.filename: outcome.state for outcome in report.outcomes}


@pytest_twisted.ensureDeferred
async def test_what_only_users_may_read_is_kept_ready(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(stocked, grants=(GrantSettings(role="reader", principals=("user:alice",)),))
    settings = WarmSettings(projects=("lib",))
    assert await looked(proxy, settings, tmp_path) == {}
    url = proxy.service.own_index_url()
    report = await look(goal(settings), Warmed(url, proxy.service.administration.perform), tmp_path, Quiet(), reactor)
    assert {outcome.filename: outcome.state for outcome in report.outcomes} == {OLD.filename: "fetched"}
    assert report.problems == []
    secret = url.partition("@")[0].rpartition(":")[2]
    assert len(secret) > 40
    assert secret not in repr(report)


@pytest_twisted.ensureDeferred
async def test_a_new_version_is_fetched_when_it_appears(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("lib\n")
    proxy = await run(stocked, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    settings = WarmSettings(files=(tmp_path / "requirements.txt",), pin=True)
    assert await looked(proxy, settings, tmp_path) == {OLD.filename: "fetched"}
    assert await looked(proxy, settings, tmp_path) == {OLD.filename: "there"}
    stocked.add_file("lib", NEW.filename, NEW.data, metadata=NEW.metadata)
    assert await looked(proxy, settings, tmp_path) == {NEW.filename: "fetched"}
    pinned: Any = await proxy.service.administration.operations["pins"](lambda said: None)
    assert {each["filename"] for each in pinned} == {OLD.filename, NEW.filename}


@pytest_twisted.ensureDeferred
async def test_projects_that_were_asked_for_lately_stay_ready(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(stocked, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    settings = WarmSettings(recent=86400.0)
    assert await looked(proxy, settings, tmp_path) == {}
    await proxy.get(await proxy.link("lib", OLD.filename))
    stocked.add_file("lib", NEW.filename, NEW.data, metadata=NEW.metadata)
    assert await looked(proxy, settings, tmp_path) == {NEW.filename: "fetched"}


@pytest_twisted.ensureDeferred
async def test_the_running_proxy_fetches_what_its_configuration_names(
    stocked: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    config = f"""
        [upstream.fake]
        url = "{stocked.url}"
        [[index]]
        name = "main"
        upstreams = ["fake"]
        default = true
        [warm]
        projects = ["lib", "no-such-project"]
        interval = "1h"
    """
    proxy = await make_proxy(config=config).started()
    assert proxy.process is not None
    await proxy.process.until(lambda: "files fetched" in proxy.log, 60.0)
    assert "[warm] 1 files fetched, 0 were there" in proxy.log
    assert "upstream has no project no-such-project" in proxy.log
    assert stocked.count("*.whl") == 1
    await proxy.stop()
    assert "Traceback" not in proxy.log

"""Statistics of a running proxy: what clients do is counted, survives a restart, and is published per day (PEP 381)."""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogEvent, formatEvent

from proxy.settings import PageLimits
from tests.inprocess import Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ProxyProcess
from tests.support.wheels import data_of

DAY = 86400.0
MIDDAY = 20_000.5 * DAY
PIP = 'pip/26.3 {"ci":true,"python":"3.11.7"}'
NAME = "six-1.0.tar.gz"


class Moment:
    """A clock that stands until it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def figures(proxy: Running, **arguments: Any) -> Any:
    if "by" in arguments:
        return await proxy.service.administration.perform("statistics", **arguments)
    return (await proxy.service.administration.perform("stats", **arguments))["statistics"]


async def rows(proxy: Running, by: str) -> dict[tuple[str, ...], int]:
    found = await figures(proxy, by=by)
    return {tuple(each[name] for name in found["columns"]): each["requests"] for each in found["rows"]}


@pytest_twisted.ensureDeferred
async def test_what_clients_do_is_counted_on_both_lanes(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    upstream.add_file("six", NAME, data_of(2_000, 1))
    proxy = await run(upstream)
    link = await proxy.link("six", NAME)
    for _ in range(3):
        assert (await proxy.get(link, **{"User-Agent": PIP})).status == 200
        assert (await proxy.get("/simple/six/", **{"User-Agent": PIP})).status == 200
    assert (await proxy.head(link, **{"User-Agent": PIP})).status == 200
    assert (await proxy.get("/simple/no-such/", **{"User-Agent": PIP})).status == 404
    assert (await proxy.get("/-/live")).status == 200
    assert await rows(proxy, "projects") == {("pypi", "six"): 8}
    assert await rows(proxy, "downloads") == {("pypi", "six", NAME, "pip/26.3"): 3}
    assert (await rows(proxy, "clients"))["pip", "26.3"] == 8
    assert (await rows(proxy, "ci"))["ci",] == 8
    assert await rows(proxy, "addresses") == {("127.0.0.1", "pages"): 5, ("127.0.0.1", "files"): 4}
    ((upstream_name, address), asked), *others = (await rows(proxy, "upstreams")).items()
    assert (upstream_name, address, asked >= 2, others) == ("up0", "127.0.0.1", True, [])
    summary = (await figures(proxy))["summary"]
    assert summary["requests"] == 9
    assert summary["hits"] >= 4


@pytest_twisted.ensureDeferred
async def test_a_damaged_database_is_set_aside_and_reported_while_builds_are_served(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", NAME, data_of(2_000, 1))
    database = tmp_path / "data" / "statistics" / "cache.db"
    database.parent.mkdir(parents=True, mode=0o700)
    database.write_bytes(data_of(5_000, 2))
    proxy = await run(upstream)
    assert (await proxy.get("/simple/six/")).status == 200
    assert (await figures(proxy))["summary"]["requests"] == 1
    ready = (await proxy.get("/-/ready")).body.decode()
    assert "set aside within the last day: a damaged database (statistics.damaged-" in ready
    assert (await proxy.get(await proxy.link("six", NAME))).status == 200


@pytest_twisted.ensureDeferred
async def test_a_database_that_takes_nothing_keeps_nobody_from_being_served_or_the_service_from_stopping(
    upstream: FakeUpstream, run: Start, tmp_path: Path, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", NAME, data_of(2_000, 1))
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "statistics").symlink_to(tmp_path / "volume-that-is-not-mounted")
    proxy = await run(upstream)
    assert (await proxy.get(await proxy.link("six", NAME))).status == 200
    assert (await figures(proxy))["summary"]["requests"] == 2
    await proxy.stop()
    assert any("statistics cannot be written" in (formatEvent(each) or "") for each in logged)


@pytest_twisted.ensureDeferred
async def test_what_goes_wrong_is_told_with_its_project(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", NAME, data_of(2_000, 1))
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=0.1))
    await proxy.page()
    await upstream.close()
    await proxy.page()
    assert (await proxy.get("/simple/other/")).status == 503
    found = {(each["reason"], each["project"]) for each in (await figures(proxy))["problems"]}
    assert {("page served stale", "six"), ("served stale", "six"), ("page refresh failed", "six")} <= found
    assert [project for reason, project in found if reason.startswith("answered 503")] == ["other"]


@pytest_twisted.ensureDeferred
async def test_a_day_is_published_when_it_is_over_and_after_a_restart(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", NAME, data_of(2_000, 1))
    clock = Moment(MIDDAY)
    proxy = await run(upstream, clock=clock)
    link = await proxy.link("six", NAME)
    for _ in range(2):
        assert (await proxy.get(link, **{"User-Agent": PIP})).status == 200
    day = "/local-stats/days/2024-10-04.bz2"
    early = await proxy.get(day)
    assert (early.status, b"is not over" in early.body) == (404, True)
    await proxy.stop()
    clock.now += DAY
    proxy = await run(upstream, clock=clock)
    published = await proxy.get(day)
    assert published.status == 200, published
    assert bz2.decompress(published.body).decode() == f"package,filename,useragent,count\nsix,{NAME},pip/26.3,2\n"
    assert (await proxy.get("/index/pypi" + day)).body == published.body
    before = await proxy.get("/local-stats/days/2024-10-03.bz2")
    assert bz2.decompress(before.body) == b"package,filename,useragent,count\n"
    assert (await proxy.get("/local-stats/days/2023-08-01.bz2")).status == 404


@pytest.mark.parametrize("name", ["2024-10-04", "2024-13-04.bz2", "20241004.bz2", "x.bz2", "1969-12-31.bz2", "2024-W40-5.bz2"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_day_leads_nowhere(upstream: FakeUpstream, run: Start, name: str) -> None:
    proxy = await run(upstream)
    assert (await proxy.get(f"/local-stats/days/{name}")).status == 404


@pytest_twisted.ensureDeferred
async def test_operators_are_shown_figures_and_tables(upstream: FakeUpstream, make_proxy: Any, tmp_path: Path) -> None:
    upstream.add_file("six", NAME, data_of(2_000, 1))
    proxy: ProxyProcess = await make_proxy(upstream.url).started()
    operator = Operator(proxy.place, proxy.data_dir)
    page = await operator.json("stats")
    assert page["statistics"]["summary"]["requests"] == 0
    await proxy.stop()
    for arguments, words in {
        ("stats", "--last", "7d"): "hit rate",
        ("stats", "--by", "clients"): "client",
        ("stats", "--last", "2000d"): "400 days",
        ("stats", "--by", "names"): "'names' is not one of",
    }.items():
        ended = await operator.run(*arguments)
        assert words in ended.output, (arguments, ended)

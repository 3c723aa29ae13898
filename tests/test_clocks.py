"""Somebody sets the clock: timers, latencies and pages in use do not notice, and what is written down bears the right time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.base import DelayedCall
from twisted.internet.epollreactor import EPollReactor
from twisted.python import runtime

from proxy.mechanism.clocks import steady
from tests.inprocess import JSON, Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ROOT, ProxyProcess
from tests.support.wheels import data_of

NAME = "six-1.0-py3-none-any.whl"
DATA = data_of(3_000_000)
DAY, YEAR = 86_400.0, 365 * 86_400.0

#: Makes Python's wall clock wrong by the seconds that the file beside it says.
_SET_CLOCK = """
import pathlib
import time
real, offset = time.time, pathlib.Path(__file__).with_name("offset")
time.time = lambda: real() + float(offset.read_text())
gmtime = time.gmtime
time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
"""


# -- the reactor -----------------------------------------------------------------------------------------------------------


def test_a_reactor_goes_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells which Twisted looks at another clock than ``reactor.seconds`` for its timers."""
    made = EPollReactor()
    before: list[DelayedCall] = [made.callLater(60, lambda: None)]
    steady(made)
    started = made.seconds()
    fired: list[str] = []
    late = made.callLater(30, fired.append, "too early")
    made.callLater(0, fired.append, "now")
    assert abs(started - time.time()) < 5
    monkeypatch.setattr(time, "time", lambda: started + YEAR)
    monkeypatch.setattr(runtime, "seconds", lambda: started + YEAR)
    made.runUntilCurrent()
    assert fired == ["now"]
    assert 29 < late.getTime() - made.seconds() <= 30
    assert 59 < before[0].getTime() - made.seconds() <= 60
    assert 25 < (made.timeout() or 0.0) <= 30
    late.reset(10)
    assert late.getTime() - made.seconds() <= 10
    for waker in made.removeAll():
        waker.connectionLost(None)


def test_a_clock_that_is_steady_already_is_left_alone() -> None:
    asyncio = SimpleNamespace(seconds=time.monotonic)
    steady(asyncio)
    assert asyncio.seconds is time.monotonic
    steady(reactor)
    once = reactor.seconds
    steady(reactor)
    assert reactor.seconds is once


# -- a real proxy whose clock is set ---------------------------------------------------------------------------------------


class SetClock:
    """The clock of the proxy that `make` makes."""

    def __init__(self, place: Path) -> None:
        self._folder = place / "clock"
        self._folder.mkdir()
        (self._folder / "sitecustomize.py").write_text(_SET_CLOCK)
        self.set(0.0)
        #: What starts a process with that clock.
        self.before = ("env", f"PYTHONPATH={self._folder}:{ROOT}")

    def set(self, offset: float) -> None:
        new = self._folder / "new"
        new.write_text(str(offset))
        new.rename(self._folder / "offset")


@pytest.fixture
def clock(tmp_path: Path) -> SetClock:
    return SetClock(tmp_path)


each_jump = pytest.mark.parametrize(
    "jump", [YEAR, -DAY, 10.0, -10.0], ids=["a year on", "a day back", "ten seconds on", "ten seconds back"]
)


@each_jump
@pytest_twisted.ensureDeferred
async def test_nothing_under_way_is_cut_off_or_delayed(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], clock: SetClock, jump: float
) -> None:
    upstream.add_file("six", NAME, DATA)
    upstream.add_file("old", "old-1.0.tar.gz", b"old")
    upstream.content.max_age = 1_000
    gate = upstream.hold(f"/packages/*{NAME}", after=1_000_000)
    proxy = make_proxy(upstream.url, options=("--access-log", "full"))
    proxy.before = clock.before
    await proxy.started()
    idle = await wire.connect(proxy.port)
    idle.ask("/simple/six/", Accept=JSON)
    url = urljoin("/simple/six/", (await idle.reply()).json["files"][0]["url"])
    downloading = await wire.ask(proxy.port, url)
    await downloading.got_body(900_000)
    slow = upstream.hold("*/simple/old/")
    waiting = await wire.ask(proxy.port, "/simple/old/", Accept=JSON)
    await upstream.until(lambda: upstream.count("*/simple/old/") == 1)
    clock.set(jump)
    # What the proxy does from here on it does by the new clock.
    ready = await wire.fetch(proxy.port, "/-/ready")
    assert ready.body == b"ready\n"
    date = parsedate_to_datetime(ready.headers["date"]).timestamp()
    assert abs(date - (time.time() + jump)) < 5
    slow.release()
    gate.release()
    assert (await downloading.reply()).body == DATA
    assert (await waiting.reply()).status == 200
    idle.ask("/simple/six/", Accept=JSON)
    again = await idle.reply()
    assert "hit" in again.headers["cache-status"]
    assert upstream.count("*/simple/six/") == 1
    await idle.close()
    await proxy.stop()
    assert "Traceback" not in proxy.log
    took = [float(found) for found in re.findall(r" \d{3} \d+ (-?[0-9.]+) \w+ \"", proxy.log)]
    assert took
    assert all(0 <= each < 20 for each in took)


# -- the two clocks in one process -----------------------------------------------------------------------------------------


@each_jump
@pytest_twisted.ensureDeferred
async def test_a_restart_after_the_clock_was_set_serves_what_is_cached(upstream: FakeUpstream, run: Start, jump: float) -> None:
    upstream.add_file("six", NAME, DATA)
    first = await run(upstream)
    page = await first.page()
    path = await first.link("six", NAME)
    assert (await first.get(path)).body == DATA
    await first.stop()
    await upstream.down()
    second = await run(upstream, clock=lambda: time.time() + jump)
    assert await second.page() == page
    assert (await second.get(path)).body == DATA


@pytest_twisted.ensureDeferred
async def test_a_page_from_the_future_counts_as_new(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", NAME, b"six")
    first = await run(upstream, clock=lambda: time.time() + YEAR)
    await first.page()
    await first.stop()
    second = await run(upstream)
    await second.page()
    assert upstream.count("*/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_operators_are_told_times_of_the_wall_clock(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", NAME, DATA)
    proxy = await run(upstream, clock=lambda: time.time() + YEAR)
    assert (await proxy.get(await proxy.link("six", NAME))).body == DATA
    operations: Any = proxy.service.administration.operations
    (row,) = await operations["ls"](lambda said: None, project="six")
    modified = (await proxy.get("/last-modified")).body.decode()
    await upstream.down()
    for number in range(3):
        assert (await proxy.get(f"/simple/other{number}/")).status == 503
    (state,) = await operations["upstreams"](lambda said: None)
    in_a_year = time.time() + YEAR
    for moment in (row["committed_at"], row["last_used"], state["last_failure_at"], state["paused_until"]):
        assert abs(moment - in_a_year) < 300
    assert modified.startswith(time.strftime("%Y%m", time.gmtime(in_a_year)))

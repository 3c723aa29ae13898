"""The bounded pool of threads: how much runs at once, and what goes first."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred

from proxy.mechanism.offload import Expendable, Offload
from tests.support.process import ROOT

reactor: Any = default_reactor


@pytest.fixture(params=["lasting", "expendable"])
def one(request: pytest.FixtureRequest) -> Iterator[Offload]:
    """A pool of one thread, of either kind."""
    pool = Offload(reactor, 1, "test") if request.param == "lasting" else Expendable(reactor, "test")
    yield pool
    pool.stop()


def started(work: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(work)


@pytest_twisted.ensureDeferred
async def test_last_steps_go_ahead_of_first_steps_that_wait(one: Offload) -> None:
    go = threading.Event()
    order: list[str] = []
    busy = started(one.run(go.wait, 10.0))
    waiting = [started(one.run(order.append, name)) for name in ("first", "second")]
    waiting.append(started(one.run_first(order.append, "last step")))
    go.set()
    assert await busy is True
    for each in waiting:
        await each
    assert order == ["last step", "first", "second"]


@pytest_twisted.ensureDeferred
async def test_what_nobody_waits_for_any_more_does_not_begin(one: Offload) -> None:
    go = threading.Event()
    order: list[str] = []
    busy = started(one.run(go.wait, 10.0))
    left, kept = started(one.run(order.append, "left")), started(one.run(order.append, "kept"))
    left.cancel()
    with pytest.raises(CancelledError):
        await left
    go.set()
    await busy
    await kept
    assert order == ["kept"]


@pytest_twisted.ensureDeferred
async def test_a_caller_that_leaves_does_not_hurt_what_runs(one: Offload) -> None:
    go = threading.Event()
    running = started(one.run(go.wait, 10.0))
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    go.set()
    assert await one.run(lambda: "next") == "next"


@pytest_twisted.ensureDeferred
async def test_an_error_is_the_callers(one: Offload) -> None:
    with pytest.raises(ZeroDivisionError):
        await one.run(lambda: 1 // 0)
    assert await one.run(lambda: 1) == 1


@pytest_twisted.ensureDeferred
async def test_no_result_is_lost_however_many_finish_at_once() -> None:
    pool = Offload(reactor, 4, "many")
    running = [started(pool.run(str, number)) for number in range(2000)]
    try:
        assert [await each for each in running] == [str(number) for number in range(2000)]
        assert {each.name for each in threading.enumerate() if each.name.startswith("many")} == {f"many_{n}" for n in range(4)}
    finally:
        pool.stop()
    assert not [each for each in threading.enumerate() if each.name.startswith("many")]


def test_what_waits_is_done_before_the_end() -> None:
    pool = Offload(reactor, 1, "test")
    done: list[int] = []
    running = [started(pool.run(done.append, number)) for number in range(10)]
    pool.stop()
    assert done == list(range(10))
    assert not any(each.called for each in running)  # the reactor has not run since


_HANGING = """
import threading, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from proxy.composition.means import build_means

means, begun, never = build_means(reactor, time.time), threading.Event(), threading.Event()

def hang():
    begun.set()
    never.wait()

Deferred.fromCoroutine(means.rotation.run(hang))
begun.wait()
means.stop()
print("ended")
"""


def test_a_look_at_files_that_never_ends_keeps_neither_the_service_nor_the_process() -> None:
    """As on a network file system whose server is down."""
    ended = subprocess.run([sys.executable, "-c", _HANGING], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr

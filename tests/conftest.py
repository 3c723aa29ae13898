"""Fixtures of the whole suite: fake upstreams, and a reactor that every test leaves as it found it."""

from __future__ import annotations

import gc
import importlib.metadata
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from proxy.settings import UpstreamSettings
from tests.evidence import MakeAddresses, Names
from tests.inprocess import Running, Start, start, upstream_settings
from tests.support.addresses import Addresses
from tests.support.cases import some_cases
from tests.support.fake_upstream import FakeUpstream
from tests.support.hosts import Hosts
from tests.support.process import ProxyProcess
from tests.support.resolving import resolving

reactor: Any = default_reactor

settings.register_profile("ci", deadline=None, max_examples=60, database=None)
settings.register_profile("some", settings.get_profile("ci"), max_examples=15)
settings.load_profile("ci")

#: What the reactor itself keeps open: the wakers of threads and of child processes.
_OWN = ("_SocketWaker", "_FDWaker", "_UnixWaker", "_SIGCHLDWaker")
#: Reactor turns that closing connections, and threads on their way back, may take after a test.
_TURNS = 200
_COLLECT_EVERY = 20
#: Modules that take longest, in that order; the first one waits most of its time.  Several test processes begin with them, so
#: that none is left with one at the end.
_LONG = (
    "upstream_outage",
    "uploads_served",
    "clients_install",
    "docs",
    "upstream_limits",
    "warm",
    "private_names",
    "wrong_input",
    "packaging",
    "upload_tools",
    "upstream_ranges",
    "tap",
    "serve",
    "dashboard_browser",
    "hosted_drop",
    "workshop",
    "damage",
    "upstream_codings",
    "upstream_evidence",
    "upstream_faults",
    "full_disk",
    "bundle",
    "warm_gaps",
    "operations",
    "migration",
    "kill",
    "machine",
    "hostile_segments",
)


# pytest asks before each test which Twisted this is, and each time all is parsed that the package says of itself.
importlib.metadata.version = cache(importlib.metadata.version)
# What is imported and collected stays until the end: the collector of garbage has nothing to find in it, but would look through
# it again and again: a second in each process while tests are collected, and some tenths whenever a test has all looked at.
gc.disable()


def pytest_collection_finish() -> None:
    """Have garbage collected from now on, and only what tests leave behind."""
    gc.enable()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases",
        type=int,
        metavar="N",
        help="run at most N cases of each parametrized test, and a quarter of those that are made up",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cases") is not None:
        settings.load_profile("some")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases as ``--cases`` says, and put the tests of long modules first; all others keep their order."""
    most: int | None = config.getoption("--cases")
    if most is not None:
        items[:], left_out = some_cases(items, most)
        config.hook.pytest_deselected(items=left_out)
    places = {f"test_{name}": place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def _busy_with() -> list[Any]:
    """Delayed calls and selectables in the reactor."""
    selectables = {*reactor.getReaders(), *reactor.getWriters()}
    return [*reactor.getDelayedCalls(), *(each for each in selectables if type(each).__name__ not in _OWN)]


def _descriptors() -> dict[str, tuple[int, int]]:
    """What this process has open: device and inode by number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            facts = os.fstat(int(number))
            found[number] = facts.st_dev, facts.st_ino
    return found


def _left_open(before: dict[str, tuple[int, int]]) -> list[str]:
    """What was not open *before*.

    But for pipes, what twisted keeps in reserve for when it runs out, and the connections to the record database: each thread
    has one, which goes with the garbage of that thread.
    """
    found = []
    for number in [number for number, what in _descriptors().items() if before.get(number) != what]:
        with suppress(FileNotFoundError):
            what = os.readlink(f"/proc/self/fd/{number}")
            if not what.startswith(("pipe:", os.devnull)) and "/cache.db" not in what:
                found.append(f"{number}: {what}")
    return found


@pytest.fixture(autouse=True)
def _clean_reactor() -> Iterator[None]:
    """Fails the test that leaves a delayed call, a connection, a port, a process or an open file behind."""
    before, open_before = _busy_with(), _descriptors()
    yield
    left: list[Any] = []
    for turn in range(_TURNS):
        left = [each for each in _busy_with() if each not in before]
        if not left and turn % _COLLECT_EVERY == _COLLECT_EVERY - 1:
            gc.collect()  # what only garbage holds is no leak of the code under test
        if not left and not _left_open(open_before):
            return
        pytest_twisted.blockon(deferLater(reactor, 0.005))
    pytest.fail("left behind: " + "; ".join(map(str, left or _left_open(open_before))))


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged during the test."""
    events: list[LogEvent] = []
    heard: ILogObserver = events.append  # type: ignore[assignment]  # a function is one, if not to the type checker
    globalLogPublisher.addObserver(heard)
    yield events
    globalLogPublisher.removeObserver(heard)


@pytest.fixture
def make_upstream(_clean_reactor: None) -> Iterator[Callable[..., FakeUpstream]]:
    """Makes fake upstreams that listen already; takes what `FakeUpstream` takes."""
    made: list[FakeUpstream] = []

    def make(**options: Any) -> FakeUpstream:
        made.append(FakeUpstream(**options).start())
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


@pytest.fixture
def upstream(make_upstream: Callable[..., FakeUpstream]) -> FakeUpstream:
    """One fake upstream over plain http."""
    return make_upstream()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory of the mode the proxy wants."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user can enter; the parents of `tmp_path` are closed to others by each pytest that starts."""
    with TemporaryDirectory(prefix="pypiproxy-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def make_proxy(_clean_reactor: None, tmp_path: Path) -> Iterator[Callable[..., ProxyProcess]]:
    """Makes proxies that run as processes of their own, not started yet, each in a folder of its own below *place*.

    Takes what `ProxyProcess` takes after its place.
    """
    made: list[ProxyProcess] = []

    def make(*upstreams: str, place: Path = tmp_path, **options: Any) -> ProxyProcess:
        made.append(ProxyProcess(place / f"proxy-{len(made)}", *upstreams, **options))
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.kill()))


@pytest.fixture
def serve(_clean_reactor: None, tmp_path: Path) -> Iterator[Callable[..., Awaitable[Running]]]:
    """Runs services inside the test's process, all on one data directory.

    Takes what `tests.inprocess.start` takes after it; a `FakeUpstream` stands for its settings, named ``up0``, ``up1``, …
    """
    running: list[Running] = []

    async def serve(*upstreams: FakeUpstream | UpstreamSettings, data: str = "data", **options: Any) -> Running:
        settings = [
            each if isinstance(each, UpstreamSettings) else upstream_settings(each.url, f"up{number}")
            for number, each in enumerate(upstreams)
        ]
        running.append(await start(tmp_path / data, *settings, **options))
        return running[-1]

    yield serve
    for each in running:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.stop()))


@pytest.fixture
def run(serve: Start) -> Start:
    """The same, by the name that tests of a single index use."""
    return serve


@pytest.fixture
def names(_clean_reactor: None) -> Iterator[Names]:
    """Addresses of hosts below ``.example``, to be filled in."""
    found: Names = {}
    with resolving(Hosts(found), reactor):
        yield found


@pytest.fixture
def at_addresses(names: Names) -> Iterator[MakeAddresses]:
    """Makes fake upstreams that are known by a name and listen at 127.0.0.1, 127.0.0.2 and so on."""
    made: list[Addresses[FakeUpstream]] = []

    async def make(name: str = "up.example", count: int = 3, **options: Any) -> Addresses[FakeUpstream]:
        names[name] = [f"127.0.0.{number}" for number in range(1, count + 1)]
        made.append(await Addresses(name, names[name], FakeUpstream, **options).start())
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))

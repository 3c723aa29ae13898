"""Statistics over restarts, hours and days; with a database that is damaged, gone or takes nothing; and of hostile agents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from proxy.administration.statistics import Evaluating
from proxy.composition.statistics import RegularCounting
from proxy.core.agents import identified
from proxy.core.events import Answered, Incident, Notice
from proxy.core.figures import Bucket, Dimension, Resolution
from proxy.core.health import Phase
from proxy.core.visits import Subject
from proxy.errors import StorageFailed
from proxy.interfaces import IRecordStore
from proxy.mechanism.offload import Inline, completed
from proxy.statistics.book import StatisticsBook
from proxy.statistics.problems import RecentProblems, by_kind, of_every_kind
from proxy.statistics.report import FigureReport
from proxy.storage.memory import MemoryRecords
from proxy.storage.records import DiskRecords
from proxy.web.dashboard.gathering import StateGatherer
from proxy.web.dashboard.state import SpaceState, StateSources
from proxy.web.local_stats import LocalStats
from proxy.web.operations import Health
from tests.shelf import Shelf
from tests.test_damaged_records import garbage, halved

T = TypeVar("T")

HOUR, DAY = 3600.0, 86400.0
START = 20_000 * DAY
PIP = 'pip/26.3 {"ci":true,"implementation":{"name":"CPython"},"python":"3.11.7"}'.replace('"', r"\x22")
UV = 'uv/0.9.9 {"installer":{"name":"uv"},"python":"3.13.1","ci":null}'.replace('"', r"\x22")
PAGE = Subject("pypi", "simple", "six")
WHEEL = Subject("pypi", "files", "six", "six-1.17.0-py2.py3-none-any.whl")
SDIST = Subject("pypi", "files", "pyyaml", "pyyaml-6.0.2.tar.gz")


class Farm:
    """A book over *records*, and a clock that is moved."""

    def __init__(self, records: IRecordStore) -> None:
        self.now = START
        self.records = records
        self.book = self.opened()

    def opened(self) -> StatisticsBook:
        return StatisticsBook(self.records, Inline(), lambda: self.now)

    def ask(self, subject: Subject, word: str = "hit", agent: str = PIP, client: str = "10.0.0.1", status: int = 200) -> None:
        self.book.note(
            Answered("GET", status, 1000, 0.5 if word == "miss" else 0.0, word, None), subject, client, identified(agent)
        )

    def settle(self) -> None:
        completed(self.book.settle())

    def restart(self) -> None:
        completed(self.book.settle(closing=True))
        self.book = self.opened()

    def report(self, back: float = DAY, may: Callable[[str, str], bool] = lambda index, project: True) -> FigureReport:
        return FigureReport(completed(self.book.figures(self.now - back, self.now + 1)), may)

    def rows(self, dimension: Dimension, back: float = DAY) -> dict[tuple[str, ...], int]:
        return {
            tuple(each[name] for name in dimension.columns): each["requests"] for each in self.report(back).table(dimension)
        }


@pytest.fixture
def farm() -> Farm:
    return Farm(MemoryRecords())


def test_what_is_asked_for_is_counted_by_what_it_is_about(farm: Farm) -> None:
    farm.ask(PAGE, "miss")
    farm.ask(PAGE)
    farm.ask(WHEEL, agent=UV, client="10.0.0.2")
    farm.ask(Subject("pypi", "simple", "no-such"), "not-found", status=404)
    assert farm.rows(Dimension.PROJECTS) == {("pypi", "six"): 3}
    assert farm.rows(Dimension.VERSIONS) == {("pypi", "six", "1.17.0"): 1}
    assert farm.rows(Dimension.CLIENTS) == {("pip", "26.3"): 3, ("uv", "0.9.9"): 1}
    assert farm.rows(Dimension.PYTHONS) == {("3.11",): 3, ("3.13",): 1}
    assert farm.rows(Dimension.CI) == {("ci",): 3, ("not ci",): 1}
    summary = farm.report().summary()
    assert (summary["requests"], summary["hits"], summary["saved_bytes"]) == (4, 2, 2000)
    assert summary["hit_rate"] == pytest.approx(2 / 3)
    assert summary["saved_seconds"] == pytest.approx(0.5)


def test_they_survive_restarts_and_become_hours_and_days(farm: Farm) -> None:
    for _ in range(3 * 24 * 12):
        farm.ask(PAGE)
        farm.now += 300
        farm.settle()
        if farm.now % (5 * HOUR) == 0:
            farm.restart()
    assert farm.report(10 * DAY).summary()["requests"] == 3 * 24 * 12
    assert farm.report(DAY).summary()["requests"] == 24 * 12
    assert farm.report(HOUR).summary()["requests"] == 12
    keys = completed(farm.records.keys(""))
    assert len(keys) <= 3 * 60 + 8 * 24 + 3
    farm.now += 30 * DAY
    farm.settle()
    farm.ask(PAGE)
    farm.settle()
    farm.now += 60
    farm.settle()
    assert len([each for each in completed(farm.records.keys("")) if not each.startswith("day/")]) == 1
    assert farm.report(40 * DAY).summary()["requests"] == 3 * 24 * 12 + 1


def test_what_comes_after_the_clock_was_set_back_is_counted_too(farm: Farm) -> None:
    farm.now += 30 * HOUR
    farm.ask(PAGE)
    farm.now += 26 * HOUR
    farm.settle()
    farm.now -= 26 * HOUR
    farm.ask(PAGE)
    farm.now += 26 * HOUR
    farm.settle()
    assert farm.report(3 * DAY).summary()["requests"] == 2


def test_names_that_may_not_be_read_are_in_no_table_and_in_the_sums(farm: Farm) -> None:
    for subject in (PAGE, WHEEL, *[SDIST] * 6):
        farm.ask(subject)
    report = farm.report(may=lambda index, project: project != "pyyaml")
    shown = str([report.table(each) for each in Dimension if each is not Dimension.REQUESTERS])
    assert "six" in shown
    assert "pyyaml" not in shown
    assert report.wheels_worth_building() == []
    assert report.downloads() == [("six", WHEEL.filename, "pip/26.3", 1)]
    assert report.summary()["requests"] == 8


def test_what_is_worth_doing_is_found(farm: Farm) -> None:
    for number in range(6):
        farm.ask(SDIST, client=f"10.0.1.{number}")
        farm.ask(WHEEL, client="10.0.0.7")
    for number in range(30):
        farm.ask(Subject("pypi", "simple", f"p{number}"), client="10.0.0.9")
    report = farm.report()
    assert report.wheels_worth_building() == [{"index": "pypi", "project": "pyyaml", "version": "6.0.2", "downloads": 6}]
    assert report.repeated_requests() == [{"address": "10.0.0.7", "files": 1, "requests": 6}]
    assert report.pages_without_files() == [{"address": "10.0.0.9", "pages": 30}]


def test_problems_are_remembered_with_how_often_and_over_a_restart(farm: Farm) -> None:
    farm.book.record(Notice(Incident.PAGE_REFRESH_FAILED, "pypi", "six"))
    farm.book.record(Notice(Incident.METADATA_READ, "pypi", "six"))
    for _ in range(3):
        farm.ask(PAGE, "stale")
    farm.ask(WHEEL, "upstream-down", status=503)
    completed(farm.book.problems())
    farm.restart()
    farm.now += 100
    farm.ask(PAGE, "stale")
    found = completed(farm.book.problems())
    assert [(each.reason, each.project, each.filename, each.times) for each in found] == [
        ("served stale", "six", "", 4),
        ("answered 503: upstream-down", "six", WHEEL.filename, 1),
        ("page refresh failed", "six", "", 1),
    ]
    assert found[0].last - found[0].first == 100


def test_names_that_a_client_invents_displace_no_problem_of_another_kind(farm: Farm) -> None:
    farm.book.record(Notice(Incident.PAGE_REFRESH_FAILED, "pypi", "six"))
    farm.ask(WHEEL, "upstream-down", status=503)
    completed(farm.book.problems())
    for number in range(1000):
        farm.now += 1
        farm.ask(Subject("pypi", "simple", f"invented-{number}"), "upstream-down", status=503)
        completed(farm.book.problems())
    farm.restart()
    found = completed(farm.book.problems())
    assert len(found) <= 200
    assert [each.project for each in found[:2]] == ["invented-999", "invented-998"]
    assert [each.project for each in found if each.reason == "page refresh failed"] == ["six"]
    answered = [each for each in found if each.reason != "page refresh failed"]
    assert sum(each.times for each in answered) == 1001  # what is forgotten is summed up
    assert min(each.first for each in answered) == farm.now - 1000
    few = of_every_kind(found, 10)
    assert [each.project for each in few] == [*(f"invented-{number}" for number in range(999, 990, -1)), "six"]
    assert [(those[0].project, len(those)) for those in by_kind(found)] == [("invented-999", len(answered)), ("six", 1)]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2)), max_size=600))
def test_of_problems_the_number_is_bounded_and_nothing_is_forgotten_but_names(noted: list[tuple[int, int]]) -> None:
    problems = RecentProblems()
    for moment, (name, kind) in enumerate(noted):
        problems.note(float(moment), f"kind {kind}", "pypi", f"p{name}")
    again = RecentProblems()
    again.read(problems.encoded())
    assert again.latest() == problems.latest()
    found = problems.latest()
    assert len(found) <= 200
    for kind in range(3):
        times = sum(each.times for each in found if each.reason == f"kind {kind}")
        assert times == len([each for each in noted if each[1] == kind])
    assert [each.last for each in found] == sorted((each.last for each in found), reverse=True)


class Full(MemoryRecords):
    """Takes nothing while *full*."""

    full = True

    async def set(self, key: str, value: bytes) -> None:
        if self.full:
            raise StorageFailed("No space left on device")
        await super().set(key, value)


def test_a_full_disk_costs_nothing_that_fits_into_an_hour() -> None:
    records = Full()
    farm = Farm(records)
    for _ in range(50):
        farm.ask(PAGE)
        farm.now += 60
        farm.settle()
    assert "No space left" in (farm.book.trouble or "")
    assert farm.report().summary()["requests"] == 50
    records.full = False
    farm.settle()
    assert farm.book.trouble is None
    farm.restart()
    assert farm.report().summary()["requests"] == 50


class FailsOnce(MemoryRecords):
    """Does not take the write after *left* others; the ones after that it takes."""

    left = -1

    async def set(self, key: str, value: bytes) -> None:
        self.left -= 1
        if self.left == -1:
            raise StorageFailed("Input/output error")
        await super().set(key, value)


@pytest.mark.parametrize("taken", range(6))
def test_a_minute_that_belongs_to_an_hour_and_a_day_is_counted_once_whichever_write_fails(taken: int) -> None:
    records = FailsOnce()
    farm = Farm(records)
    farm.now += 30 * HOUR
    farm.settle()
    farm.ask(PAGE)
    farm.now += 26 * HOUR
    farm.settle()
    assert sorted(key.partition("/")[0] for key in completed(records.keys(""))) == ["day", "hour"]
    # The clock is set back: what is counted now is added to the minute, to its hour and to its day.
    farm.now -= 26 * HOUR
    farm.settle()
    farm.ask(PAGE)
    farm.now += 26 * HOUR
    records.left = taken
    for _ in range(3):
        farm.settle()
        for back in (3 * DAY, 27 * HOUR):
            assert farm.report(back).summary()["requests"] == 2
    assert farm.book.trouble is None
    farm.restart()
    assert farm.report(3 * DAY).summary()["requests"] == 2


def test_a_disk_that_stays_full_costs_no_memory() -> None:
    farm = Farm(Full())
    for _ in range(500):
        farm.ask(PAGE)
        farm.now += 60
        farm.settle()
    assert 60 <= farm.report().summary()["requests"] <= 62


@pytest.mark.parametrize("harm", [garbage, halved])
def test_a_damaged_database_is_set_aside_and_counting_goes_on(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    farm = Farm(DiskRecords(tmp_path / "statistics", Inline()))
    for _ in range(30):
        farm.ask(PAGE)
        farm.now += 60
        farm.settle()
    completed(farm.book.close())
    harm(tmp_path / "statistics" / "cache.db")
    farm.records = DiskRecords(tmp_path / "statistics", Inline())
    farm.book = farm.opened()
    farm.ask(PAGE)
    farm.now += 60
    farm.settle()
    assert farm.book.trouble is None
    assert farm.report().summary()["requests"] >= 1
    completed(farm.book.close())
    assert any(each.name.startswith("statistics.damaged-") for each in tmp_path.iterdir())


@pytest.mark.parametrize("key", ["minute/1728000000", "problems"])
def test_a_record_that_is_none_is_left_out(farm: Farm, key: str) -> None:
    completed(farm.records.set(key, b"\x00 nothing of the kind"))
    farm.restart()
    farm.ask(PAGE)
    assert farm.report(2 * DAY).summary()["requests"] == 1
    farm.settle()
    assert farm.book.trouble is None


@pytest.mark.parametrize("key", ["minute/", "minute/x", "minute/-1", "second/1", "hour/1/2", "minute/\u0661"])
def test_keys_that_are_no_stretch_are_left_alone(farm: Farm, key: str) -> None:
    completed(farm.records.set(key, b"?"))
    farm.restart()
    farm.ask(PAGE)
    assert farm.report().summary()["requests"] == 1


def test_more_than_can_wait_is_counted_as_left_out(farm: Farm) -> None:
    for number in range(60_000):
        farm.ask(PAGE, client=f"c{number}")
    assert farm.book.left_out == 10_000
    assert farm.report().summary()["requests"] == 50_000


def test_long_texts_of_clients_are_not_kept_until_they_are_counted(farm: Farm) -> None:
    for number in range(60_000):
        farm.ask(PAGE, agent=f"{PIP} {'a' * 3000}{number}")
    assert (farm.book.left_out, farm.report().summary()["requests"]) == (0, 60_000)
    assert farm.rows(Dimension.CLIENTS) == {("pip", "26.3"): 60_000}


class Faulty(MemoryRecords):
    """Has a bug as often as `faults` says."""

    faults = 0

    async def set(self, key: str, value: bytes) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a bug")
        await super().set(key, value)


def test_counting_goes_on_after_a_bug(logged: list[LogEvent]) -> None:
    records, clock = Faulty(), Clock()
    farm = Farm(records)
    counting = RegularCounting(farm.book, clock)
    counting.startService()
    records.faults = 1
    for _ in range(3):
        farm.ask(PAGE)
        farm.now += 60
        clock.advance(60)
    (said,) = [each["log_failure"] for each in logged if "log_failure" in each]
    assert str(said.value) == "a bug"
    assert f"minute/{int(START) + 120}" in completed(records.keys(""))
    counting.stopService()
    assert farm.book.trouble is None
    assert farm.report().summary()["requests"] == 3


class Held(Inline):
    """Begins nothing before its turn, and never what nobody waits for any more."""

    def __init__(self) -> None:
        super().__init__()
        self.turn: Deferred[None] = Deferred()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        await self.turn
        return function(*args)


def test_who_leaves_before_figures_are_there_takes_none_with_them() -> None:
    held = Held()
    book = StatisticsBook(MemoryRecords(), held, lambda: START)
    book.note(Answered("GET", 200, 1000, 0.0, "hit", None), PAGE, "10.0.0.1", identified(PIP))
    evaluating = Evaluating(book, lambda: START)
    asked = Deferred.fromCoroutine(evaluating.overview(DAY, 10))
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    asked.cancel()
    held.turn.callback(None)
    assert completed(evaluating.overview(DAY, 10))["summary"]["requests"] == 1


def test_a_dashboard_that_is_closed_takes_no_figures_with_it() -> None:
    async def nothing() -> tuple[()]:
        return ()

    held = Held()
    book = StatisticsBook(MemoryRecords(), held, lambda: START)
    book.note(Answered("GET", 200, 1000, 0.0, "hit", None), PAGE, "10.0.0.1", identified(PIP))
    health, sources = Health(lambda: Phase.SERVING, nothing), StateSources(tuple, tuple, SpaceState)
    gatherer = StateGatherer(sources, health, book, Clock(), lambda: START)
    asked = Deferred.fromCoroutine(gatherer.state())
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    gatherer.close()
    held.turn.callback(None)
    assert completed(Evaluating(book, lambda: START).overview(DAY, 10))["summary"]["requests"] == 1


class Watched(MemoryRecords):
    """Knows which keys were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def get(self, key: str) -> bytes | None:
        self.read.append(key)
        return await super().get(key)


def test_a_day_is_read_once_however_many_ask_for_it_and_leave() -> None:
    records, held, key = Watched(), Held(), f"day/{int(START)}"
    completed(records.set(key, Bucket(Resolution.DAY).encoded()))
    book = StatisticsBook(records, held, lambda: START + 2 * DAY)
    book.note(Answered("GET", 200, 1000, 0.0, "hit", None), PAGE, "10.0.0.1", identified(PIP))
    stats = LocalStats(book, Inline(), lambda: START + 2 * DAY)
    index = Shelf("pypi")
    asked = [Deferred.fromCoroutine(stats.day(index, None, "2024-10-04.bz2")) for _ in range(5)]
    for each in asked[1:]:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    held.turn.callback(None)
    assert completed(asked[0]).status == 200
    assert records.read.count(key) == 1


# -- what clients say of themselves ------------------------------------------------------------------------------------------

AGENTS = {
    PIP: ("pip", "26.3", "3.11", True),
    UV: ("uv", "0.9.9", "3.13", False),
    "-": ("-", "-", "-", None),
    "": ("-", "-", "-", None),
    "poetry/2.4.1 CPython/3.12.1 Linux/6.1": ("poetry", "2.4.1", "3.12", None),
    "Python-urllib/3.11 distribute/0.6.28": ("Python-urllib", "3.11", "-", None),
    "Python-urllib/3.11 setuptools/82.0": ("setuptools", "82.0", "-", None),
    "pdm/2.26 CPython/3.14.0 Linux": ("pdm", "2.26", "3.14", None),
    "Mozilla/5.0 (X11; Linux x86_64)": ("Mozilla", "5.0", "-", None),
    "pip/26.3 {broken": ("pip", "26.3", "-", None),
    "pip/26.3 {\\x22python\\x22: 7}": ("pip", "26.3", "-", False),
    "pip/26.3 {\\x22python\\x22: \\x22<script>\\x22}": ("pip", "26.3", "-", False),
    "<script>alert(1)</script>/1.0": ("-", "-", "-", None),
    "a" * 5000: ("-", "-", "-", None),
    "evil/1\\x0a2": ("-", "-", "-", None),
    'pip/26.3 {"a":' + "[" * 3000 + "}": ("pip", "26.3", "-", False),
}


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent[:20])
def test_agents(agent: str) -> None:
    found = identified(agent)
    assert (found.client, found.version, found.python, found.ci) == AGENTS[agent]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_what_is_counted_by_is_short_and_plain_whatever_a_client_says(agent: str) -> None:
    found = identified(agent)
    for each in (found.client, found.version, found.python):
        assert len(each) <= 32
        assert all(letter.isalnum() or letter in "._+!-" for letter in each)

"""When files were first seen on pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxy.cache.sightings import Sightings
from proxy.errors import StorageFailed
from proxy.mechanism.offload import Inline
from proxy.model import Change, File, Page
from proxy.storage.memory import MemoryVersioned
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel
from tests.test_stores import now

SIX = "pypi", "six"


def page(*names: str) -> Page:
    return Page("six", tuple(File(name, f"https://files.example/{name}") for name in names))


class Stubborn(MemoryVersioned):
    """It can be told to take nothing; it counts what it takes."""

    takes = True
    transactions = 0

    async def apply(self, changes: object) -> int | None:
        if not self.takes:
            raise StorageFailed("it takes nothing")
        self.transactions += 1
        return await super().apply(changes)  # type: ignore[arg-type]  # as it came


class Seen:
    def __init__(self) -> None:
        self.clock = Clock()
        self.records = Stubborn()
        self.sightings = Sightings(self.records, Inline())

    def note(self, moment: float, *names: str, before: float | None = None, earlier: Page | None = None) -> None:
        self.sightings.note(SIX, page(*names), moment, self.clock.callLater, before, earlier)

    def first_seen(self, project: str = "six", sightings: Callable[[], Sightings] | None = None) -> dict[str, float]:
        return dict(now(self.sightings.first_seen("pypi", project)))

    def restarted(self) -> dict[str, float]:
        return dict(now(Sightings(self.records, Inline()).first_seen("pypi", "six")))


def test_a_file_keeps_the_moment_of_the_first_page_that_listed_it() -> None:
    seen = Seen()
    seen.note(10.0, "a", "b")
    assert seen.first_seen() == {"a": 10.0, "b": 10.0}
    seen.clock.advance(1.0)
    seen.note(20.0, "b", "c")
    seen.note(30.0, "a", "b", "c", "d")
    expected = {"a": 10.0, "b": 10.0, "c": 20.0, "d": 30.0}
    assert seen.first_seen() == expected
    seen.clock.advance(1.0)
    assert seen.first_seen() == seen.restarted() == expected
    assert seen.first_seen("seven") == {}


def test_many_pages_are_written_together_and_nothing_for_a_page_without_news() -> None:
    seen = Seen()
    for number in range(50):
        seen.sightings.note(("pypi", f"p{number}"), page("a"), 10.0, seen.clock.callLater)
    seen.clock.advance(1.0)
    assert seen.records.transactions == 1
    seen.sightings.note(("pypi", "p1"), page("a"), 20.0, seen.clock.callLater)
    seen.clock.advance(1.0)
    assert seen.records.transactions == 1


def test_what_an_earlier_version_had_seen_is_not_new() -> None:
    seen = Seen()
    seen.note(20.0, "a", "b", before=10.0, earlier=page("a"))
    assert seen.first_seen() == {"a": 10.0, "b": 20.0}
    other = Seen()
    other.note(20.0, "a", "b", before=10.0)
    other.note(30.0, "a", "b", "c", before=20.0)
    other.clock.advance(1.0)
    assert other.restarted() == {"a": 10.0, "b": 10.0, "c": 30.0}


def test_what_cannot_be_written_is_written_later() -> None:
    seen = Seen()
    seen.records.takes = False
    seen.note(10.0, "a")
    seen.clock.advance(1.0)
    assert seen.first_seen() == {"a": 10.0}
    assert seen.restarted() == {}
    seen.records.takes = True
    now(seen.sightings.write())
    assert seen.restarted() == {"a": 10.0}


def test_after_a_failure_writing_is_tried_again_without_being_asked() -> None:
    seen = Seen()
    seen.records.takes = False
    seen.note(10.0, "a")
    seen.clock.advance(1.0)
    seen.note(20.0, "a", "b")
    seen.clock.advance(10.0)
    assert seen.restarted() == {}
    seen.records.takes = True
    seen.clock.advance(10.0)
    assert seen.restarted() == {"a": 10.0, "b": 20.0}
    assert seen.clock.getDelayedCalls() == []


def test_nothing_is_written_after_a_stop() -> None:
    seen = Seen()
    seen.records.takes = False
    seen.note(10.0, "a")
    now(seen.sightings.write())
    seen.records.takes = True
    seen.clock.advance(100.0)
    assert seen.records.transactions == 0


def test_many_pages_within_a_second_are_all_written() -> None:
    seen = Seen()
    for number in range(500):
        seen.sightings.note(("pypi", f"p{number}"), page("a"), 10.0, seen.clock.callLater)
    seen.clock.advance(1.0)
    assert len(now(seen.records.scan("seen/"))) == 500


def test_what_is_noted_is_bounded_in_bytes_and_written_early() -> None:
    seen = Seen()
    for number in range(100):
        seen.note(float(number), f"{number}-{'x' * 1_000_000}")
    assert 10 <= seen.records.transactions <= 100
    seen.clock.advance(1.0)
    assert len(seen.restarted()) == 100
    seen = Seen()
    seen.records.takes = False
    for number in range(100):
        seen.note(float(number), f"{number}-{'x' * 1_000_000}")
    assert 10 <= len(seen.first_seen()) <= 16


class Slow(MemoryVersioned):
    """What is written waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go: Deferred[None] = Deferred()

    async def apply(self, changes: object) -> int | None:
        await self.go
        return await super().apply(changes)  # type: ignore[arg-type]  # as it came


def test_whoever_writes_at_the_end_waits_for_what_is_being_written() -> None:
    """The records are closed after that, and whoever wrote later would open them again."""
    clock, records = Clock(), Slow()
    sightings = Sightings(records, Inline())
    sightings.note(SIX, page("a"), 10.0, clock.callLater)
    clock.advance(1.0)
    ended: list[None] = []
    Deferred.fromCoroutine(sightings.write()).addCallback(ended.append)
    assert ended == []
    records.go.callback(None)
    assert ended == [None]
    assert dict(now(Sightings(records, Inline()).first_seen("pypi", "six"))) == {"a": 10.0}


def test_a_record_that_makes_no_sense_costs_itself() -> None:
    seen = Seen()
    seen.note(10.0, "a")
    seen.clock.advance(1.0)
    now(seen.records.apply([Change("seen/pypi/six/20.000", b"nonsense"), Change("seen/pypi/six/x", b"")]))
    assert seen.first_seen() == {"a": 10.0}


def test_two_pages_of_one_moment_are_both_remembered() -> None:
    seen = Seen()
    for names in (("a",), ("a", "b")):
        seen.note(10.0, *names)
        seen.clock.advance(1.0)
    assert seen.restarted() == {"a": 10.0, "b": 10.0}


@pytest_twisted.ensureDeferred
async def test_a_stored_file_is_dated_to_the_page_and_so_it_is_after_a_restart(upstream: FakeUpstream, run: Start) -> None:
    made, other = wheel("six"), wheel("six", "2.0")
    upstream.add_file("six", made.filename, made.data)
    upstream.add_file("six", other.filename, other.data)
    moments = [1_000_000_000.0]
    first = await run(upstream, clock=lambda: moments[0])
    path = await first.link("six", made.filename)
    moments[0] += 60.0
    await first.get(path)
    entry = (await first.service.caches.ledger.of("pypi", "six"))[made.filename]
    assert (entry.first_seen, entry.committed_at) == (1_000_000_000.0, 1_000_000_060.0)
    await first.stop()
    second = await run(upstream, clock=lambda: moments[0])
    assert await second.service.caches.ledger.sightings.first_seen("pypi", "six") == {
        made.filename: 1_000_000_000.0,
        other.filename: 1_000_000_000.0,
    }

"""Versioned records: one compliance suite for every store of them, and what becomes of the two files when one fails."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent
from zope.interface.verify import verifyObject

from proxy.errors import StorageFailed
from proxy.interfaces import IVersionedRecords
from proxy.mechanism.offload import Inline
from proxy.model import Change, Versioned
from proxy.storage.copied import CopiedVersioned
from proxy.storage.memory import MemoryVersioned
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.table import Row, Table
from tests.support.queue import Queue
from tests.support.wheels import data_of
from tests.test_damaged_records import (
    a_directory,
    a_file_in_place_of_the_directory,
    emptied,
    garbage,
    gone,
    halved,
    held,
    holes,
    of_another_program,
    without_its_directory,
)
from tests.test_stores import asked_once, now

FIRST, SECOND = "ledger", "ledger-copy"


class Moment:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Moment:
    return Moment()


def mirrored(place: Path, **told: Any) -> MirroredRecords:
    return MirroredRecords(place / FIRST, place / SECOND, Inline(), **{"steady": lambda: 0.0, **told})


class ReadFromCopies(MirroredRecords):
    """Records that are read as a command reads them while a proxy works on them: each time from a copy."""

    def __init__(self, place: Path, clock: Moment) -> None:
        super().__init__(place / FIRST, place / SECOND, Inline(), clock=clock, steady=lambda: 0.0)
        self._fresh_copy = lambda: CopiedVersioned(place / FIRST, place / SECOND, Inline(), clock)

    async def read(self, key: str) -> Versioned | None:
        return await asked_once(self._fresh_copy(), lambda copy: copy.read(key))

    async def scan(self, prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        return await asked_once(self._fresh_copy(), lambda copy: copy.scan(prefix, after, limit))

    async def scan_all(self, prefixes: Sequence[str]) -> list[list[Versioned]]:
        return await asked_once(self._fresh_copy(), lambda copy: copy.scan_all(prefixes))

    async def branches(self, prefix: str) -> list[str]:
        return await asked_once(self._fresh_copy(), lambda copy: copy.branches(prefix))


RECORDS: dict[str, Callable[[Path, Moment], IVersionedRecords]] = {
    "memory": lambda place, clock: MemoryVersioned(clock),
    "mirrored": lambda place, clock: mirrored(place, clock=clock),
    "copies": ReadFromCopies,
}


@pytest.fixture(params=RECORDS)
def records(request: pytest.FixtureRequest, tmp_path: Path, clock: Moment) -> Iterator[IVersionedRecords]:
    store = RECORDS[request.param](tmp_path, clock)
    verifyObject(IVersionedRecords, store)
    yield store
    now(store.close())


def put(store: Any, **values: bytes) -> int:
    version: int = now(store.apply([Change(key, value) for key, value in values.items()]))
    return version


def contents(store: Any, prefix: str = "") -> dict[str, bytes]:
    return {each.key: each.value for each in now(store.scan(prefix))}


class TestVersionedRecords:
    def test_what_was_written_is_read_with_its_version(self, records: Any) -> None:
        assert now(records.read("k")) is None
        version = put(records, k=b"1", other=b"2")
        assert now(records.read("k")) == Versioned("k", b"1", version)
        assert put(records, k=b"") > version
        assert now(records.read("k")).value == b""
        assert now(records.read("other")).version == version

    def test_a_change_that_expects_another_version_changes_nothing(self, records: Any) -> None:
        first = put(records, k=b"1")
        assert now(records.apply([Change("new", b"1"), Change("k", b"2", expects=0)])) is None
        assert contents(records) == {"k": b"1"}
        second = now(records.apply([Change("k", b"2", expects=first), Change("new", b"1", expects=0)]))
        assert now(records.apply([Change("k", b"3", expects=first)])) is None
        assert now(records.apply([Change("k", None, expects=second)])) > second
        assert contents(records) == {"new": b"1"}

    def test_a_version_never_comes_back(self, records: Any) -> None:
        first = put(records, k=b"1")
        now(records.apply([Change("k", None)]))
        assert now(records.apply([Change("k", b"1", expects=first)])) is None
        assert now(records.apply([Change("k", b"1", expects=0)])) > first
        assert now(records.apply([Change("k", b"2", expects=first)])) is None

    def test_a_record_is_there_until_it_expires(self, records: Any, clock: Moment) -> None:
        now(records.apply([Change("a/k", b"1", expires=1010.0)]))
        clock.now = 1009.9
        assert contents(records, "a/") == {"a/k": b"1"}
        clock.now = 1010.0
        assert now(records.read("a/k")) is None
        assert contents(records) == {}
        assert now(records.branches("")) == []
        assert now(records.apply([Change("a/k", b"2", expects=0)])) is not None

    def test_scans_by_prefix_in_order_and_in_parts(self, records: Any) -> None:
        within = sorted(["a/", "a/\U0010fffe", "a/b", "a/é", "a/\uffff"])
        now(records.apply([Change(key, key.encode()) for key in (*reversed(within), "a", "a0", "A/b", "b/b")]))
        assert list(contents(records, "a/")) == within
        assert [each.key for each in now(records.scan("a/", "", 2))] == within[:2]
        assert [each.key for each in now(records.scan("a/", within[1], 2))] == within[2:4]
        assert now(records.scan("a/", "b", None)) == []
        assert now(records.scan_all(["a/", "c/", "b/"])) == [now(records.scan(each)) for each in ("a/", "c/", "b/")]

    def test_branches_are_what_stands_before_the_next_slash(self, records: Any) -> None:
        for key in ("e/pypi/six/1", "e/pypi/six/2", "e/pypi/six-2/1", "e/other/six/1", "e/leaf", "f/x/y", "e/gone/x/y"):
            now(records.apply([Change(key, b"")]))
        now(records.apply([Change("e/gone/x/y", None)]))
        assert now(records.branches("e/")) == ["other", "pypi"]
        assert now(records.branches("e/pypi/")) == ["six", "six-2"]
        assert now(records.branches("e/pypi/six/")) == []

    def test_any_size_of_value(self, records: Any) -> None:
        put(records, k=bytes(2_000_000))
        assert now(records.read("k")).value == bytes(2_000_000)


class Model(RuleBasedStateMachine):
    """A store beside a dictionary of what should be in it."""

    KEYS = st.sampled_from(["a", "a/b", "a/b/c", "a/bc", "a/c", "b/a"])

    def __init__(self, open_store: Callable[[Moment], Any]) -> None:
        super().__init__()
        self.clock = Moment()
        self.open_store = open_store
        self.store = open_store(self.clock)
        self.values: dict[str, tuple[bytes, float]] = {}
        self.seen: dict[str, set[int]] = {}

    def there(self) -> dict[str, bytes]:
        return {key: value for key, (value, expires) in sorted(self.values.items()) if expires > self.clock.now}

    @rule(
        keys=st.lists(KEYS, min_size=1, max_size=3, unique=True),
        value=st.none() | st.binary(max_size=3),
        life=st.none() | st.integers(1, 3),
        expecting=st.sampled_from(["nothing", "what is", "what was", "absence"]),
    )
    def change(self, keys: list[str], value: bytes | None, life: int | None, expecting: str) -> None:
        expires = None if life is None else self.clock.now + life
        read = {key: now(self.store.read(key)) for key in keys}
        versions = {key: 0 if found is None else found.version for key, found in read.items()}
        stale = {key: max(self.seen.get(key, set()) - {versions[key]}, default=-1) for key in keys}
        expected: dict[str, Any] = {
            "nothing": dict.fromkeys(keys),
            "what is": versions,
            "what was": stale,
            "absence": dict.fromkeys(keys, 0),
        }
        changes = [Change(key, value, expected[expecting][key], expires) for key in keys]
        version = now(self.store.apply(changes))
        fits = all(expected[expecting][key] in (None, versions[key]) for key in keys)
        assert (version is not None) is fits
        if not fits:
            return
        for key in keys:
            assert version not in self.seen.setdefault(key, set())
            self.seen[key].add(version)
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value, float("inf") if expires is None else expires

    @rule(seconds=st.integers(1, 2))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def looks_after_itself(self) -> None:
        if isinstance(self.store, MirroredRecords):
            assert now(self.store.look()) is None

    @rule(prefix=st.sampled_from(["", "a", "a/", "a/b", "c"]), after=KEYS | st.just(""), limit=st.none() | st.integers(0, 3))
    def scan(self, prefix: str, after: str, limit: int | None) -> None:
        expected = [(key, value) for key, value in self.there().items() if key.startswith(prefix) and key > after][:limit]
        assert [(each.key, each.value) for each in now(self.store.scan(prefix, after, limit))] == expected
        rest = [key.removeprefix(prefix) for key in self.there() if key.startswith(prefix)]
        assert now(self.store.branches(prefix)) == sorted({each.partition("/")[0] for each in rest if "/" in each})

    @invariant()
    def is_as_it_should_be(self) -> None:
        assert contents(self.store) == self.there()

    def teardown(self) -> None:
        now(self.store.close())


def test_any_sequence_of_changes_in_memory() -> None:
    class InMemory(Model):
        def __init__(self) -> None:
            super().__init__(MemoryVersioned)

    run_state_machine_as_test(InMemory, settings=settings(max_examples=12, stateful_step_count=12))


def test_any_sequence_of_changes_in_two_files_with_restarts_and_losses(tmp_path: Path) -> None:
    places = iter(tmp_path / str(number) for number in range(1_000_000))

    class OnDisk(Model):
        def __init__(self) -> None:
            self.place = next(places)
            self.place.mkdir()
            super().__init__(lambda clock: mirrored(self.place, clock=clock))

        @rule(lost=st.sampled_from([None, FIRST, SECOND]))
        def restart(self, lost: str | None) -> None:
            now(self.store.close())
            if lost is not None:
                shutil.rmtree(self.place / lost, ignore_errors=True)
            self.store = self.open_store(self.clock)

    run_state_machine_as_test(OnDisk, settings=settings(max_examples=5, stateful_step_count=10))


# -- the two files ---------------------------------------------------------------------------------------------------------

MANY = {f"entry/pypi/six/{number:03}": data_of(500, seed=number) for number in range(100)}
DAMAGES = [
    garbage,
    holes,
    halved,
    emptied,
    gone,
    a_directory,
    of_another_program,
    without_its_directory,
    a_file_in_place_of_the_directory,
]
Damage = Callable[[Path], None]
each_damage = pytest.mark.parametrize(
    ("half", "damage"),
    [
        *((FIRST, each) for each in DAMAGES),
        *((SECOND, each) for each in (garbage, holes, gone, a_file_in_place_of_the_directory)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
each_half = pytest.mark.parametrize("half", [FIRST, SECOND])


def filled(place: Path) -> MirroredRecords:
    store = mirrored(place)
    assert now(store.apply([Change(key, value) for key, value in MANY.items()])) is not None
    return store


def knows_all(store: MirroredRecords, **more: bytes) -> None:
    """All that was written is there, and new records are taken."""
    assert contents(store) == {**MANY, **more}
    put(store, new=b"new")
    assert contents(store) == {**MANY, **more, "new": b"new"}
    assert now(store.look()) is None


@each_damage
def test_whichever_file_is_damaged_between_two_runs_nothing_is_lost(tmp_path: Path, half: str, damage: Damage) -> None:
    now(filled(tmp_path).close())
    damage(tmp_path / half / "records.db")
    store = mirrored(tmp_path)
    knows_all(store)
    now(store.close())
    shutil.rmtree(tmp_path / (FIRST if half == SECOND else SECOND))
    store = mirrored(tmp_path)
    assert contents(store) == {**MANY, "new": b"new"}
    now(store.close())


@each_damage
def test_nor_when_it_is_damaged_in_operation(tmp_path: Path, half: str, damage: Damage) -> None:
    store = filled(tmp_path)
    damage(tmp_path / half / "records.db")
    knows_all(store)
    now(store.close())
    store = mirrored(tmp_path)
    assert contents(store) == {**MANY, "new": b"new"}
    now(store.close())


def test_what_is_lost_in_both_files_is_told(tmp_path: Path, logged: list[LogEvent]) -> None:
    now(filled(tmp_path).close())
    for half in (FIRST, SECOND):
        garbage(tmp_path / half / "records.db")
    store = mirrored(tmp_path)
    assert contents(store) == {}
    assert [event for event in logged if "are lost" in event["log_format"]]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 2
    now(store.close())


def change_row(file: Path, key: str) -> None:
    database = sqlite3.connect(file)
    (value,) = database.execute("SELECT value FROM record WHERE key = ?", (key,)).fetchone()
    database.execute("UPDATE record SET value = ? WHERE key = ?", (value[:-1] + bytes([value[-1] ^ 1]), key))
    database.commit()
    database.close()


def test_a_record_that_is_damaged_alone_comes_from_the_other_file(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    one, other, *_ = MANY
    change_row(tmp_path / FIRST / "records.db", one)
    change_row(tmp_path / SECOND / "records.db", other)
    store = mirrored(tmp_path)
    assert contents(store) == MANY
    assert now(store.read(one)).value == MANY[one]
    now(store.close())
    change_row(tmp_path / SECOND / "records.db", one)
    store = mirrored(tmp_path)
    assert contents(store) == MANY
    now(store.close())


def test_a_record_that_is_damaged_in_both_is_lost_and_can_be_written(tmp_path: Path, logged: list[LogEvent]) -> None:
    now(filled(tmp_path).close())
    one = next(iter(MANY))
    for half in (FIRST, SECOND):
        change_row(tmp_path / half / "records.db", one)
    store = mirrored(tmp_path)
    assert now(store.read(one)) is None
    assert [event["key"] for event in logged if "damaged in both" in event["log_format"]] == [one]
    assert now(store.apply([Change(one, b"again", expects=0)])) is not None
    assert contents(store) == {**MANY, one: b"again"}
    now(store.close())


def advance_version(file: Path, key: str) -> None:
    database = sqlite3.connect(file)
    database.execute("UPDATE record SET version = version + 1000 WHERE key = ?", (key,))
    database.commit()
    database.close()


def test_a_record_of_a_version_that_cannot_be_comes_from_the_other_file(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    one, other, *_ = MANY
    advance_version(tmp_path / FIRST / "records.db", one)
    advance_version(tmp_path / SECOND / "records.db", other)
    store = mirrored(tmp_path)
    version = put(store, last=b"1")
    assert contents(store) == {**MANY, "last": b"1"}
    found = now(store.read(one))
    assert found.version < version
    assert now(store.apply([Change(each, b"new", expects=found.version) for each in (one, other)])) is not None
    now(store.close())
    for _ in range(2):
        store = mirrored(tmp_path)
        assert contents(store) == {**MANY, "last": b"1", one: b"new", other: b"new"}
        now(store.close())
        shutil.rmtree(tmp_path / FIRST)


def test_one_that_has_such_a_version_in_both_is_lost_and_can_be_written(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    one = next(iter(MANY))
    for half in (FIRST, SECOND):
        advance_version(tmp_path / half / "records.db", one)
    store = mirrored(tmp_path)
    assert now(store.read(one)) is None
    assert now(store.apply([Change(one, b"again", expects=0)])) is not None
    assert contents(store) == {**MANY, one: b"again"}
    now(store.close())


@each_half
def test_nor_is_it_given_to_a_file_that_is_behind(tmp_path: Path, half: str) -> None:
    now(filled(tmp_path).close())
    one = next(iter(MANY))
    shutil.copytree(tmp_path / half, tmp_path / "behind")
    store = mirrored(tmp_path)
    put(store, later=b"1")
    now(store.close())
    shutil.rmtree(tmp_path / half)
    (tmp_path / "behind").rename(tmp_path / half)
    advance_version(tmp_path / (FIRST if half == SECOND else SECOND) / "records.db", one)
    store = mirrored(tmp_path)
    assert contents(store) == {**MANY, "later": b"1"}
    assert now(store.read(one)).version < 1000
    now(store.close())


def test_while_the_only_file_left_cannot_be_read_nothing_is_said_to_be_missing(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    shutil.rmtree(tmp_path / FIRST)
    away = tmp_path / "away"
    (tmp_path / SECOND).rename(away)
    (tmp_path / SECOND).symlink_to(tmp_path / "nowhere" / "x")
    store = mirrored(tmp_path)
    for question in (store.read("k"), store.scan(""), store.branches("entry/"), store.apply([Change("k", b"1")])):
        with pytest.raises(StorageFailed):
            now(question)
    assert not (tmp_path / FIRST).exists()
    (tmp_path / SECOND).unlink()
    away.rename(tmp_path / SECOND)
    assert now(store.look()) is None
    knows_all(store)
    now(store.close())


def test_while_another_process_holds_the_files_they_are_read_and_not_written(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    store = mirrored(tmp_path)
    with held(tmp_path / FIRST / "records.db"), held(tmp_path / SECOND / "records.db"):
        assert contents(store) == MANY
        assert now(store.branches("entry/")) == ["pypi"]
        with pytest.raises(StorageFailed, match="locked"):
            put(store, new=b"new")
        assert "locked" in now(store.look())
    assert now(store.look()) is None
    knows_all(store)
    now(store.close())


def test_what_the_copy_did_not_take_it_has_later(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    store = mirrored(tmp_path)
    with held(tmp_path / SECOND / "records.db"):
        assert contents(store) == MANY
        put(store, meanwhile=b"1")
        assert "locked" in now(store.look())
        now(store.apply([Change(next(iter(MANY)), None)]))
    assert now(store.look()) is None
    now(store.close())
    shutil.rmtree(tmp_path / FIRST)
    store = mirrored(tmp_path)
    rest = dict(list(MANY.items())[1:])
    assert contents(store) == {**rest, "meanwhile": b"1"}
    now(store.close())


@each_half
def test_a_file_that_a_crash_left_behind_is_brought_up_to_date(tmp_path: Path, half: str) -> None:
    now(filled(tmp_path).close())
    shutil.copytree(tmp_path / half, tmp_path / "behind")
    store = mirrored(tmp_path)
    put(store, later=b"1")
    now(store.apply([Change(next(iter(MANY)), None)]))
    now(store.close())
    shutil.rmtree(tmp_path / half)
    (tmp_path / "behind").rename(tmp_path / half)
    for _ in range(2):
        store = mirrored(tmp_path)
        assert contents(store) == {**dict(list(MANY.items())[1:]), "later": b"1"}
        now(store.close())
        shutil.rmtree(tmp_path / FIRST)


@each_half
def test_it_is_given_nothing_else_than_what_it_lacks(tmp_path: Path, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now(filled(tmp_path).close())
    shutil.copytree(tmp_path / half, tmp_path / "behind")
    store = mirrored(tmp_path)
    put(store, later=b"1")
    now(store.close())
    shutil.rmtree(tmp_path / half)
    (tmp_path / "behind").rename(tmp_path / half)
    given: list[str] = []
    take = Table.take

    def watched(self: Table, rows: Iterable[Row], sequence: int) -> None:
        rows = list(rows)
        given.extend(each.key for each in rows)
        take(self, rows, sequence)

    monkeypatch.setattr(Table, "take", watched)
    store = mirrored(tmp_path)
    assert contents(store) == {**MANY, "later": b"1"}
    assert given == ["later"]
    now(store.close())


def test_files_that_went_different_ways_are_given_all_of_each_other(tmp_path: Path) -> None:
    """The first one lost its last transactions with the power, and the second one could not be read when it went on."""
    now(filled(tmp_path).close())
    shutil.copytree(tmp_path / FIRST, tmp_path / "before")
    store = mirrored(tmp_path)
    put(store, lost1=b"1")
    put(store, lost2=b"2")
    now(store.close())
    shutil.rmtree(tmp_path / FIRST)
    (tmp_path / "before").rename(tmp_path / FIRST)
    store = mirrored(tmp_path)
    with held(tmp_path / SECOND / "records.db"):
        for each in ("new1", "new2", "new3"):
            put(store, **{each: b"3"})
    assert now(store.look()) is None
    everything = {**MANY, "lost1": b"1", "lost2": b"2", "new1": b"3", "new2": b"3", "new3": b"3"}
    assert contents(store) == everything
    now(store.close())
    shutil.rmtree(tmp_path / FIRST)
    store = mirrored(tmp_path)
    assert contents(store) == everything
    now(store.close())


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Whatever this process writes beyond *size* fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@each_half
def test_a_copy_that_cannot_be_ended_leaves_nothing_and_is_not_tried_at_once(tmp_path: Path, clock: Moment, half: str) -> None:
    now(filled(tmp_path).close())
    shutil.rmtree(tmp_path / half)
    there = os.listdir(tmp_path)
    store = mirrored(tmp_path, steady=clock)
    with no_file_above(20_000):
        assert now(store.look()) is not None
    assert os.listdir(tmp_path) == there
    clock.now += 30
    assert now(store.look()) is not None
    assert os.listdir(tmp_path) == there
    clock.now += 30
    assert now(store.look()) is None
    assert contents(store) == MANY
    now(store.close())


@each_half
def test_a_copy_that_there_is_no_room_for_is_not_begun(tmp_path: Path, half: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now(filled(tmp_path).close())
    size = sum(each.stat().st_size for each in (tmp_path / half).iterdir())
    shutil.rmtree(tmp_path / half)
    there = os.listdir(tmp_path)
    store = mirrored(tmp_path)
    real = os.statvfs(tmp_path)
    with monkeypatch.context() as patch:
        few = (real.f_bsize, 1, *real[2:4], (size - 1), *real[5:])
        patch.setattr(os, "statvfs", lambda path: os.statvfs_result(few))
        assert "No space left" in now(store.look())
        assert os.listdir(tmp_path) == there
    assert now(store.look()) is None
    assert contents(store) == MANY
    now(store.close())


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    assert [(tmp_path / half).stat().st_mode & 0o777 for half in (FIRST, SECOND)] == [0o700, 0o700]


def test_no_file_is_mapped_that_somebody_could_truncate(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    now(store.close())


def test_nothing_is_made_where_the_directory_is_not_the_right_one(tmp_path: Path) -> None:
    store = mirrored(tmp_path, ours=lambda: False)
    with pytest.raises(StorageFailed):
        put(store, k=b"1")
    assert os.listdir(tmp_path) == []
    assert now(store.look()) == "the data directory is not there"
    now(store.close())


# -- many at once ------------------------------------------------------------------------------------------------------------


def asked_at_once(records: MirroredRecords, batch: Iterable[list[Change]]) -> list[Deferred[int | None]]:
    return [Deferred.fromCoroutine(records.apply(changes)) for changes in batch]


def outcome(asked: Deferred[int | None]) -> int | str | None:
    """The version, ``None`` for a conflict, or the kind of the failure."""
    found: list[int | str | None] = []
    asked.addCallbacks(found.append, lambda failure: found.append(failure.type.__name__))
    (what,) = found
    return what


def test_who_waits_at_one_moment_is_served_one_after_another(tmp_path: Path) -> None:
    queue = Queue()
    records = MirroredRecords(tmp_path / FIRST, tmp_path / SECOND, queue, steady=lambda: 0.0)  # type: ignore[arg-type]  # run alone
    asked = asked_at_once(
        records,
        [
            [Change("a", b"first", 0)],
            [Change("a", b"second", 0), Change("c", b"")],
            [Change("b", b"of b"), Change("b2", b"")],
            [],
            [Change("a", b"third", 1)],
        ],
    )
    asked[2].cancel()
    queue.begin()
    assert [outcome(each) for each in asked] == [1, None, "CancelledError", 2, 3]
    queue.begin()
    reading, closing = Deferred.fromCoroutine(records.scan("")), Deferred.fromCoroutine(records.close())
    queue.begin()
    rows: list[Versioned] = []
    reading.addCallback(rows.extend)
    assert closing.called
    assert [(row.key, row.value, row.version) for row in rows] == [("a", b"third", 3)]
    shutil.rmtree(tmp_path / FIRST)
    again = mirrored(tmp_path)
    assert [(row.key, row.value, row.version) for row in now(again.scan(""))] == [("a", b"third", 3)]
    now(again.close())


def test_who_has_no_room_keeps_nobody_else_from_it(tmp_path: Path) -> None:
    queue = Queue()
    records = MirroredRecords(tmp_path / FIRST, tmp_path / SECOND, queue, steady=lambda: 0.0)  # type: ignore[arg-type]  # run alone
    first = asked_at_once(records, [[Change("a", b"")]])
    queue.begin()
    assert outcome(first[0]) == 1
    with no_file_above(200_000):
        asked = asked_at_once(records, [[Change("b", b"small")], [Change("c", bytes(1_000_000))], [Change("d", b"small")]])
        queue.begin()
        assert [outcome(each) for each in asked] == [2, "StorageFailed", 3]
    closing = Deferred.fromCoroutine(records.close())
    queue.begin()
    assert closing.called

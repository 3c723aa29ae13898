"""A record database that is damaged, taken away or held by somebody else: builds go on, and no name gets other bytes."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from diskcache import Cache
from twisted.logger import LogEvent

from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook, PinnedFile
from proxy.errors import StorageFailed
from proxy.interfaces import IVersionedRecords
from proxy.mechanism.offload import Inline
from proxy.model import LedgerEntry, Versioned
from proxy.storage.database import set_aside
from proxy.storage.memory import MemoryFiles, MemoryRecords, MemoryVersioned, RecentRecords
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.records import CopiedRecords, DiskRecords
from proxy.storage.spare import SpareRecords
from tests.inprocess import Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.wheels import data_of
from tests.test_stores import now

NAME = "six-1.0-py3-none-any.whl"
FIRST, OTHER = data_of(200_000, seed=1), data_of(200_000, seed=2)
#: So much of a database that it has more than a few pages, and values in files of their own.
MANY = {f"page1/pypi/p{number}": b"{" + data_of(2_000, seed=number) for number in range(200)} | {"long": bytes(50_000)}


def garbage(file: Path) -> None:
    file.write_bytes(data_of(file.stat().st_size, seed=5))


def holes(file: Path) -> None:
    """Random bytes over every second kilobyte, the first one excepted."""
    with file.open("r+b") as opened:
        for start in range(1024, file.stat().st_size, 2048):
            opened.seek(start)
            opened.write(data_of(1024, seed=start))


def halved(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def gone(file: Path) -> None:
    file.unlink()


def a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def of_another_program(file: Path) -> None:
    file.unlink()
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE Cache (something TEXT)")
    database.execute("CREATE TABLE Settings (other INTEGER)")
    database.commit()
    database.close()


def senseless_settings(file: Path) -> None:
    database = sqlite3.connect(file)
    database.execute("INSERT INTO Settings VALUES ('disk_nonsense', 1)")
    database.commit()
    database.close()


def without_its_directory(file: Path) -> None:
    shutil.rmtree(file.parent)


def a_file_in_place_of_the_directory(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_bytes(b"no directory")


Damage = Callable[[Path], None]
DAMAGES: list[Damage] = [
    garbage,
    holes,
    halved,
    emptied,
    gone,
    a_directory,
    of_another_program,
    senseless_settings,
    without_its_directory,
    a_file_in_place_of_the_directory,
]
each_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
each_damage_of_a_file = pytest.mark.parametrize(
    "damage", [each for each in DAMAGES if each is not senseless_settings], ids=lambda damage: damage.__name__
)


def filled(directory: Path) -> DiskRecords:
    store = DiskRecords(directory, Inline())
    for key, value in MANY.items():
        now(store.set(key, value))
    return store


def read(store: Any) -> None:
    """Every value is what was written, or is not there; and the store takes new ones."""
    for key, value in MANY.items():
        assert now(store.get(key)) in (value, None)
    assert set(now(store.keys(""))) <= {*MANY, "new"}
    now(store.set("new", b"new"))
    assert now(store.get("new")) == b"new"
    assert now(store.look()) is None


# -- one database ----------------------------------------------------------------------------------------------------------


@each_damage
def test_a_database_that_is_damaged_between_two_runs_is_set_aside(tmp_path: Path, damage: Damage) -> None:
    now(filled(tmp_path / "records").close())
    damage(tmp_path / "records" / "cache.db")
    store = DiskRecords(tmp_path / "records", Inline())
    read(store)
    now(store.close())
    if damage is not without_its_directory:
        assert len(list(tmp_path.glob("records.damaged-*"))) == 1
    again = DiskRecords(tmp_path / "records", Inline())
    assert now(again.get("new")) == b"new"
    now(again.close())


@each_damage_of_a_file
def test_a_database_that_is_damaged_while_it_is_open_goes_on(tmp_path: Path, damage: Damage) -> None:
    store = filled(tmp_path / "records")
    damage(tmp_path / "records" / "cache.db")
    read(store)
    now(store.close())
    again = DiskRecords(tmp_path / "records", Inline())
    read(again)
    now(again.close())


@pytest.mark.parametrize("damage", [garbage, halved, emptied, gone, a_directory], ids=lambda damage: damage.__name__)
def test_so_does_one_whose_other_files_are_damaged(tmp_path: Path, damage: Damage) -> None:
    store = filled(tmp_path / "records")
    for file in [file for file in (tmp_path / "records").rglob("*") if file.is_file() and file.name != "cache.db"]:
        damage(file)
    read(store)
    now(store.close())
    again = DiskRecords(tmp_path / "records", Inline())
    read(again)
    now(again.close())


def test_no_file_is_mapped_that_somebody_could_truncate(tmp_path: Path) -> None:
    """Who reads a memory map beyond the end of its file is killed by the kernel."""
    store = filled(tmp_path / "records")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    now(store.close())


def test_one_row_that_is_damaged_costs_that_row(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    _, first, second, third, *others = sorted(MANY)
    database = sqlite3.connect(tmp_path / "cache.db")
    (value,) = database.execute("SELECT value FROM Cache WHERE key = ?", (first,)).fetchone()
    database.execute("UPDATE Cache SET value = ? WHERE key = ?", (value[:-1] + bytes([value[-1] ^ 1]), first))
    database.execute("UPDATE Cache SET value = 'text' WHERE key = ?", (second,))
    database.execute("UPDATE Cache SET mode = NULL WHERE key = ?", (third,))
    database.execute("UPDATE Cache SET key = CAST(X'FF' AS TEXT) WHERE key = ?", (others[0],))
    database.commit()
    database.close()
    store = DiskRecords(tmp_path, Inline())
    assert [now(store.get(key)) for key in (first, second, third)] == [None, None, None]
    assert now(store.get(others[1])) == MANY[others[1]]
    now(store.close())


def test_only_the_newest_databases_are_left_of_those_that_were_set_aside(tmp_path: Path) -> None:
    clock = iter(range(1_000_000_000, 2_000_000_000, 86_400))
    for _ in range(5):
        store = DiskRecords(tmp_path / "records", Inline(), clock=lambda: float(next(clock)))
        now(store.set("k", b"v"))
        now(store.close())
        garbage(tmp_path / "records" / "cache.db")
    now(DiskRecords(tmp_path / "records", Inline(), clock=lambda: float(next(clock))).set("k", b"v"))
    left = sorted(each.name for each in tmp_path.glob("records.damaged-*"))
    assert len(left) == 3
    assert "20010913" in left[-1]


def test_what_is_set_aside_stays_although_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = [2_000_000_000.0]
    for number in range(4):
        place = tmp_path / "ledger"
        place.mkdir()
        os.utime(place, (number, number))
        clock[0] -= 86_400
        assert set_aside(place, clock[0]).is_dir()
    left = [int(each.stat().st_mtime) for each in sorted(tmp_path.iterdir())]
    assert left == [3, 2, 1]


# -- a database that cannot be used for now --------------------------------------------------------------------------------


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Another process holds the database *file*."""
    code = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None); held.execute('BEGIN IMMEDIATE'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


def test_a_database_that_another_process_holds_is_read_and_written_again_later(tmp_path: Path) -> None:
    now(filled(tmp_path).close())
    store = DiskRecords(tmp_path, Inline())
    with held(tmp_path / "cache.db"):
        assert now(store.get("long")) == MANY["long"]
        assert set(now(store.keys(""))) == set(MANY)
        with pytest.raises(StorageFailed, match="locked"):
            now(store.set("new", b"new"))
        assert "locked" in now(store.look())
    assert now(store.look()) is None
    now(store.set("new", b"new"))
    now(store.close())
    assert list(tmp_path.parent.glob("*.damaged-*")) == []


def test_a_copy_is_read_beside_the_one_that_writes(tmp_path: Path) -> None:
    store = filled(tmp_path)
    copy = CopiedRecords(tmp_path, Inline())
    assert {key: now(copy.get(key)) for key in now(copy.keys(""))} == MANY
    now(store.set("new", b"new"))
    with pytest.raises(StorageFailed):
        now(copy.set("new", b"other"))
    now(copy.close())
    assert now(store.get("new")) == b"new"
    now(store.close())


def test_values_of_the_version_before_checksums_are_read(tmp_path: Path) -> None:
    with Cache(str(tmp_path), eviction_policy="none", cull_limit=0) as before:
        for key, value in MANY.items():
            before.set(key, value)
    store = DiskRecords(tmp_path, Inline())
    assert {key: now(store.get(key)) for key in now(store.keys(""))} == MANY
    now(store.close())


# -- a process without room for another open file --------------------------------------------------------------------------


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def many_pins() -> dict[str, LedgerEntry]:
    """So many that their record is a file of its own."""
    return {f"six-{number}-py3-none-any.whl": pin(number) for number in range(600)}


def pin(number: int) -> LedgerEntry:
    return LedgerEntry(sha256=f"{number:064x}", size=number, stated={}, url=f"https://files.example/{number}", committed_at=0.0)


def ledger_in(place: Path) -> MirroredRecords:
    return MirroredRecords(place / "ledger", place / "ledger-copy", Inline(), steady=lambda: 0.0)


def book_of(records: IVersionedRecords) -> Ledger:
    return Ledger(records, 0, Inline())


def test_first_seen_digests_survive_that_there_is_no_room_to_read_them(tmp_path: Path) -> None:
    records = ledger_in(tmp_path)
    now(book_of(records).add_all("pypi", "six", many_pins()))
    now(records.close())
    records = ledger_in(tmp_path)
    book = book_of(records)
    with no_descriptors():
        now(book.add("pypi", "six", "new.whl", pin(1_000)))
        assert set(now(book.of("pypi", "six"))) == {"new.whl"}
    assert now(records.look()) is None
    now(book.mend())
    assert now(book.of("pypi", "six")) == now(book_of(records).of("pypi", "six"))
    assert now(book.of("pypi", "six")) == {**many_pins(), "new.whl": pin(1_000)}
    now(records.close())


def test_nothing_counts_as_evictable_while_the_book_of_kept_files_cannot_be_read(tmp_path: Path) -> None:
    records = ledger_in(tmp_path)
    pins = book_of(records)
    kept = [PinnedFile("pypi", "six", name, each.sha256) for name, each in many_pins().items()]
    now(pins.add_all("pypi", "six", {**many_pins(), "later.whl": pin(1_000)}))
    now(PinnedBook(records, pins, MemoryFiles()).add(kept))
    now(records.close())
    records = ledger_in(tmp_path)
    book = PinnedBook(records, book_of(records), MemoryFiles())
    with no_descriptors(), pytest.raises(StorageFailed):
        now(book.digests())
    assert now(records.look()) is None
    assert now(book.files()) == sorted(kept)
    now(records.close())
    with no_descriptors(), pytest.raises(StorageFailed):
        now(book.digests())  # the ledger tells what came later under the same names
    assert now(records.look()) is None
    assert pin(1_000).sha256 not in {each.sha256 for each in kept}
    now(records.close())


def test_a_page_is_not_lost_because_there_is_no_room_to_read_it(tmp_path: Path) -> None:
    database = filled(tmp_path)
    spare = SpareRecords(database, RecentRecords(10))
    with no_descriptors(), pytest.raises(StorageFailed):
        now(spare.get("long"))
    assert now(spare.get("long")) == MANY["long"]
    now(database.close())


# -- the ledger ---------------------------------------------------------------------------------------------------------


class Failing(MemoryRecords):
    """A store that can be told to take nothing, or to give nothing either."""

    takes = gives = True

    async def get(self, key: str) -> bytes | None:
        if not self.gives:
            raise StorageFailed("it gives nothing")
        return await super().get(key)

    async def set(self, key: str, value: bytes) -> None:
        if not self.takes:
            raise StorageFailed("it takes nothing")
        await super().set(key, value)


class Unreadable(MemoryVersioned):
    """Records that nobody can read."""

    async def scan(self, prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        raise StorageFailed("it gives nothing")


def test_that_pins_cannot_be_read_is_logged_once_a_minute(logged: list[LogEvent]) -> None:
    moments = iter([0.0, 1.0, 59.0, 60.0, 61.0])
    book = Ledger(Unreadable(), 0, Inline(), lambda: next(moments))
    for number in range(5):
        assert not now(book.of("pypi", f"project{number}"))
    assert [event["project"] for event in logged if "project" in event] == ["project0", "project3"]


@contextmanager
def taken_away(directory: Path) -> Iterator[None]:
    """*directory* cannot be opened, as on a disk that does not answer."""
    away = directory.with_name("elsewhere")
    directory.rename(away)
    directory.symlink_to(directory.parent / "nowhere" / "x")
    yield
    directory.unlink()
    away.rename(directory)


@each_damage_of_a_file
def test_first_seen_digests_survive_a_lost_database_while_the_other_one_is_held(tmp_path: Path, damage: Damage) -> None:
    records = ledger_in(tmp_path)
    now(book_of(records).add("pypi", "six", "six-1.whl", pin(1)))
    now(records.close())
    damage(tmp_path / "ledger" / "records.db")
    records = ledger_in(tmp_path)
    book = book_of(records)
    with taken_away(tmp_path / "ledger-copy"):
        now(book.add("pypi", "six", "six-1.whl", pin(2)))
    assert now(records.look()) is None
    now(book.mend())
    for each in (book, book_of(records)):
        assert now(each.of("pypi", "six")) == {"six-1.whl": pin(1)}
    now(records.close())


def test_a_record_that_was_damaged_alone_is_not_written_over_while_its_copy_cannot_be_read(tmp_path: Path) -> None:
    records = ledger_in(tmp_path)
    now(book_of(records).add_all("pypi", "six", many_pins()))
    now(records.close())
    database = sqlite3.connect(tmp_path / "ledger" / "records.db")
    database.execute("UPDATE record SET value = X'00' WHERE key LIKE '%six-17-%'")
    database.commit()
    database.close()
    records = ledger_in(tmp_path)
    book = book_of(records)
    with taken_away(tmp_path / "ledger-copy"):
        now(book.add("pypi", "six", "new.whl", pin(1_000)))
        now(book.add("pypi", "six", "six-17-py3-none-any.whl", pin(1_001)))
    assert now(records.look()) is None
    now(book.mend())
    assert now(book.of("pypi", "six")) == {**many_pins(), "new.whl": pin(1_000)}
    now(records.close())


def test_what_can_be_fetched_again_is_in_memory_while_nothing_can_be_written() -> None:
    disk = Failing()
    spare = SpareRecords(disk, RecentRecords(10))
    disk.takes = False
    for key in ("a", "b"):
        with pytest.raises(StorageFailed):
            now(spare.set(key, b"123456"))
    assert (now(spare.get("a")), now(spare.get("b"))) == (None, b"123456")
    assert now(spare.keys("")) == ["b"]
    disk.takes = True
    now(spare.set("b", b"new"))
    assert (now(spare.get("b")), now(disk.get("b"))) == (b"new", b"new")
    disk.gives = False
    assert now(spare.get("b")) is None


# -- the whole service -----------------------------------------------------------------------------------------------------


async def other_bytes(upstream: FakeUpstream) -> None:
    """Let upstream have other bytes under the name that is stored."""
    upstream.add_file("six", NAME, OTHER)


async def metric(proxy: Running, reason: str) -> str:
    text = (await proxy.get("/-/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f'pypiproxy_degraded{{reason="{reason}"}}')]
    return line.rpartition(" ")[2]


@pytest.mark.parametrize(
    ("database", "damage"),
    [
        *(("records/cache.db", damage) for damage in DAMAGES),
        *(("ledger/records.db", damage) for damage in (garbage, gone, a_file_in_place_of_the_directory)),
    ],
    ids=lambda value: value.partition("/")[0] if isinstance(value, str) else value.__name__,
)
@pytest_twisted.ensureDeferred
async def test_the_service_starts_on_a_damaged_database_and_no_name_gets_other_bytes(
    upstream: FakeUpstream, run: Start, tmp_path: Path, database: str, damage: Damage
) -> None:
    upstream.add_file("six", NAME, FIRST)
    first = await run(upstream)
    path = await first.link("six", NAME)
    assert (await first.get(path)).body == FIRST
    assert (await first.get("/-/ready")).body == b"ready\n"
    await first.stop()
    damage(tmp_path / "data" / database)
    await other_bytes(upstream)
    second = await run(upstream)
    page = await second.page("six")
    assert page["files"][0]["hashes"]["sha256"] == hashlib.sha256(FIRST).hexdigest()
    assert (await second.get(path)).body == FIRST
    asked = upstream.count(f"/packages/*{NAME}")
    changed = path.replace(hashlib.sha256(FIRST).hexdigest(), hashlib.sha256(OTHER).hexdigest())
    assert (await second.get(changed)).status == 409
    assert upstream.count(f"/packages/*{NAME}") == asked == 1
    ready = await second.get("/-/ready")
    assert ready.status == 200
    if damage not in (gone, emptied, without_its_directory):  # of which there is nothing to set aside
        assert b"degraded: set aside within the last day: a damaged database (" in ready.body
        assert f"{database.partition('/')[0]}.damaged-" in ready.body.decode()
        assert await metric(second, "damaged-entries") == "1.0"
        for each in (tmp_path / "data").glob("*.damaged-*"):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    assert (await second.get("/-/ready")).body == b"ready\n"
    assert await metric(second, "damaged-entries") == "0.0"


@pytest_twisted.ensureDeferred
async def test_a_data_directory_without_a_second_copy_gets_one_at_the_first_start(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", NAME, FIRST)
    first = await run(upstream)
    path = await first.link("six", NAME)
    await first.get(path)
    assert await first.service.caches.pinned.pin("pypi", "six") == [NAME]
    await first.stop()
    shutil.rmtree(tmp_path / "data" / "ledger-copy")
    second = await run(upstream)
    assert (await second.get("/-/ready")).body == b"ready\n"
    await second.stop()
    garbage(tmp_path / "data" / "ledger" / "records.db")
    await other_bytes(upstream)
    third = await run(upstream)
    assert (await third.get(path)).body == FIRST
    assert [each.filename for each in await third.service.caches.pinned.files()] == [NAME]


@pytest_twisted.ensureDeferred
async def test_the_operator_is_told_by_stats(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    first = await run(upstream)
    await first.get("/-/ready")
    await first.stop()
    garbage(tmp_path / "data" / "records" / "cache.db")
    ended = await Operator(tmp_path, tmp_path / "data").run("stats")
    assert ended.status == 0
    assert "a damaged database (records.damaged-" in ended.output


@pytest.mark.parametrize("damage", [gone, emptied, without_its_directory], ids=lambda damage: damage.__name__)
@pytest_twisted.ensureDeferred
async def test_a_database_that_is_lost_in_operation_comes_back_with_its_pins(
    upstream: FakeUpstream, run: Start, tmp_path: Path, damage: Damage
) -> None:
    """And what is written after that is there after a restart."""
    upstream.add_file("six", NAME, FIRST)
    upstream.add_file("seven", "seven-1.0-py3-none-any.whl", FIRST)
    first = await run(upstream)
    path = await first.link("six", NAME)
    await first.get(path)
    damage(tmp_path / "data" / "records" / "cache.db")
    assert (await first.page("seven"))["files"]
    assert (await first.get("/-/ready")).status == 200
    await first.stop()
    await other_bytes(upstream)
    second = await run(upstream)
    assert (await second.get(path)).body == FIRST
    await upstream.down()
    assert (await second.page("seven"))["files"]


@pytest_twisted.ensureDeferred
async def test_a_database_that_is_held_by_another_process_stops_no_start(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", NAME, FIRST)
    upstream.add_file("seven", "seven-1.0-py3-none-any.whl", OTHER)
    first = await run(upstream)
    path = await first.link("six", NAME)
    await first.get(path)
    await first.stop()
    data = tmp_path / "data"
    files = [data / name for name in ("records/cache.db", "ledger/records.db", "ledger-copy/records.db")]
    with held(files[0]), held(files[1]), held(files[2]):
        second = await run(upstream)
        await other_bytes(upstream)
        assert (await second.get(path)).body == FIRST
        seven = await second.link("seven", "seven-1.0-py3-none-any.whl")
        assert (await second.get(seven)).body == OTHER
        assert (await second.get("/pypi/seven/json")).status == 200
        ready = await second.get("/-/ready")
        assert ready.status == 200
        assert b"degraded: the database records takes nothing" in ready.body
        assert await metric(second, "database-unavailable") == "1.0"
    assert (await second.get("/-/ready")).body == b"ready\n"
    await second.stop()
    # What was pinned meanwhile is known after a restart.
    upstream.add_file("seven", "seven-1.0-py3-none-any.whl", FIRST)
    third = await run(upstream)
    assert (await third.get(seven)).body == OTHER
    assert (await third.page("seven"))["files"][0]["hashes"]["sha256"] == hashlib.sha256(OTHER).hexdigest()

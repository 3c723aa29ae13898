"""One compliance suite for every store of records and every store of files."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import resource
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from proxy.errors import StorageFailed
from proxy.interfaces import IFileStore, IPartialFile, IRecordStore
from proxy.mechanism.offload import Inline
from proxy.mechanism.spool.nowhere import Nowhere
from proxy.model import CommittedFile
from proxy.settings import MIB
from proxy.storage.checked import AT_ONCE, FileBeingChecked, Proofs, mark_of
from proxy.storage.copied import CopiedVersioned
from proxy.storage.database import open_cache
from proxy.storage.local import LocalFiles
from proxy.storage.memory import MemoryFiles, MemoryRecords, RecentRecords
from proxy.storage.records import CopiedRecords, DiskRecords
from proxy.storage.spare import SpareRecords

T = TypeVar("T")
S = TypeVar("S", CopiedRecords, CopiedVersioned)


def now(awaitable: Awaitable[Any]) -> Any:
    """The result of a coroutine that never waits (its offload is inline)."""
    results: list[Any] = []
    Deferred.fromCoroutine(awaitable).addBoth(results.append)  # type: ignore[arg-type]  # stores return coroutines
    (result,) = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


async def asked_once(store: S, question: Callable[[S], Awaitable[T]]) -> T:
    """What *store* answers, which is closed then."""
    try:
        return await question(store)
    finally:
        await store.close()


class ReadFromCopies(DiskRecords):
    """Records on disk that are read as a command reads them while a proxy works on them: each time from a copy."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, Inline())
        self._copied_from = directory

    async def get(self, key: str) -> bytes | None:
        return await asked_once(CopiedRecords(self._copied_from, Inline()), lambda copy: copy.get(key))

    async def keys(self, prefix: str) -> list[str]:
        return await asked_once(CopiedRecords(self._copied_from, Inline()), lambda copy: copy.keys(prefix))


RECORDS: dict[str, Callable[[Path], IRecordStore]] = {
    "memory": lambda place: MemoryRecords(),
    "recent": lambda place: RecentRecords(64 * MIB),
    "disk": lambda place: DiskRecords(place, Inline()),
    "spare": lambda place: SpareRecords(DiskRecords(place, Inline()), RecentRecords(64 * MIB)),
    "copies": ReadFromCopies,
}


@pytest.fixture(params=RECORDS)
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IRecordStore]:
    store = RECORDS[request.param](tmp_path / "records")
    verifyObject(IRecordStore, store)
    yield store
    now(store.close())


@pytest.fixture(params=["memory", "local"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemoryFiles() if request.param == "memory" else LocalFiles(tmp_path, Inline())


class TestRecords:
    def test_what_was_set_is_there_until_it_is_deleted(self, records: IRecordStore) -> None:
        assert now(records.get("page/pypi/six")) is None
        now(records.set("page/pypi/six", b"1"))
        now(records.set("page/pypi/six", b"2"))
        assert now(records.get("page/pypi/six")) == b"2"
        assert now(records.delete("page/pypi/six")) is True
        assert now(records.delete("page/pypi/six")) is False
        assert now(records.get("page/pypi/six")) is None

    @pytest.mark.parametrize("value", [b"", b"x" * 10_000_000], ids=["empty", "10 MB"])
    def test_any_size_of_value(self, records: IRecordStore, value: bytes) -> None:
        now(records.set("k", value))
        assert now(records.get("k")) == value

    @pytest.mark.parametrize("size", [10, 100_000])
    def test_several_values_at_once(self, records: IRecordStore, size: int) -> None:
        now(records.set("b", b"before"))
        values = {"a": b"x" * size, "b": b"y"}
        now(records.set_all(values))
        assert {key: now(records.get(key)) for key in values} == values
        now(records.set_all({}))
        assert now(records.keys("")) == ["a", "b"]

    def test_keys_by_prefix(self, records: IRecordStore) -> None:
        for key in ("pins/a/six", "pins/a/attrs", "pins/b/six", "page/a/six"):
            now(records.set(key, b""))
        assert now(records.keys("pins/a/")) == ["pins/a/attrs", "pins/a/six"]

    def test_a_prefix_ends_where_it_ends(self, records: IRecordStore) -> None:
        within = ["a/", "a/\U0010fffe", "a/b", "a/é", "a/\uffff"]
        for key in (*within, "a", "a0", "A/b", "b/b", "_/"):
            now(records.set(key, b""))
        assert now(records.keys("a/")) == sorted(within)
        assert len(now(records.keys(""))) == 10


class TestDiskRecords:
    def test_records_survive_a_restart(self, tmp_path: Path) -> None:
        first = DiskRecords(tmp_path, Inline())
        now(first.set("k", b"v"))
        now(first.close())
        again = DiskRecords(tmp_path, Inline())
        assert now(again.get("k")) == b"v"
        now(again.close())

    def test_a_pickle_in_the_database_is_never_loaded(self, tmp_path: Path) -> None:
        store = DiskRecords(tmp_path, Inline())
        planted = tmp_path / "planted"
        now(store.set("other", b""))
        now(store.close())
        database = sqlite3.connect(tmp_path / "cache.db")
        database.execute(
            "INSERT INTO Cache(key, raw, store_time, expire_time, access_time, tag, size, mode, filename, value)"
            " VALUES ('k', 1, 0, NULL, 0, NULL, 0, 4, NULL, ?)",
            (pickle.dumps(_Bomb(planted)),),
        )
        database.commit()
        database.close()
        assert now(store.get("k")) is None
        now(store.close())
        assert not planted.exists()

    def test_only_the_owner_may_look(self, tmp_path: Path) -> None:
        now(DiskRecords(tmp_path / "records", Inline()).look())
        assert (tmp_path / "records").stat().st_mode & 0o777 == 0o700

    def test_a_value_whose_file_is_gone_is_not_there(self, tmp_path: Path) -> None:
        store = DiskRecords(tmp_path, Inline())
        now(store.set("k", bytes(100_000)))
        for path in tmp_path.rglob("*.val"):
            path.unlink()
        assert now(store.get("k")) is None
        now(store.close())


_COLUMNS = "key, raw, expire_time, access_count, tag, size, mode, filename, value"


def rows_of(place: Path) -> list[Any]:
    with closing(sqlite3.connect(place / "cache.db")) as database:
        settings = database.execute("SELECT key, value FROM Settings WHERE key IN ('count', 'size') ORDER BY key").fetchall()
        return [*database.execute(f"SELECT {_COLUMNS} FROM Cache ORDER BY key").fetchall(), *settings]


def test_what_is_set_in_one_go_is_set_as_diskcache_sets_it(tmp_path: Path) -> None:
    values = {"a": b"1", "b/c": bytes(20_000), "ü": b""}
    for place, together in (("one", False), ("all", True)):
        cache = open_cache(tmp_path / place)
        for key in ("a", "large"):
            cache.set(key, bytes(100_000))
        for each in (values, {**values, "a": b"2", "large": b"small"}):
            if together:
                cache.set_small(each)
            else:
                for key, value in each.items():
                    cache.set(key, value)
            assert [cache.get(key) for key in each] == list(each.values())
        assert cache.get("nothing") is None
        cache.close()
        assert not list((tmp_path / place).rglob("*.val"))
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "all")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


DATA = os.urandom(100_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def arrive(store: IFileStore, data: bytes = DATA, key: str = f"sha256-{SHA256}") -> Any:
    partial = now(store.begin(key, resume=True))
    partial.write(data)
    return partial


def with_file(store: LocalFiles, data: bytes = DATA, sha256: str = SHA256) -> LocalFiles:
    """*store*, which has *data* now."""
    partial = arrive(store, data)
    partial.commit(sha256)
    partial.close()
    return store


def left_of(store: IFileStore, key: str, *, resume: bool = True) -> int:
    """The size of the partial file *key* as the next writer finds it."""
    partial = now(store.begin(key, resume=resume))
    partial.close()
    size: int = partial.size
    return size


class TestFiles:
    def test_a_store_and_what_arrives_in_it_have_all_that_their_ports_say(self, files: IFileStore) -> None:
        verifyObject(IFileStore, files)
        partial = now(files.begin(f"sha256-{SHA256}", resume=True))
        verifyObject(IPartialFile, partial)
        assert (partial.size, dict(partial.marks), partial.whole) == (0, {}, None)
        partial.discard()
        for _ in range(2):
            partial.close()

    def test_a_committed_file_can_be_read_by_many(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        first, second = now(files.open(SHA256)), now(files.open(SHA256))
        assert os.pread(first.fileno(), len(DATA) + 1, 0) == DATA
        assert (second.size, second.sha256, second.extent(), second.ended()) == (len(DATA), SHA256, len(DATA), True)
        first.close()
        first.close()
        second.close()

    def test_the_first_that_is_there_of_several_is_opened(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        other = hashlib.sha256(b"other").hexdigest()
        assert now(files.open_first([(other, None)])) is None
        assert now(files.open_first([])) is None
        with closing(now(files.open_first([(other, 5), (SHA256, len(DATA))]))) as source:
            assert (source.sha256, source.size) == (SHA256, len(DATA))
        # One that is not what it should be is set aside, and the next one is looked for.
        again = arrive(files, b"other", f"sha256-{other}")
        again.commit(other)
        again.close()
        with closing(now(files.open_first([(SHA256, 1), (other, 5)]))) as source:
            assert source.sha256 == other
        assert now(files.open(SHA256)) is None

    def test_what_is_not_committed_is_not_there(self, files: IFileStore) -> None:
        partial = arrive(files)
        assert now(files.open(SHA256)) is None
        partial.discard()
        partial.close()
        assert left_of(files, f"sha256-{SHA256}") == 0

    def test_a_reader_of_an_arriving_file_keeps_it_over_the_commit(self, files: IFileStore) -> None:
        partial = arrive(files)
        descriptor = os.dup(partial.fileno())
        partial.commit(SHA256)
        partial.close()
        assert os.pread(descriptor, len(DATA), 0) == DATA
        os.close(descriptor)

    def test_a_suspended_file_is_gone_on_with(self, files: IFileStore) -> None:
        partial = arrive(files, DATA[:60_000])
        partial.suspend()
        partial.close()
        again = now(files.begin(f"sha256-{SHA256}", resume=True))
        assert again.size == 60_000
        assert b"".join(again.read_all()) == DATA[:60_000]
        again.write(DATA[60_000:])
        again.commit(SHA256)
        again.close()
        assert now(files.walk()) == [(SHA256, len(DATA))]

    def test_without_resume_a_file_starts_anew(self, files: IFileStore) -> None:
        arrive(files, key="at.x").close()
        assert left_of(files, "at.x", resume=False) == 0

    def test_truncating_starts_at_byte_0(self, files: IFileStore) -> None:
        partial = arrive(files, b"wrong")
        partial.truncate()
        partial.write(b"right")
        assert (partial.size, b"".join(partial.read_all())) == (5, b"right")
        partial.close()

    def test_a_deleted_file_is_gone_for_new_readers_alone(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        reader = now(files.open(SHA256))
        assert now(files.delete(SHA256)) is True
        assert now(files.delete(SHA256)) is False
        assert now(files.open(SHA256)) is None
        assert os.pread(reader.fileno(), len(DATA), 0) == DATA
        reader.close()

    def test_what_is_set_aside_is_no_file_any_more(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        now(files.set_aside(SHA256))
        now(files.set_aside(SHA256))
        assert now(files.open(SHA256)) is None
        assert now(files.walk()) == []
        again = arrive(files)
        again.commit(SHA256)
        again.close()
        now(files.set_aside(SHA256))
        assert now(files.walk()) == []

    def test_who_looks_for_many_files_is_told_which_are_there(self, files: IFileStore) -> None:
        assert now(files.present([SHA256, "0" * 64])) == set()
        partial = arrive(files)
        assert now(files.present([SHA256])) == set()
        partial.commit(SHA256)
        partial.close()
        assert now(files.present([SHA256, "0" * 64])) == {SHA256}

    def test_every_file_that_comes_or_goes_is_a_change(self, files: IFileStore) -> None:
        seen = [files.changes]
        for _ in range(2):
            partial = arrive(files)
            partial.commit(SHA256)
            partial.close()
            seen.append(files.changes)
            now(files.delete(SHA256))
            seen.append(files.changes)
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        seen.append(files.changes)
        now(files.set_aside(SHA256))
        assert len({*seen, files.changes}) == 7

    def test_sweeping_removes_what_no_digest_can_vouch_for(self, files: IFileStore) -> None:
        for key in (f"sha256-{SHA256}", "at.0123"):
            partial = arrive(files, key=key)
            partial.suspend()
            partial.close()
        assert now(files.sweep()) == 1
        assert left_of(files, f"sha256-{SHA256}") == len(DATA)

    def test_sweeping_leaves_alone_what_is_being_written(self, files: IFileStore) -> None:
        partial = arrive(files, key="at.0123")
        now(files.sweep())
        partial.commit(SHA256)
        partial.close()
        assert now(files.walk()) == [(SHA256, len(DATA))]

    def test_what_was_noted_beside_a_partial_file_is_there_for_the_next_writer(self, files: IFileStore) -> None:
        partial = arrive(files, DATA[:100])
        assert (partial.marks, partial.whole) == ({}, None)
        partial.mark("0" * 64, None)
        partial.write(DATA[100:200])
        partial.mark("1" * 64, 1_000)
        partial.suspend()
        partial.close()
        again = now(files.begin(f"sha256-{SHA256}", resume=True))
        assert (again.marks, again.whole) == ({100: "0" * 64, 200: "1" * 64}, 1_000)
        again.truncate(150)
        assert again.size == 150
        again.discard()
        again.close()
        fresh = now(files.begin(f"sha256-{SHA256}", resume=True))
        assert (fresh.marks, fresh.whole, fresh.size) == ({}, None, 0)
        fresh.close()

    def test_a_committed_file_of_another_size_is_not_there(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        now(files.open(SHA256, len(DATA))).close()
        assert now(files.open(SHA256, len(DATA) + 1)) is None
        assert now(files.walk()) == []

    def test_what_is_stored_or_missing_is_not_unreadable(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        assert now(files.unreadable([SHA256, "0" * 64])) == {}

    def test_a_file_was_last_used_when_somebody_said_so(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.commit(SHA256)
        partial.close()
        now(files.touch({SHA256: 1_000_000_000.5, "0" * 64: 1.0}))
        assert now(files.inventory()) == [CommittedFile(SHA256, len(DATA), 1_000_000_000.5)]

    def test_there_is_less_room_for_what_is_stored(self, files: IFileStore) -> None:
        assert 0 < now(files.free()) < 2**60

    def test_only_what_was_left_alone_for_long_enough_and_is_not_written_is_abandoned(self, files: IFileStore) -> None:
        partial = arrive(files)
        partial.suspend()
        partial.close()
        writing = arrive(files, b"begun", key="sha256-" + "1" * 64)
        assert now(files.abandon(0.0)) == 0
        assert now(files.abandon(9e9)) == len(DATA)
        assert left_of(files, f"sha256-{SHA256}") == 0
        writing.commit("1" * 64)
        writing.close()
        assert [file.sha256 for file in now(files.inventory())] == ["1" * 64]


def test_a_file_that_could_not_be_begun_is_an_empty_one_that_takes_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    partial = Nowhere(OSError(errno.EROFS, os.strerror(errno.EROFS)))
    verifyObject(IPartialFile, partial)
    partial.truncate()
    partial.mark(SHA256, len(DATA))
    for refused in (lambda: partial.write(DATA), lambda: partial.commit(SHA256)):
        with pytest.raises(OSError, match="Read-only file system"):
            refused()
    assert (partial.size, list(partial.read_all()), os.pread(partial.fileno(), 10, 0)) == (0, [], b"")
    partial.suspend()
    partial.discard()
    for _ in range(2):
        partial.close()
    assert len(os.listdir("/proc/self/fd")) == before


class TestLocalFiles:
    def test_lines_beside_a_partial_file_that_make_no_sense_are_passed_over(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        partial = arrive(store)
        partial.mark("0" * 64, 7)
        partial.close()
        marks = tmp_path / "partial" / f"sha256-{SHA256}.marks"
        marks.write_bytes(b"\xff\n" + marks.read_bytes() + b"99 " + b"0" * 64)
        again = now(store.begin(f"sha256-{SHA256}", resume=True))
        assert (again.marks, again.whole) == ({len(DATA): "0" * 64}, 7)
        again.commit(SHA256)
        again.close()
        assert list((tmp_path / "partial").iterdir()) == []

    def test_a_download_that_begins_while_the_tree_is_swept_keeps_its_file(self, tmp_path: Path) -> None:
        class Between(Inline):
            """Begins the download after the folder was listed, right before the second step, which removes."""

            steps = 0

            async def run(self, function, *args):  # type: ignore[no-untyped-def]  # any function
                self.steps += 1
                if self.steps == 2:
                    self.begun = await store.begin("at.0123", resume=False)
                return await super().run(function, *args)

        for key in ("at.0123", "extra.0"):
            arrive(LocalFiles(tmp_path, Inline()), key=key).close()
        offload = Between()
        store = LocalFiles(tmp_path, offload)
        assert now(store.sweep()) == 2
        offload.begun.write(DATA)
        offload.begun.commit(SHA256)
        offload.begun.close()
        assert now(store.walk()) == [(SHA256, len(DATA))]

    def test_a_file_that_takes_the_place_of_a_damaged_one_is_not_set_aside_for_it(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        damaged = arrive(store, b"damaged", key="one")
        damaged.commit(SHA256)
        damaged.close()
        source = now(store.unchecked(SHA256))
        good = arrive(store)
        good.commit(SHA256)
        good.close()
        now(store.set_aside(SHA256, source))
        source.close()
        assert now(store.walk()) == [(SHA256, len(DATA))]

    def test_what_cannot_be_removed_from_the_partial_files_does_not_keep_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures: list[Path] = []
        store = LocalFiles(tmp_path, Inline(), failed=lambda error, path, needed=0, *, reading=False: failures.append(path))
        for key in ("at.0", "at.2"):
            arrive(store, key=key).close()
        (tmp_path / "partial" / "at.1" / "inside").mkdir(parents=True)
        stuck, unlink = tmp_path / "partial" / "at.0", Path.unlink

        def refused(path: Path, missing_ok: bool = False) -> None:
            if path == stuck:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            unlink(path, missing_ok)

        monkeypatch.setattr(Path, "unlink", refused)
        assert now(store.sweep()) == 2
        assert (list((tmp_path / "partial").iterdir()), failures) == ([stuck], [stuck])
        assert now(store.abandon(9e9)) == 0

    def test_what_the_disk_took_a_part_of_is_gone_on_with_once_there_is_room(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        partial = arrive(store, DATA[:10])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) // 2, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                partial.write(DATA[10:])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert partial.size == len(DATA) // 2
        assert partial.unchanged(partial.fileno()), "who reads it gets all of it"
        partial.write(DATA[partial.size :])
        partial.commit(SHA256)
        partial.close()
        assert now(store.walk()) == [(SHA256, len(DATA))]

    def test_there_is_room_where_the_folder_of_files_is_missing(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path / "data", Inline())
        (tmp_path / "data" / "files").rmdir()
        assert now(store.free()) > 0
        (tmp_path / "data" / "partial").rmdir()
        (tmp_path / "data").rmdir()
        with pytest.raises(StorageFailed, match="cannot be looked at: No such file or directory"):
            now(store.free())

    def test_a_directory_in_the_place_of_marks_does_not_keep_a_file_from_being_stored(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        partial = arrive(store)
        (tmp_path / "partial" / f"sha256-{SHA256}.marks").mkdir()
        partial.commit(SHA256)
        partial.close()
        assert now(store.walk()) == [(SHA256, len(DATA))]

    def test_a_directory_and_a_file_are_set_aside_in_any_order(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        for number in range(6):
            partial = arrive(store)
            partial.commit(SHA256)
            partial.close()
            path = tmp_path / "files" / SHA256[:2] / SHA256
            if number % 3:
                path.unlink()
                (path / "inside").mkdir(parents=True)
            now(store.set_aside(SHA256))
            assert not path.exists()

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ESTALE, errno.EIO])
    def test_only_a_file_that_is_damaged_is_set_aside_when_it_cannot_be_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        failures: list[int | None] = []
        store = LocalFiles(
            tmp_path, Inline(), failed=lambda error, path, needed=0, *, reading=False: failures.append(error.errno)
        )
        arrived = arrive(store)
        arrived.commit(SHA256)
        arrived.close()

        def refused(*args: object) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refused)
            assert now(store.open(SHA256)) is None
        damaged = number == errno.EIO
        assert now(store.walk()) == ([] if damaged else [(SHA256, len(DATA))])
        assert failures == ([] if damaged else [number])

    def test_a_file_that_others_wrote_to_takes_no_good_file_away(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        good = arrive(store)
        good.commit(SHA256)
        good.close()
        changed = arrive(store)
        with (tmp_path / "partial" / f"sha256-{SHA256}").open("r+b") as other:
            other.write(b"other")
        os.utime(tmp_path / "partial" / f"sha256-{SHA256}", (0, 0))
        with pytest.raises(OSError, match="others have written"):
            changed.commit(SHA256)
        changed.close()
        source = now(store.open(SHA256))
        assert os.pread(source.fileno(), len(DATA), 0) == DATA
        source.close()

    def test_a_file_that_is_taken_away_again_is_a_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = LocalFiles(tmp_path, Inline())
        arrived = arrive(store)
        before, rename = store.changes, os.rename

        def written_to_meanwhile(source: Path, target: Path) -> None:
            rename(source, target)
            os.utime(target, (0, 0))

        monkeypatch.setattr(os, "rename", written_to_meanwhile)
        with pytest.raises(OSError, match="others have written"):
            arrived.commit(SHA256)
        arrived.close()
        assert store.changes > before
        assert now(store.walk()) == []

    def test_a_download_that_begins_while_its_old_bytes_are_removed_gets_a_file_of_its_own(self, tmp_path: Path) -> None:
        class Between(Inline):
            """Begins the download right before the second step, which removes."""

            steps = 0

            async def run(self, function, *args):  # type: ignore[no-untyped-def]  # any function
                self.steps += 1
                if self.steps == 2:
                    self.begun = await store.begin(key, resume=True)
                return await super().run(function, *args)

        key = f"sha256-{SHA256}"
        arrive(LocalFiles(tmp_path, Inline())).close()
        offload = Between()
        store = LocalFiles(tmp_path, offload)
        assert now(store.abandon(9e9)) == len(DATA)
        assert offload.begun.size == 0
        offload.begun.write(DATA)
        offload.begun.commit(SHA256)
        offload.begun.close()
        assert now(store.walk()) == [(SHA256, len(DATA))]
        assert left_of(store, key) == 0

    def test_last_use_survives_a_restart(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        partial = arrive(store)
        partial.commit(SHA256)
        partial.close()
        now(store.touch({SHA256: 1_000_000_000.0}))
        assert now(LocalFiles(tmp_path, Inline()).inventory()) == [CommittedFile(SHA256, len(DATA), 1_000_000_000.0)]

    def test_a_name_that_is_no_digest_never_reaches_the_file_system(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not a sha256"):
            now(LocalFiles(tmp_path, Inline()).open("../../etc/passwd"))

    def test_two_writers_of_one_key_do_not_share_a_file(self, tmp_path: Path) -> None:
        store = LocalFiles(tmp_path, Inline())
        first, second = arrive(store, b"first"), arrive(store, b"second")
        assert b"".join(first.read_all()) == b"first"
        assert b"".join(second.read_all()) == b"second"
        first.close()
        second.close()

    def test_noting_the_last_use_of_a_file_harms_nobody_who_is_sending_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = with_file(LocalFiles(tmp_path, Inline()))
        source = now(store.open(SHA256))
        utime, looked = os.utime, 0

        def and_look(*args: Any, **keys: Any) -> None:
            nonlocal looked
            utime(*args, **keys)
            source.confirm()
            looked += 1

        monkeypatch.setattr(os, "utime", and_look)
        for used in (1_000_000_000.5, 1_000_000_060.25):
            before = mark_of(os.fstat(source.fileno()))
            now(store.touch({SHA256: used}))
            assert mark_of(os.fstat(source.fileno())) != before
            assert store.proven(SHA256, before), "somebody may have looked right before the time was set"
        source.confirm()
        source.close()
        assert looked == 2

    def test_a_file_that_is_written_to_while_its_last_use_is_noted_is_looked_at_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = with_file(LocalFiles(tmp_path, Inline()))
        utime = os.utime

        def and_cut(path: Path, **keys: Any) -> None:
            os.truncate(path, 9)
            utime(path, **keys)

        monkeypatch.setattr(os, "utime", and_cut)
        now(store.touch({SHA256: 1_000_000_000.5}))
        monkeypatch.undo()
        assert now(store.open(SHA256)) is None

    def test_a_large_file_whose_check_cannot_begin_is_open_nowhere_and_is_checked_the_next_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = bytes(AT_ONCE + 1)
        sha256 = hashlib.sha256(data).hexdigest()
        with_file(LocalFiles(tmp_path, Inline()), data, sha256)
        store = LocalFiles(tmp_path, Inline())

        def refuse(descriptor: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        before = os.listdir("/proc/self/fd")
        monkeypatch.setattr(os, "dup", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            now(store.open(sha256))
        monkeypatch.undo()
        assert len(os.listdir("/proc/self/fd")) == len(before)
        source = now(store.open(sha256))
        assert (source.extent(), source.ended()) == (len(data), True)
        source.close()


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_file_that_others_use_as_it_is_opened_is_there_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Each use changes its time: what was known of it before is then not known of it now, and it has just been looked at."""
    data = os.urandom(size)
    store = LocalFiles(tmp_path, Inline())
    partial = arrive(store, data)
    partial.commit(hashlib.sha256(data).hexdigest())
    partial.close()
    monkeypatch.setattr(Proofs, "hold", lambda *_: False)
    monkeypatch.setattr(FileBeingChecked, "checked", lambda *_: None)
    source = now(store.open(hashlib.sha256(data).hexdigest()))
    assert source is not None
    assert (source.extent(), source.ended()) == (size, True)
    source.close()
    now(store.close())

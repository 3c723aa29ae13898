"""Room, last uses and kept files, step by step on a clock of the test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from proxy.cache import room
from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook, PinnedFile
from proxy.cache.room import Room
from proxy.cache.usage import UsageBook
from proxy.core.events import Evicted
from proxy.errors import StorageFailed
from proxy.mechanism.offload import Inline
from proxy.model import NO_BYTES, Change, LedgerEntry
from proxy.statistics.recorders import MemoryRecorder
from proxy.storage.memory import MemoryFiles, MemoryVersioned

HOUR = 3600.0


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Store(MemoryFiles):
    """Counts what it is asked for, and can be told to fail or to do something before it deletes."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: list[Mapping[str, float]] = []
        self.inventories = 0
        self.broken: OSError | None = None
        self.meanwhile: Any = None
        #: What cannot be removed, by digest.
        self.stuck: set[str] = set()

    async def touch(self, times: Mapping[str, float]) -> None:
        if self.broken is not None:
            raise self.broken
        self.touched.append(times)
        await super().touch(times)

    async def inventory(self) -> Any:
        self.inventories += 1
        return await super().inventory()

    async def delete(self, sha256: str) -> bool:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if sha256 in self.stuck:
            raise StorageFailed(f"files/{sha256} cannot be removed: Permission denied")
        return await super().delete(sha256)


class Case(SynchronousTestCase):
    """Files of 100 bytes with names of one letter, on a disk of 1,000 bytes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.store = Store()
        self.records = MemoryVersioned()
        self.pins = Ledger(self.records, 1_000_000, Inline())
        self.usage = UsageBook(self.store, Inline(), self.clock.seconds)
        self.kept = PinnedBook(self.records, self.pins, self.store)
        self.recorder = MemoryRecorder()
        self.store.space = 1_000

    def room(self, max_size: int | None = None, min_free: int | None = None) -> Room:
        return Room(
            self.store,
            self.usage,
            self.kept,
            Inline(),
            self.clock,
            max_size=max_size,
            min_free=min_free,
            recorder=self.recorder,
        )

    def add(self, names: str) -> None:
        """Store a file for each name, the first one longest ago."""
        for name in names:
            self.clock.advance(1)
            self.store.files[sha(name)] = bytes(100)
            self.store.times[sha(name)] = self.clock.seconds()

    def gone(self) -> list[int]:
        """The sizes of the files that were evicted."""
        return [event.size for event in self.recorder.events if isinstance(event, Evicted)]

    def there(self) -> str:
        return "".join(name for name in "abcdefghij" if sha(name) in self.store.files)

    def now(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def pin(self, project: str, name: str, content: str) -> None:
        self.now(self.pins.add("pypi", project, name, LedgerEntry(sha(content), 100, {}, "https://files.example/", 0.0)))


class RoomTests(Case):
    def test_down_to_nine_tenths_of_max_size_and_no_further(self) -> None:
        self.add("abcdefghij")
        self.assertEqual(self.now(self.room(max_size=1_000).keep_within_limits()), 0)
        self.assertEqual(self.now(self.room(max_size=999).keep_within_limits()), 200)
        self.assertEqual((self.there(), self.gone()), ("cdefghij", [100, 100]))

    def test_the_oldest_go_however_many_there_are(self) -> None:
        self.patch(room, "_PIECE", 3)
        self.add("hcjaebgdfi")
        self.now(self.room(max_size=500).keep_within_limits())
        self.assertEqual(self.there(), "dfgi")

    def test_others_go_in_place_of_what_cannot_be_removed(self) -> None:
        self.add("abcdefghij")
        self.store.stuck = {sha("a"), sha("c")}
        room = self.room(max_size=999)
        self.assertEqual(self.now(room.keep_within_limits()), 200)
        self.assertEqual((self.there(), self.gone()), ("acefghij", [100, 100]))
        self.assertEqual(self.now(room.keep_within_limits()), 0)

    def test_where_nothing_can_be_removed_eviction_rests(self) -> None:
        self.add("abcdefghij")
        self.store.stuck = {sha(name) for name in "abcdefghij"}
        room = self.room(max_size=999)
        self.assertEqual(self.now(room.keep_within_limits()), 0)
        self.assertEqual((self.there(), self.gone()), ("abcdefghij", []))
        room.committed(sha("a"), 0)
        self.assertEqual(self.store.inventories, 1)
        self.clock.advance(600)
        room.committed(sha("a"), 0)
        self.assertEqual(self.store.inventories, 2)

    def test_up_to_a_quarter_more_than_min_free(self) -> None:
        self.add("abcdefgh")
        self.assertEqual(self.now(self.room(min_free=200).keep_within_limits()), 0)
        self.assertEqual(self.now(self.room(min_free=240).keep_within_limits()), 100)
        self.store.space -= 300  # others fill the disk
        self.assertEqual(self.now(self.room(min_free=240).keep_within_limits()), 300)
        self.assertEqual(self.there(), "efgh")

    def test_after_the_clock_was_set_back_the_files_not_used_for_longest_still_go_first(self) -> None:
        self.add("abcd")
        room = self.room(max_size=250)
        usage = self.usage
        for restart in (False, True):
            self.clock.rightNow -= 86_400
            if restart:
                usage = self.usage = UsageBook(self.store, Inline(), self.clock.seconds)
                room = self.room(max_size=150)
            usage.used(sha("a"))
            usage.used(sha("b"))
            self.now(usage.follow())
            self.now(usage.write())
            self.now(room.keep_within_limits())
            self.assertEqual(self.there(), "b" if restart else "ab")
            usage.used(sha("a"))

    def test_looks_at_the_disk_at_the_start_and_every_minute(self) -> None:
        self.add("abcdefgh")
        room = self.room(min_free=100)
        room.start()
        self.assertEqual((self.there(), self.store.inventories), ("abcdefgh", 0))
        self.store.space -= 150
        self.clock.advance(59)
        self.assertEqual(self.there(), "abcdefgh")
        self.clock.advance(1)
        self.assertEqual(self.there(), "bcdefgh")
        self.now(room.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_used_while_others_go_stays(self) -> None:
        self.add("abcd")
        self.store.meanwhile = lambda: self.usage.used(sha("b"))
        self.clock.advance(1)
        self.now(self.room(max_size=300).keep_within_limits())
        self.assertEqual(self.there(), "bcd")

    def test_what_is_kept_while_others_go_stays(self) -> None:
        self.add("abcd")
        self.pin("p", "b-1.0-py3-none-any.whl", "b")
        keeping: list[Deferred[list[str]]] = []
        self.store.meanwhile = lambda: keeping.append(Deferred.fromCoroutine(self.kept.pin("pypi", "p")))
        self.now(self.room(max_size=300).keep_within_limits())
        self.assertEqual(self.there(), "bcd")
        self.assertEqual(self.successResultOf(keeping[0]), ["b-1.0-py3-none-any.whl"])

    def test_a_limit_that_cannot_be_met_is_told_of_and_left_alone_for_a_while(self) -> None:
        self.add("abcd")
        self.now(self.kept.add(PinnedFile("pypi", "p", f"{name}.whl", sha(name)) for name in "abc"))
        room = self.room(max_size=250)
        room.start()
        self.assertEqual((self.there(), self.store.inventories), ("abc", 1))
        for _ in range(9):
            self.clock.advance(60)
        self.assertEqual(self.store.inventories, 1)
        self.now(self.kept.unpin("pypi", "p", "a.whl"))
        self.clock.advance(60)
        self.assertEqual(self.there(), "bc")
        self.now(room.stop())

    def test_room_for_a_download_is_made_of_the_oldest(self) -> None:
        self.add("abcdefgh")
        self.assertTrue(self.now(self.room(max_size=10_000).make_room(150)))
        self.assertEqual(self.there(), "cdefgh")

    def test_room_that_cannot_be_made_is_not_tried_to_be(self) -> None:
        self.add("abcdefgh")
        self.assertFalse(self.now(self.room(max_size=10_000).make_room(1_001)))
        self.assertEqual(self.there(), "abcdefgh")

    def test_without_limits_no_room_is_made(self) -> None:
        self.add("a")
        self.assertFalse(self.now(self.room().make_room(1)))
        self.assertEqual(self.there(), "a")

    def test_what_broken_downloads_left_makes_room_too(self) -> None:
        self.store.left["sha256-0"] = bytes(50)
        self.assertTrue(self.now(self.room(max_size=10_000).make_room(1)))
        self.assertEqual(self.store.left, {})

    def test_the_store_is_counted_once_and_again_when_files_go(self) -> None:
        self.add("abcd")
        room = self.room(max_size=400)
        room.start()
        self.assertEqual(self.store.inventories, 1)
        self.add("e")
        room.committed(sha("e"), 100)
        self.assertEqual((self.there(), self.store.inventories), ("cde", 2))
        self.add("f")
        room.committed(sha("f"), 100)
        self.assertEqual((self.there(), self.store.inventories), ("cdef", 2))
        self.now(room.stop())


class UsageTests(Case):
    def test_uses_are_written_in_one_batch_a_minute_and_at_the_stop(self) -> None:
        self.add("ab")
        room = self.room()
        room.start()
        for _ in range(1_000):
            self.usage.used(sha("a"))
        self.assertEqual(self.store.touched, [])
        self.clock.advance(60)
        self.assertEqual([set(batch) for batch in self.store.touched], [{sha("a")}])
        self.clock.advance(60)
        self.assertEqual(len(self.store.touched), 1)
        self.usage.used(sha("b"))
        self.now(room.stop())
        self.assertEqual(self.store.touched[1], {sha("b"): self.clock.seconds()})

    def test_a_file_is_used_when_it_is_stored(self) -> None:
        self.store.files[sha("a")] = bytes(100)
        self.room().committed(sha("a"), 100)
        self.assertEqual(self.now(self.usage.last_used()), {sha("a"): self.clock.seconds()})

    def test_a_use_counts_before_it_is_written(self) -> None:
        self.add("ab")
        self.clock.advance(10)
        self.usage.used(sha("a"))
        then = self.clock.seconds()
        self.assertEqual(self.now(self.usage.last_used()), {sha("a"): then, sha("b"): then - 10})

    def test_what_could_not_be_written_is_written_the_next_time(self) -> None:
        self.add("ab")
        self.store.broken = PermissionError(1, "not permitted")
        self.usage.used(sha("a"))
        self.now(self.usage.write())
        self.store.broken = None
        self.usage.used(sha("b"))
        self.now(self.usage.write())
        self.assertEqual([set(batch) for batch in self.store.touched], [{sha("a"), sha("b")}])


class KeptTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.pin("p", "p-1.0-py3-none-any.whl", "a")
        self.pin("p", "p-1.0.tar.gz", "b")
        self.pin("p", "p-2.0-py3-none-any.whl", "c")
        self.pin("p", f"sha256-{sha('a')}/p-1.0-py3-none-any.whl.metadata", "d")
        self.pin("p", "p.exe", "e")
        nothing = LedgerEntry(NO_BYTES, 0, {}, "https://files.example/", 0.0)
        self.now(self.pins.add("pypi", "p", f"sha256-{sha('c')}/p-2.0-py3-none-any.whl.metadata", nothing))

    def keep(self, which: str | None = None, project: str = "p") -> Any:
        return self.now(self.kept.pin("pypi", project, which))

    def digests(self) -> str:
        """The names whose content is kept."""
        kept = self.now(self.kept.digests())
        return "".join(name for name in "abcdefghij" if sha(name) in kept)

    def test_by_project_version_and_file_name(self) -> None:
        self.add("abcde")
        for which, names, contents in (
            ("1", ["p-1.0-py3-none-any.whl", "p-1.0.tar.gz"], "abd"),
            ("p-1.0.tar.gz", ["p-1.0.tar.gz"], "b"),
            ("3", [], ""),
            ("no version", [], ""),
            (None, ["p-1.0-py3-none-any.whl", "p-1.0.tar.gz", "p-2.0-py3-none-any.whl", "p.exe"], "abcde"),
        ):
            self.assertEqual(self.keep(which), names)
            self.assertEqual(self.digests(), contents)
            self.assertEqual(self.now(self.kept.unpin("pypi", "p", which)), names)
            self.assertEqual(self.digests(), "")
        self.assertEqual(self.keep(project="q"), [])

    def test_what_is_not_stored_is_not_kept(self) -> None:
        self.add("b")
        self.assertEqual(self.keep("1.0"), ["p-1.0.tar.gz"])
        self.assertEqual(self.now(self.kept.files()), [PinnedFile("pypi", "p", "p-1.0.tar.gz", sha("b"))])

    def test_metadata_that_comes_later_is_kept_with_its_file(self) -> None:
        self.add("a")
        self.keep()
        self.add("d")
        self.assertEqual(self.digests(), "ad")

    def test_bytes_under_two_names_stay_while_one_is_kept(self) -> None:
        self.add("a")
        self.pin("q", "q-1.0.tar.gz", "a")
        self.keep()
        self.keep(project="q")
        self.now(self.kept.unpin("pypi", "p"))
        self.assertEqual(self.digests(), "a")

    def test_a_restart_and_a_record_that_cannot_be_read(self) -> None:
        self.add("c")
        self.keep("2.0")
        self.kept = PinnedBook(self.records, self.pins, self.store)
        self.assertEqual(self.digests(), "c")
        self.now(self.records.apply([Change("pinned/nonsense", b"\xc1")]))
        self.kept = PinnedBook(self.records, self.pins, self.store)
        self.assertEqual(self.digests(), "c")

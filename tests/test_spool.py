"""The growing file: visibility, verification, back-pressure, a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from proxy.errors import DigestMismatch, Overloaded, UpstreamFailed
from proxy.mechanism.offload import Inline
from proxy.mechanism.spool.arrival import SMALL
from proxy.mechanism.spool.passing import WINDOW
from proxy.mechanism.spool.reader import HOLD, SpoolReader
from proxy.mechanism.spool.spooling import Spool
from proxy.mechanism.spool.steps import PACE, QUEUE_HIGH, STEP
from proxy.mechanism.spool.writer import UNKNOWN_SIZE
from proxy.model import Digest, FileFacts, Wanted
from proxy.storage.memory import MemoryFiles, MemoryPartial
from proxy.upstream.http.failures import Unfit
from proxy.upstream.index.files import Opened, Said, pump

KEY = "sha256-" + "0" * 64


def digest(data: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(data).hexdigest())


class FullDisk(MemoryPartial):
    """A partial file on a disk with room for *room* bytes."""

    room = 0
    errno = errno.ENOSPC

    def write(self, data: bytes) -> None:
        taken = data[: self.room - self.size]
        super().write(taken)
        if len(taken) < len(data):
            raise OSError(self.errno, os.strerror(self.errno))


class HeldDisk(Inline):
    """Does nothing before it may."""

    def __init__(self) -> None:
        self.gates: list[Deferred[None]] = []

    async def run(self, function, *args):  # type: ignore[no-untyped-def]  # any function
        self.gates.append(Deferred())
        await self.gates[-1]
        return await super().run(function, *args)

    def go(self) -> None:
        """Let all be done that waits, and what follows from it."""
        while self.gates:
            self.gates.pop(0).callback(None)


class Transport(Struct):
    """What delivers: notes whether it was asked to pause."""

    paused: bool = False
    calls: list[str] = field(default_factory=list)

    def pauseProducing(self) -> None:
        self.paused = True
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.paused = False
        self.calls.append("resume")


def readable(reader: SpoolReader, position: int = 0) -> bytes:
    """All that *reader* may see from *position* on."""
    data = os.pread(reader.fileno(), max(0, reader.extent() - position), position)
    while piece := reader.from_memory(position + len(data), 1 << 30):
        data += piece
    return data


class SpoolTests(SynchronousTestCase):
    def spool(self, expected: Digest | None, store: MemoryFiles | None = None, room: int | None = None, **told: Any) -> Spool:
        self.store = store or MemoryFiles()
        if room is None:
            self.partial: MemoryPartial = self.successResultOf(Deferred.fromCoroutine(self.store.begin(KEY, resume=True)))
        else:
            self.partial = full = FullDisk(self.store, KEY, b"")
            full.room = room
        spool = Spool("big.whl", self.partial, expected, Inline(), **told)
        self.addCleanup(spool.close)
        self.successResultOf(Deferred.fromCoroutine(spool.recover()))
        return spool

    def reader(self, spool: Spool) -> SpoolReader:
        reader = spool.reader()
        self.addCleanup(reader.close)
        return reader

    def finish(self, spool: Spool) -> Deferred[None]:
        return Deferred.fromCoroutine(spool.finish())

    def test_bytes_are_visible_as_they_arrive_but_for_the_last_chunk(self) -> None:
        data = os.urandom(HOLD * 4)
        spool = self.spool(digest(data))
        reader = self.reader(spool)
        spool.begin(FileFacts(len(data)))
        spool.write(data[: HOLD * 2])
        self.assertEqual(readable(reader), data[: HOLD * 2])
        spool.write(data[HOLD * 2 :])
        self.assertEqual(readable(reader), data[:-HOLD])
        self.assertFalse(reader.ended())
        self.successResultOf(self.finish(spool))
        self.assertEqual(readable(reader), data)
        self.assertTrue(reader.ended())
        self.assertEqual(self.store.files[digest(data).hex], data)

    def test_without_a_known_size_the_end_is_held_back_too(self) -> None:
        data = os.urandom(HOLD * 3)
        spool = self.spool(digest(data))
        reader = self.reader(spool)
        spool.begin(FileFacts(None))
        spool.write(data)
        self.assertEqual(readable(reader), data[:-HOLD])
        self.successResultOf(self.finish(spool))
        self.assertEqual(readable(reader), data)

    def test_wrong_bytes_never_become_a_file_and_their_end_is_never_seen(self) -> None:
        data = os.urandom(HOLD * 2)
        spool = self.spool(digest(b"other"))
        reader = self.reader(spool)
        spool.begin(FileFacts(len(data)))
        spool.write(data)
        self.assertEqual(len(readable(reader)), HOLD)
        failure = self.failureResultOf(self.finish(spool), DigestMismatch)
        self.assertEqual(readable(reader), b"", "bytes that are known to be wrong are not sent any more")
        self.successResultOf(Deferred.fromCoroutine(spool.fail(failure)))
        with pytest.raises(DigestMismatch):
            reader.ended()
        self.assertEqual((self.store.files, self.store.left), ({}, {}))

    def test_readers_hear_of_a_failure_when_nothing_is_left_of_it(self) -> None:
        """Who asks again at once must not meet what is about to go."""
        spool = self.spool(digest(b"x"))
        reader = self.reader(spool)
        seen: list[bool] = []
        discard = self.partial.discard

        def discarded() -> None:
            seen.append(reader.ended())
            discard()

        self.patch(self.partial, "discard", discarded)
        self.successResultOf(Deferred.fromCoroutine(spool.fail(Failure(DigestMismatch("big.whl", [])))))
        self.assertEqual(seen, [False])
        self.assertRaises(DigestMismatch, reader.ended)

    def test_readers_hear_of_a_failure_also_when_tidying_up_fails(self) -> None:
        spool = self.spool(None)
        reader = self.reader(spool)

        def broken() -> None:
            raise OSError(errno.EIO, "broken")

        self.patch(self.partial, "discard", broken)
        self.failureResultOf(Deferred.fromCoroutine(spool.fail(Failure(UpstreamFailed("big.whl", [])))), OSError)
        self.assertRaises(UpstreamFailed, reader.ended)

    def test_another_algorithm_than_sha256_is_checked_as_well(self) -> None:
        data = b"old file"
        spool = self.spool(Digest("md5", hashlib.md5(data, usedforsecurity=False).hexdigest()))
        spool.begin(FileFacts(len(data)))
        spool.write(data)
        self.successResultOf(self.finish(spool))
        self.assertIn(digest(data).hex, self.store.files)

    def test_a_short_body_is_refused(self) -> None:
        spool = self.spool(None)
        spool.begin(FileFacts(10))
        spool.write(b"12345")
        self.failureResultOf(self.finish(spool), ValueError)

    def test_a_size_that_contradicts_the_first_is_refused(self) -> None:
        spool = self.spool(None)
        spool.begin(FileFacts(10))
        with pytest.raises(ValueError, match="11"):
            spool.begin(FileFacts(11))

    def test_a_broken_download_is_gone_on_with_by_the_next(self) -> None:
        data = os.urandom(50_000)
        spool = self.spool(digest(data))
        spool.write(data[:20_000])
        self.successResultOf(Deferred.fromCoroutine(spool.fail(Failure(UpstreamFailed("big.whl", [])))))
        again = self.spool(digest(data), self.store)
        self.assertEqual(again.offset, 20_000)
        again.begin(FileFacts(len(data)))
        again.write(data[20_000:])
        self.successResultOf(self.finish(again))
        self.assertEqual(self.store.files[digest(data).hex], data)

    def test_a_restart_forgets_all_bytes_before_anybody_saw_one(self) -> None:
        data = os.urandom(9_000)
        spool = self.spool(digest(data))
        spool.begin(FileFacts(3))
        spool.write(b"bad")
        self.successResultOf(Deferred.fromCoroutine(spool.restart()))
        spool.begin(FileFacts(len(data)))
        spool.write(data)
        self.successResultOf(self.finish(spool))
        self.assertEqual(self.store.files[digest(data).hex], data)

    def test_a_restart_hides_all_bytes_before_it_waits_for_the_disk(self) -> None:
        data = os.urandom(HOLD * 3)
        disk = HeldDisk()
        spool = Spool("big.whl", MemoryPartial(MemoryFiles(), KEY, b""), digest(data), disk)
        self.addCleanup(spool.close)
        reader = self.reader(spool)
        spool.begin(FileFacts(len(data)))
        spool.write(bytes(len(data)))
        disk.go()
        self.assertEqual(len(readable(reader)), HOLD * 2)
        restarted = Deferred.fromCoroutine(spool.restart())
        self.assertEqual(readable(reader), b"")
        disk.go()
        self.successResultOf(restarted)
        self.assertEqual(readable(reader), b"")
        spool.write(data)
        disk.go()
        self.assertEqual(readable(reader), data[:-HOLD])

    def test_a_restart_on_a_full_disk_lets_upstream_go_on(self) -> None:
        spool = self.spool(None, room=0)
        transport = Transport()
        spool.registerProducer(transport, True)
        spool.begin(FileFacts(None))
        self.reader(spool)
        spool.write(bytes(WINDOW + HOLD + 1))
        self.assertTrue(transport.paused)
        self.successResultOf(Deferred.fromCoroutine(spool.restart()))
        another = Transport()
        spool.registerProducer(another, True)
        self.assertFalse(another.paused)

    def test_a_download_that_breaks_here_does_not_leave_upstream_waiting_for_room(self) -> None:
        class Broken(MemoryPartial):
            def write(self, data: bytes) -> None:
                if data:
                    raise MemoryError

        disk = HeldDisk()
        spool = Spool("big.whl", Broken(MemoryFiles(), KEY, b""), None, disk)
        self.addCleanup(spool.close)
        transport = Transport()
        spool.registerProducer(transport, True)
        spool.begin(FileFacts(None))
        spool.write(bytes(QUEUE_HIGH + 1))
        self.assertTrue(transport.paused)
        disk.go()
        self.assertFalse(transport.paused)
        spool.write(bytes(QUEUE_HIGH + 1))
        self.assertFalse(transport.paused)
        self.failureResultOf(self.finish(spool), MemoryError)

    def test_bytes_that_were_read_while_another_answer_was_waited_for_are_not_taken_back(self) -> None:
        spool = self.spool(None)
        spool.begin(FileFacts(None))
        spool.write(b"seen" * HOLD)
        anything: Any = object()
        opened = Opened(anything, anything, anything, Said(), restart=True)
        reader = self.reader(spool)
        seen = readable(reader)
        reader.advanced(len(seen))
        wanted = Wanted("pypi", "big", "big.whl", "", "up", None, None)
        self.failureResultOf(Deferred.fromCoroutine(pump(opened, wanted, spool)), Unfit)
        self.assertEqual(readable(reader), seen)

    def test_what_was_left_whole_and_wrong_is_forgotten(self) -> None:
        data = os.urandom(9_000)
        first = self.spool(digest(data))
        first.begin(FileFacts(9_000))
        first.write(bytes(9_000))
        self.successResultOf(Deferred.fromCoroutine(first.fail(Failure(UpstreamFailed("big.whl", [])))))
        again = self.spool(digest(data), self.store)
        self.assertEqual((again.offset, again.total), (0, None))

    def test_who_was_promised_another_size_meets_an_error_after_a_restart(self) -> None:
        for size, again in ((HOLD * 2, HOLD * 3), (HOLD * 3, HOLD * 2), (HOLD * 2, None)):
            data = os.urandom(again or HOLD * 3)
            spool = self.spool(digest(data))
            spool.begin(FileFacts(size))
            promised = self.reader(spool)
            spool.write(bytes(HOLD + 1))
            self.successResultOf(Deferred.fromCoroutine(spool.restart()))
            spool.begin(FileFacts(again))
            told = self.reader(spool)
            spool.write(data)
            self.assertLess(promised.extent(), size, "nothing that looks like an end")
            self.successResultOf(self.finish(spool))
            self.assertRaises(UpstreamFailed, promised.ended)
            self.assertEqual(promised.extent(), 0)
            self.assertEqual(readable(told), data)

    def test_more_than_was_stated_is_cut_off_and_the_digest_tells(self) -> None:
        data = os.urandom(HOLD * 2)
        spool = self.spool(digest(data))
        spool.begin(FileFacts(len(data)))
        spool.write(data + b"more")
        self.assertEqual(spool.offset, len(data))
        self.successResultOf(self.finish(spool))
        self.assertEqual(self.store.files[digest(data).hex], data)

    def test_without_a_digest_more_than_was_stated_is_refused(self) -> None:
        spool = self.spool(None)
        spool.begin(FileFacts(10))
        spool.write(bytes(11))
        self.failureResultOf(self.finish(spool), ValueError)

    def test_what_is_cancelled_while_a_thread_works_on_the_file_waits_for_the_thread(self) -> None:
        """Else the descriptor would be closed under its hands, and its number given to another file."""
        disk = HeldDisk()
        done: list[str] = []

        class Noting(MemoryPartial):
            def commit(self, sha256: str) -> None:
                done.append("commit")

            def discard(self) -> None:
                done.append("discard")

        spool = Spool("big.whl", Noting(MemoryFiles(), KEY, b""), None, disk)
        self.addCleanup(spool.close)
        finishing = self.finish(spool)
        finishing.cancel()
        self.failureResultOf(finishing, CancelledError)
        failing = Deferred.fromCoroutine(spool.fail(Failure(UpstreamFailed("big.whl", []))))
        self.assertEqual(len(disk.gates), 1)
        disk.go()
        self.successResultOf(failing)
        self.assertEqual(done, ["commit", "discard"])

    def test_bytes_that_a_reader_took_are_released(self) -> None:
        spool = self.spool(None)
        reader = self.reader(spool)
        reader.advanced(77)
        self.assertEqual(spool.released, 77)

    def test_a_reader_outlives_the_spool(self) -> None:
        data = os.urandom(6_000)
        spool = self.spool(digest(data))
        reader = self.reader(spool)
        spool.begin(FileFacts(len(data)))
        spool.write(data)
        self.successResultOf(self.finish(spool))
        spool.close()
        self.assertFalse(spool.joinable)
        self.assertEqual(readable(reader), data)

    def test_readers_are_told_of_every_change_and_of_the_end(self) -> None:
        spool = self.spool(None)
        reader = self.reader(spool)
        told: list[str] = []
        reader.on_change(lambda: told.append("bytes"))
        spool.begin(FileFacts(None))
        self.assertEqual(told, ["bytes"])
        reader.on_change(lambda: told.append("end"))
        self.successResultOf(self.finish(spool))
        self.assertEqual(told, ["bytes", "end"])

    # -- a full disk

    def test_on_a_full_disk_the_file_goes_to_its_readers_and_is_not_kept(self) -> None:
        data = os.urandom(300_000)
        spool = self.spool(digest(data), room=100_000)
        reader = self.reader(spool)
        spool.begin(FileFacts(len(data)))
        got = b""
        for start in range(0, len(data), 50_000):
            spool.write(data[start : start + 50_000])
            got += readable(reader, len(got))
            reader.advanced(len(got))
        self.successResultOf(self.finish(spool))
        got += readable(reader, len(got))
        self.assertEqual(got, data)
        self.assertFalse(spool.kept)
        self.assertEqual(self.store.files, {})
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_on_a_full_disk_upstream_waits_for_the_slowest_reader(self) -> None:
        spool = self.spool(None, room=0)
        transport = Transport()
        spool.registerProducer(transport, True)
        slow, fast = self.reader(spool), self.reader(spool)
        spool.begin(FileFacts(None))
        spool.write(bytes(WINDOW + HOLD + 1))
        fast.advanced(WINDOW)
        self.assertTrue(transport.paused)
        slow.advanced(WINDOW // 2)
        self.assertFalse(transport.paused)

    def test_on_a_full_disk_a_late_reader_cannot_join_once_the_window_moved(self) -> None:
        spool = self.spool(None, room=0)
        reader = self.reader(spool)
        spool.begin(FileFacts(None))
        spool.write(bytes(WINDOW))
        self.assertTrue(spool.joinable)
        reader.advanced(HOLD)
        spool.write(b"more")
        self.assertFalse(spool.joinable)

    def test_on_a_full_disk_a_late_reader_can_join_as_long_as_the_window_has_it_all(self) -> None:
        spool = self.spool(None, room=0)
        reader = self.reader(spool)
        spool.begin(FileFacts(None))
        spool.write(bytes(HOLD * 2))
        reader.advanced(HOLD)
        spool.write(b"more")
        self.assertTrue(spool.joinable)

    def impatient(self, slowly: int) -> tuple[SpoolReader, SpoolReader, Clock]:
        """A reader that takes *slowly* bytes a second, one that takes all there is, and the clock, after a minute."""
        clock = Clock()
        partial = FullDisk(MemoryFiles(), KEY, b"")
        spool = Spool("big.whl", partial, None, Inline(), later=clock.callLater)
        self.addCleanup(spool.close)
        transport = Transport()
        spool.registerProducer(transport, True)
        slow, fast = self.reader(spool), self.reader(spool)
        spool.begin(FileFacts(None))
        for _ in range(120):
            while not transport.paused and fast.position < 60 * WINDOW:
                spool.write(bytes(WINDOW // 4))
                fast.advanced(spool.visible())
            clock.advance(0.5)
            with contextlib.suppress(Overloaded):
                slow.ended()
                slow.advanced(min(slow.position + slowly // 2, spool.visible()))
        self.successResultOf(Deferred.fromCoroutine(spool.fail(Failure(UpstreamFailed("big.whl", [])))))
        self.assertEqual(clock.getDelayedCalls(), [])
        return slow, fast, clock

    def test_on_a_full_disk_a_reader_that_trickles_is_dropped_and_the_others_go_on(self) -> None:
        for rate in (0, 1, WINDOW // 8):
            slow, fast, _ = self.impatient(rate)
            with pytest.raises(Overloaded):
                slow.ended()
            self.assertEqual((slow.extent(), slow.from_memory(slow.position, 10)), (0, b""))
            self.assertGreater(fast.position, 50 * WINDOW)

    def test_on_a_full_disk_a_reader_that_is_only_somewhat_slower_is_waited_for(self) -> None:
        slow, _, _ = self.impatient(WINDOW)
        with pytest.raises(UpstreamFailed):
            slow.ended()

    def test_on_a_full_disk_a_reader_of_the_end_holds_nobody_up(self) -> None:
        spool = self.spool(None, room=0)
        transport = Transport()
        spool.registerProducer(transport, True)
        reader = self.reader(spool)
        reader.confine(10 * WINDOW, 10 * WINDOW + 10)
        spool.begin(FileFacts(None))
        for _ in range(44):
            spool.write(bytes(WINDOW // 4))
        self.assertFalse(transport.paused)
        self.assertEqual(reader.from_memory(10 * WINDOW, 10), bytes(10))

    def test_where_room_is_made_the_file_is_kept(self) -> None:
        data = os.urandom(300_000)
        asked: list[int] = []

        async def make_room(needed: int) -> bool:
            asked.append(needed)
            assert isinstance(self.partial, FullDisk)
            self.partial.room += 150_000
            return True

        spool = self.spool(digest(data), room=100_000, make_room=make_room)
        reader = self.reader(spool)
        spool.begin(FileFacts(len(data)))
        for start in range(0, len(data), 90_000):
            spool.write(data[start : start + 90_000])
        self.successResultOf(self.finish(spool))
        self.assertEqual(readable(reader), data)
        self.assertTrue(spool.kept)
        self.assertEqual(self.store.files, {digest(data).hex: data})
        self.assertEqual(asked, [200_000, 50_000])

    def test_room_is_not_asked_for_for_ever(self) -> None:
        asked: list[int] = []

        async def promise(needed: int) -> bool:
            asked.append(needed)
            return True

        spool = self.spool(None, room=1_000, make_room=promise)
        reader = self.reader(spool)
        spool.begin(FileFacts(None))
        spool.write(data := os.urandom(50_000))
        self.successResultOf(self.finish(spool))
        self.assertEqual(readable(reader), data)
        self.assertFalse(spool.kept)
        self.assertEqual(asked, [UNKNOWN_SIZE] * 3)

    def test_a_file_larger_than_files_may_be_asks_for_no_room(self) -> None:
        async def unasked(needed: int) -> bool:
            raise AssertionError("asked for room")

        spool = self.spool(None, room=1_000, make_room=unasked)
        assert isinstance(self.partial, FullDisk)
        self.partial.errno = errno.EFBIG
        reader = self.reader(spool)
        spool.write(data := os.urandom(50_000))
        self.successResultOf(self.finish(spool))
        self.assertEqual(readable(reader), data)

    def test_a_disk_that_is_full_at_the_commit_costs_the_store_the_file_and_nobody_else(self) -> None:
        spool = self.spool(None, room=100_000)

        def full(sha256: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.partial.commit = full  # type: ignore[method-assign]  # this one file fails
        reader = self.reader(spool)
        spool.write(data := os.urandom(50_000))
        self.successResultOf(self.finish(spool))
        self.assertEqual(readable(reader), data)
        self.assertTrue(reader.ended())
        self.assertFalse(spool.kept)
        self.assertEqual(self.store.files, {})

    def test_a_download_that_is_not_kept_ends_with_its_last_reader(self) -> None:
        abandoned: list[bool] = []
        spool = self.spool(None, room=0, abandoned=lambda: abandoned.append(True))
        reader = self.reader(spool)
        spool.begin(FileFacts(None))
        spool.write(bytes(10))
        reader.close()
        self.assertEqual(abandoned, [True])


class BackPressureTests(SynchronousTestCase):
    def test_upstream_pauses_while_the_disk_is_behind(self) -> None:
        disk = HeldDisk()
        spool = Spool("big.whl", MemoryPartial(MemoryFiles(), KEY, b""), None, disk)
        self.addCleanup(spool.close)
        transport = Transport()
        spool.registerProducer(transport, True)
        spool.write(bytes(QUEUE_HIGH))
        self.assertFalse(transport.paused)
        spool.write(b"1")
        self.assertTrue(transport.paused)
        disk.go()
        self.assertEqual(transport.calls, ["pause", "resume"])


class StepTests(SynchronousTestCase):
    """How much is gathered before it is written and shown."""

    def setUp(self) -> None:
        self.clock = Clock()
        partial = MemoryPartial(MemoryFiles(), KEY, b"")
        self.data = os.urandom(3 * STEP)
        self.spool = Spool("big.whl", partial, digest(self.data), Inline(), later=self.clock.callLater)
        self.addCleanup(self.spool.close)
        self.reader = self.spool.reader()
        self.addCleanup(self.reader.close)
        self.spool.begin(FileFacts(len(self.data)))
        self.sent = 0

    def write(self, count: int) -> None:
        self.spool.write(self.data[self.sent : self.sent + count])
        self.sent += count

    def test_the_first_bytes_are_shown_at_once_and_few_more_after_a_moment(self) -> None:
        self.write(HOLD)
        self.assertEqual(self.reader.extent(), HOLD)
        self.write(HOLD)
        self.write(HOLD)
        self.assertEqual(self.reader.extent(), HOLD)
        self.clock.advance(PACE)
        self.assertEqual(self.reader.extent(), 3 * HOLD)

    def test_bytes_that_come_after_a_pause_are_shown_at_once(self) -> None:
        self.write(HOLD)
        self.clock.advance(PACE)
        self.write(HOLD)
        self.assertEqual(self.reader.extent(), 2 * HOLD)

    def test_enough_bytes_are_shown_at_once(self) -> None:
        told: list[int] = []

        def listen() -> None:
            told.append(self.reader.extent())
            self.reader.on_change(listen)

        self.write(HOLD)
        self.reader.on_change(listen)
        for _ in range(STEP // HOLD):
            self.write(HOLD)
        self.assertEqual(told, [HOLD + STEP])

    def test_few_bytes_at_the_end_are_told_together_with_the_very_end(self) -> None:
        told: list[int] = []

        def listen() -> None:
            told.append(self.reader.extent())
            self.reader.on_change(listen)

        self.write(2 * STEP)
        self.reader.on_change(listen)
        self.write(STEP)
        self.successResultOf(Deferred.fromCoroutine(self.spool.finish()))
        self.assertEqual(told, [3 * STEP])

    def test_the_end_waits_for_nothing(self) -> None:
        self.write(HOLD)
        self.write(len(self.data) - HOLD)
        self.successResultOf(Deferred.fromCoroutine(self.spool.finish()))
        self.assertEqual(readable(self.reader), self.data)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_download_that_fails_or_begins_anew_leaves_no_timer(self) -> None:
        self.write(2 * HOLD)
        self.write(HOLD)
        self.successResultOf(Deferred.fromCoroutine(self.spool.restart()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.spool.write(self.data[: 2 * HOLD])
        self.successResultOf(Deferred.fromCoroutine(self.spool.fail(Failure(UpstreamFailed("big.whl", [])))))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WholeTests(SynchronousTestCase):
    """A small file that has arrived, for those who waited for it."""

    def arrive(self, data: bytes) -> SpoolReader:
        spool = Spool("small.whl", MemoryPartial(MemoryFiles(), KEY, b""), digest(data), Inline())
        self.addCleanup(spool.close)
        reader = spool.reader()
        self.addCleanup(reader.close)
        spool.write(data)
        self.assertIsNone(reader.take_read())
        self.successResultOf(Deferred.fromCoroutine(spool.finish()))
        return reader

    def test_all_of_it_can_be_taken_when_it_is_right(self) -> None:
        data = os.urandom(SMALL)
        self.assertEqual(self.arrive(data).take_read(), data)

    def test_a_larger_file_is_read_as_it_is_sent(self) -> None:
        self.assertIsNone(self.arrive(os.urandom(SMALL + 1)).take_read())


@given(st.lists(st.binary(max_size=3 * HOLD), max_size=12), st.booleans())
def test_what_readers_see_is_always_a_prefix_and_in_the_end_all_of_it(chunks: list[bytes], sized: bool) -> None:
    data = b"".join(chunks)
    spool = Spool("f.whl", MemoryPartial(MemoryFiles(), KEY, b""), digest(data), Inline())
    reader = spool.reader()
    spool.begin(FileFacts(len(data) if sized else None))
    for chunk in chunks:
        spool.write(chunk)
        seen = readable(reader)
        assert data.startswith(seen)
        assert len(seen) < len(data) or not data
    deferred = Deferred.fromCoroutine(spool.finish())
    assert deferred.called
    assert readable(reader) == data
    reader.close()
    spool.close()

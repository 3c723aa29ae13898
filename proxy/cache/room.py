"""Room on the disk: the files that were not used for longest go when the store is over its limits.

Files go in the background, down to a low-water mark, so that this is a rare run and not a cost of each download.  Without a
limit nothing ever goes.  What is pinned (:mod:`proxy.cache.pinned`) and what is still arriving never goes; who reads a file
that goes reads it to its end.  What broken downloads left goes before any file.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Collection, Iterator

from msgspec import Struct
from twisted.internet.defer import CancelledError, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.cache.pinned import PinnedBook
from proxy.cache.usage import UsageBook
from proxy.core.events import Evicted
from proxy.errors import StorageFailed
from proxy.interfaces import Clock, IFileStore, IOffload, IRecorder
from proxy.mechanism.flight import Flights, swallow
from proxy.model import CommittedFile
from proxy.statistics.recorders import UNRECORDED

#: Seconds between two looks at the file system, and between two batches of last uses.
_INTERVAL = 60.0
#: Seconds after which a limit is tried again that could not be met, because nothing more may go.
_REST = 600.0
#: Seconds between two counts of what is stored.
_COUNT_EVERY = 3600.0
#: Seconds after which a broken download that nobody has asked for again makes room for others.
_LEFT_ALONE = 3600.0
#: Where eviction stops: this share of ``max_size``, and this many times ``min_free``.
_LOW_SIZE = 0.9
_LOW_FREE = 1.25
#: Files that are sorted at once: a few milliseconds' work.
_PIECE = 5_000


class Counted(Struct, frozen=True):
    """The stored files: their number, and their bytes together."""

    files: int
    size: int

    def with_file(self, size: int) -> Counted:
        """With one more, of *size* bytes."""
        return Counted(self.files + 1, self.size + size)


class _Choice(Struct, frozen=True):
    """What goes, oldest first, out of what is *stored*; *missing* bytes more should go and nothing is left that may.

    *instead* are those that may go in place of what cannot be removed, in this order.
    """

    going: list[CommittedFile]
    stored: Counted
    missing: int
    instead: Iterator[CommittedFile]


class Room:
    """Keeps *store* within its limits.

    *max_size*: bytes that all files may have together.  *min_free*: bytes that stay free on the file system.  ``None``: no
    limit.  *recorder* is told of each file that went.
    """

    log = Logger()

    def __init__(
        self,
        store: IFileStore,
        usage: UsageBook,
        pinned: PinnedBook,
        offload: IOffload,
        reactor: IReactorTime,
        *,
        max_size: int | None,
        min_free: int | None,
        recorder: IRecorder = UNRECORDED,
        clock: Clock = time.time,
    ) -> None:
        self._clock = clock
        self._store = store
        self._usage = usage
        self._pinned = pinned
        self._offload = offload
        self._reactor = reactor
        self._max_size = max_size
        self._min_free = min_free
        self._recorder = recorder
        #: What is in the store, counted at each run and added to by each commit; ``None``: not counted yet.
        self.counted: Counted | None = None
        self._count_at = 0.0
        self._rest_until = 0.0
        self._one_run = DeferredLock()
        self._looks: Flights[None] = Flights()
        self._look_again = False
        self._loop = LoopingCall(self._regularly)
        self._loop.clock = reactor

    def configure(self, max_size: int | None, min_free: int | None) -> None:
        """Keep within these limits from now on."""
        if (max_size, min_free) != (self._max_size, self._min_free):
            self._max_size, self._min_free = max_size, min_free
            self._rest_until = 0.0
            if self._loop.running:
                self._look()

    @property
    def max_size(self) -> int | None:
        """Bytes that all files may have together, ``None``: any number."""
        return self._max_size

    @property
    def limited(self) -> bool:
        """Whether anything may go at all."""
        return self._max_size is not None or self._min_free is not None

    def start(self) -> None:
        """Look after the store from now on."""
        self._loop.start(_INTERVAL, now=False)
        self._look()

    async def stop(self) -> None:
        """Stop that, and write what is not written yet."""
        if self._loop.running:
            self._loop.stop()
        self._looks.close()
        await self._usage.write()

    def committed(self, sha256: str, size: int) -> None:
        """Told of each file that was stored."""
        self._usage.used(sha256)
        if self.counted is not None:
            self.counted = self.counted.with_file(size)
        self._look()

    async def keep_within_limits(self) -> int:
        """Evict what there is too much of; returns its bytes."""
        if not await self._above_limits():
            return 0
        return await self._run(0)

    async def make_room(self, needed: int) -> bool:
        """Told that the disk took no more and *needed* bytes are to be stored: whether trying again is worth it."""
        try:
            return self.limited and await self._run(needed) > 0
        except (StorageFailed, OSError) as error:
            self.log.error("no room can be made: {error}", error=error)
            return False

    async def settled(self) -> None:
        """Wait until what is evicted of itself has been."""
        if "look" in self._looks:
            await self._looks.join("look", self._see_to_it)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See to the limits in the background; again, if that is under way."""
        if not self.limited or self._rest_until > self._reactor.seconds():
            return
        self._look_again = True
        if "look" not in self._looks:
            swallow(self._looks.join("look", self._see_to_it))

    async def _see_to_it(self) -> None:
        try:
            while self._look_again:
                self._look_again = False
                await self.keep_within_limits()
        except CancelledError:
            raise
        except (StorageFailed, OSError) as error:
            self.log.error("the stored files cannot be kept within their limits: {error}", error=error)
        except Exception:  # noqa: BLE001  # whatever went wrong is logged, and the next look may do better
            self.log.failure("the stored files cannot be kept within their limits", Failure())

    async def _regularly(self) -> None:
        try:
            if self.limited:
                await self._usage.follow()
            await self._usage.write()
            await self._count()
        except (StorageFailed, OSError) as error:
            self.log.error("the stored files cannot be looked at: {error}", error=error)
        self._look()

    async def _count(self) -> None:
        """Count what is stored, once in a while: others than this cache may add and remove files."""
        now = self._reactor.seconds()
        if self.counted is None or now >= self._count_at:
            self._count_at = now + _COUNT_EVERY
            self.counted = await self._offload.run(_counted, await self._store.walk())

    async def _above_limits(self) -> bool:
        if self._max_size is not None and (self.counted is None or self.counted.size > self._max_size):
            return True
        return self._min_free is not None and await self._store.free() < self._min_free

    async def _run(self, needed: int) -> int:
        async with self._one_run:
            abandoned = await self._store.abandon(self._clock() - _LEFT_ALONE)
            files = await self._usage.files()
            pinned = await self._pinned.digests()
            choice = await self._offload.run(self._choose, files, pinned, await self._store.free(), needed)
            self.counted = choice.stored
            self._count_at = self._reactor.seconds() + _COUNT_EVERY
            freed, left = await self._evict(choice)
        missing = choice.missing + left
        if missing and not needed:
            self._rest_until = self._reactor.seconds() + _REST
            self.log.warn(
                "{missing} bytes too many are on the disk and no file is left that may go: "
                "unpin some, raise max_size, lower min_free or make room",
                missing=missing,
            )
        return freed + abandoned

    def _choose(self, files: list[CommittedFile], pinned: Collection[str], free: int, needed: int) -> _Choice:
        """What has to go.  Called in a worker thread: the list may be long."""
        counted = _counted([(file.sha256, file.size) for file in files])
        stored = counted.size
        may_go = [file for file in files if file.sha256 not in pinned]
        if needed > free + sum(file.size for file in may_go):
            return _Choice([], counted, needed, iter(()))  # it would not fit if everything went
        excess = max(needed, self._above_max_size(stored), self._below_min_free(free))
        # A file that is larger than all may be together goes before it drives out the rest.
        bearable = stored if self._max_size is None else self._max_size * _LOW_SIZE
        going = []
        order = _sorted(may_go, key=lambda file: (file.size <= bearable, file.used))
        while excess > 0 and (file := next(order, None)) is not None:
            going.append(file)
            excess -= file.size
        return _Choice(going, counted, max(0, excess), order)

    def _above_max_size(self, stored: int) -> int:
        limit = self._max_size
        return 0 if limit is None or stored <= limit else stored - int(limit * _LOW_SIZE)

    def _below_min_free(self, free: int) -> int:
        limit = self._min_free
        return 0 if limit is None or free >= limit else int(limit * _LOW_FREE) - free

    async def _evict(self, choice: _Choice) -> tuple[int, int]:
        """Let go what was chosen, and others in place of what cannot be removed.

        Returns the bytes that went, and those that should have and in whose place nothing else may go.
        """
        count = freed = 0
        due = sum(file.size for file in choice.going)
        failures: list[StorageFailed] = []
        for file in itertools.chain(choice.going, choice.instead):
            if due <= 0:
                break
            try:
                if not self._usage.used_since(file.sha256, file.used) and await self._remove(file):
                    count += 1
                    freed += file.size
                due -= file.size
            except StorageFailed as error:
                failures.append(error)
        assert self.counted is not None
        self.counted = Counted(self.counted.files - count, self.counted.size - freed)
        if count:
            self.log.info("evicted {count} files, {freed} bytes, not used for longest", count=count, freed=freed)
        if failures:
            self.log.error(
                "{count} files cannot be evicted, others are evicted instead; the first: {error}",
                count=len(failures),
                error=failures[0],
            )
        return freed, max(0, due)

    async def _remove(self, file: CommittedFile) -> bool:
        """Whether the file went.  Raises StorageFailed when it should have and cannot be removed."""
        async with self._pinned.lock:
            if self._pinned.holds(file.sha256) or not await self._store.delete(file.sha256):
                return False
        self._recorder.record(Evicted(file.size))
        return True


def _counted(files: Collection[tuple[str, int]]) -> Counted:
    return Counted(len(files), sum(size for _, size in files))


def _sorted(files: list[CommittedFile], key: Callable[[CommittedFile], tuple[bool, float]]) -> Iterator[CommittedFile]:
    """*files* in the order of *key*, sorted a piece at a time: no other thread runs while a list is sorted, nor the reactor."""
    pieces = [sorted(files[start : start + _PIECE], key=key) for start in range(0, len(files), _PIECE)]
    return heapq.merge(*pieces, key=key)

"""What is counted of the requests of clients, and kept in the data directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from proxy.composition.means import Means
from proxy.composition.storage import Storage, database_trouble
from proxy.core.troubles import Trouble
from proxy.mechanism.offload import Offload
from proxy.statistics.book import StatisticsBook
from proxy.storage.memory import MemoryRecords
from proxy.storage.records import DiskRecords

#: What the database is called in the data directory.
STATISTICS = "statistics"
#: How often what was noted is counted (seconds).
_INTERVAL = 5.0


class RegularCounting(Service):
    """Counts what *book* has been told every few seconds; nobody counts while it does not run."""

    log = Logger()

    def __init__(self, book: StatisticsBook, reactor: Any) -> None:
        self._book = book
        self._loop = LoopingCall(self._settle)
        self._loop.clock = reactor

    async def _settle(self) -> None:
        try:
            await self._book.settle()
        except Exception:  # noqa: BLE001  # a loop that fails once would never run again
            self.log.failure("bug: statistics were not counted or written this time; counting goes on")

    def startService(self) -> None:
        super().startService()
        self._loop.start(_INTERVAL, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()


class StatisticsRoom:
    """The *book*, what has it *counting*, and the thread of its database."""

    def __init__(self, book: StatisticsBook, counting: RegularCounting, thread: Offload) -> None:
        self.book = book
        self.counting = counting
        self._thread = thread

    async def look(self) -> Sequence[Trouble]:
        """What is wrong with the database: figures are lost after an hour of that, and nothing else."""
        return [] if self.book.trouble is None else [database_trouble(STATISTICS, self.book.trouble)]

    async def close(self) -> None:
        """Write what is in memory."""
        await self.book.close()

    def stop(self) -> None:
        """End the thread."""
        self._thread.stop()


def build_statistics(storage: Storage, means: Means, *, reading: bool) -> StatisticsRoom:
    """The statistics in *storage*; when *reading*, beside the proxy that has it, none."""
    thread = Offload(means.reactor, 1, STATISTICS)
    directory = storage.directory / STATISTICS
    records = (
        MemoryRecords()
        if reading
        else DiskRecords(
            directory,
            thread,
            clock=means.clock,
            steady=means.reactor.seconds,
            ours=storage.place.is_ours,
            recorder=means.recorder,
        )
    )
    book = StatisticsBook(records, thread, means.clock)
    means.recorder.join(book)
    return StatisticsRoom(book, RegularCounting(book, means.reactor), thread)

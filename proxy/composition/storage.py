"""The data directory: its databases and its tree of files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred

from proxy.cache.migration import LEDGER, LEDGER_COPY
from proxy.composition.means import Means
from proxy.core.troubles import Reason, Trouble
from proxy.errors import ConfigError
from proxy.interfaces import IOffload
from proxy.mechanism.offload import Offload
from proxy.settings import ServerSettings
from proxy.storage.copied import CopiedVersioned
from proxy.storage.lists import ListFiles
from proxy.storage.local import LocalFiles
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.place import Place
from proxy.storage.reading import ReadFiles
from proxy.storage.records import CopiedRecords, DiskRecords


class _Database(Protocol):
    name: str

    async def look(self) -> str | None: ...


class Storage(Struct, frozen=True, kw_only=True):
    """An open data directory.  *threads* belong to its databases: SQLite wants one thread for each."""

    place: Place
    #: The database of what can be fetched again, and that of what cannot.
    records: DiskRecords | CopiedRecords
    ledger: MirroredRecords | CopiedVersioned
    files: LocalFiles
    directory: Path
    threads: tuple[Offload, ...]

    def lists(self, index: str, work: IOffload) -> ListFiles:
        """Where the list of the projects of *index* is stored; it is written on *work*."""
        return ListFiles(self.directory / "lists" / index, work, self.place.prepare)

    def scratch(self) -> BinaryIO:
        """A file without a name, to be written and read soon.  Blocks; raises OSError."""
        folder = self.directory / "partial"
        self.place.prepare(folder)
        return tempfile.TemporaryFile(dir=folder, buffering=0)

    async def look(self) -> Sequence[Trouble]:
        """What is wrong with the databases."""
        databases: tuple[_Database, ...] = (self.records, self.ledger)
        looks = [(each.name, Deferred.fromCoroutine(each.look())) for each in databases]
        found = [(name, await look) for name, look in looks]
        return [database_trouble(name, why) for name, why in found if why is not None]

    async def close(self) -> None:
        """Close files, databases and directory."""
        await self.files.close()
        await self.records.close()
        await self.ledger.close()
        self.place.close()

    def stop(self) -> None:
        """End the threads."""
        for each in self.threads:
            each.stop()


def database_trouble(name: str, why: str) -> Trouble:
    """What to report of the database *name*, which cannot be written: *why*."""
    return Trouble(Reason.DATABASE, f"the database {name} takes nothing ({why}): what is new is kept in memory; check the disk")


def open_storage(server: ServerSettings, means: Means) -> Storage:
    """The data directory of *server*.  Raises ConfigError for limits that its file system can never meet."""
    directory, clock, steady, recorder = server.data_dir, means.clock, means.reactor.seconds, means.recorder
    place = Place(directory, clock, steady)
    threads = for_records, for_ledger = tuple(Offload(means.reactor, 1, name) for name in ("records", "ledger"))
    storage = Storage(
        place=place,
        records=DiskRecords(
            directory / "records", for_records, clock=clock, steady=steady, ours=place.is_ours, recorder=recorder
        ),
        ledger=MirroredRecords(
            directory / LEDGER,
            directory / LEDGER_COPY,
            for_ledger,
            clock=clock,
            steady=steady,
            ours=place.is_ours,
            recorder=recorder,
        ),
        files=LocalFiles(directory, means.disk, recorder, place.prepare, place.failed),
        directory=directory,
        threads=threads,
    )
    try:
        refuse_unmeetable(server, storage)
    except ConfigError:
        place.close()
        raise
    return storage


def refuse_unmeetable(server: ServerSettings, storage: Storage) -> None:
    """Raise ConfigError if *server* has limits that the file system of *storage* can never meet."""
    there = storage.files.capacity()
    if server.min_free is not None and there is not None and server.min_free > there:
        raise ConfigError(
            f"server.min_free = {server.min_free:,} bytes: the file system of {storage.directory} has {there:,} bytes in all"
        )


def read_storage(server: ServerSettings, means: Means) -> Storage:
    """What is in the data directory of *server* now, for who only reads, beside a proxy that works on it.

    The databases are copies; files are read where they are.  Nothing is created there.  Raises StorageFailed.
    """
    directory = server.data_dir
    threads = for_records, for_ledger = tuple(Offload(means.reactor, 1, name) for name in ("records", "ledger"))
    return Storage(
        place=Place(directory, means.clock, means.reactor.seconds),
        records=CopiedRecords(directory / "records", for_records),
        ledger=CopiedVersioned(directory / LEDGER, directory / LEDGER_COPY, for_ledger, means.clock),
        files=ReadFiles(directory, means.disk),
        directory=directory,
        threads=threads,
    )

"""A data directory that a command works on by itself, while no proxy runs on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from proxy import config
from proxy.bundle.cache import IndexCache
from proxy.cache.claims import ClaimBook
from proxy.cache.ledger import Ledger
from proxy.cache.migration import LEDGER, LEDGER_COPY
from proxy.cache.pinned import PinnedBook
from proxy.cache.private_bytes import PrivateBytes
from proxy.cache.records import PAGES, HeadedRecords
from proxy.composition.accounts import divides_bytes
from proxy.composition.claims import build_book, build_claims, carried_claims
from proxy.core.near import suggested
from proxy.errors import ConfigError, InUse, StorageFailed
from proxy.host import datadir
from proxy.interfaces import IOffload, IRecordStore
from proxy.mechanism.offload import Inline, completed
from proxy.repository.claiming import Claims
from proxy.settings import IndexSettings, Settings
from proxy.storage.copied import CopiedVersioned
from proxy.storage.lists import ListFiles
from proxy.storage.local import LocalFiles
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.records import CopiedRecords, DiskRecords

#: Where a proxy of the command's own listens.
LOOPBACK = "tcp:0:interface=127.0.0.1"


class OpenDirectory(Struct, frozen=True):
    """An open data directory, and the settings of the proxy that it is of."""

    settings: Settings
    records: IRecordStore
    ledger: Ledger
    pinned: PinnedBook
    private: PrivateBytes
    files: LocalFiles
    book: ClaimBook
    claims: Claims
    offload: IOffload

    def cache(self, index: str) -> IndexCache:
        """What is kept of the proxy index *index*."""
        pages = HeadedRecords(PAGES, index, self.records, self.offload)
        carried = carried_claims(self.settings, self.book, self.claims, index)
        return IndexCache(
            index, pages, self.ledger, self.pinned, self.files, self.offload, claims=carried, private=self.private
        )


@contextmanager
def open_directory(settings: Settings, *, reading: bool = False) -> Iterator[OpenDirectory]:
    """The data directory of *settings*.

    It is claimed as long as this lasts, unless it is for *reading* alone: that can be done beside a running proxy.  Raises
    ConfigError.
    """
    directory = settings.server.data_dir
    with unclaimed(directory) if reading else claimed(directory):
        offload = Inline()
        try:
            records = (CopiedRecords if reading else DiskRecords)(directory / "records", offload)
            places = directory / LEDGER, directory / LEDGER_COPY
            database = CopiedVersioned(*places, offload, time.time) if reading else MirroredRecords(*places, offload)
        except StorageFailed as error:
            raise ConfigError(f"{directory}: {error}") from error
        try:
            ledger, files = Ledger(database, settings.server.page_memory, offload), LocalFiles(directory, offload)
            book = build_book(settings, database)
            claims = build_claims(settings, book, records, partial(_lists, directory, offload), offload, time.time)
            pinned = PinnedBook(database, ledger, files)
            proxies = [each.name for each in settings.indexes if each.kind == "proxy"]
            private = PrivateBytes(ledger, proxies, divided=divides_bytes(settings))
            yield OpenDirectory(settings, records, ledger, pinned, private, files, book, claims, offload)
        finally:
            completed(database.close())
            completed(records.close())


@contextmanager
def index_cache(
    file: Path | None, data_dir: Path | None, index: str | None, *, new: bool = False, reading: bool = False
) -> Iterator[IndexCache]:
    """What is kept of *index* (``None``: the default one), as a proxy with this configuration and data directory has it.

    It is a proxy index.  The directory has to be there unless it may be *new*.  For *reading*, see :func:`open_directory`.
    Raises ConfigError.
    """
    settings, chosen = named(file, data_dir, index, new=new)
    with open_directory(settings, reading=reading) as directory:
        yield directory.cache(chosen.name)


def _lists(directory: Path, offload: IOffload, index: str) -> ListFiles:
    """Where the list of *index* is, which is only read here."""
    return ListFiles(directory / "lists" / index, offload, lambda folder: None)


def named(file: Path | None, data_dir: Path | None, index: str | None, *, new: bool = False) -> tuple[Settings, IndexSettings]:
    """The settings of a proxy with this configuration and data directory, and *index* of it.  Raises ConfigError."""
    settings = config.load(file, config.CommandLine(data_dir=data_dir))
    chosen = _chosen(settings, index, file)
    directory = settings.server.data_dir
    if not new:
        datadir.refuse_missing(directory)
    return settings, chosen


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """No proxy runs on *directory* as long as this lasts.  Raises ConfigError when one does."""
    try:
        claim = datadir.claim(directory)
    except InUse as error:
        raise ConfigError(f"{directory}: a proxy runs on it (process id {error.owner}); stop it, and do this again") from error
    try:
        yield
    finally:
        claim.release()


@contextmanager
def claimed_anew(directory: Path) -> Iterator[None]:
    """As `claimed`, of a directory that may be missing: nothing is left there but what the block has made."""
    made, new = not directory.exists(), datadir.is_new(directory)
    try:
        claim = datadir.claim(directory)
    except InUse as error:
        raise ConfigError(
            f"{directory}: process {error.owner} works on it; wait until it is done, or name another one"
        ) from error
    try:
        yield
    finally:
        if new:
            claim.withdraw()
        claim.release()
        if made:
            with suppress(OSError):  # it is not empty
                directory.rmdir()


@contextmanager
def unclaimed(directory: Path) -> Iterator[None]:
    """*directory* may be read, whether a proxy runs on it or not.  Raises ConfigError when it has another format."""
    datadir.refuse_newer(directory)
    datadir.refuse_earlier(directory)
    yield


def _chosen(settings: Settings, index: str | None, file: Path | None) -> IndexSettings:
    for each in settings.indexes:
        if each.name == index or (index is None and each.default):
            return each
    names = [each.name for each in settings.indexes]
    raise ConfigError(
        f"--index {index}: {file or 'the default configuration'} has no such index, only {', '.join(names)}; "
        f"name the file that has it with --config{suggested(index or '', names)}"
    )

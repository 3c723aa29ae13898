"""What all indexes share of the cache: records, the ledger, files, and the limits that these are kept within."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from proxy.administration.parts import Stores
from proxy.cache.claims import ClaimBook
from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.cache.migration import LEDGER
from proxy.cache.parsed import ParsedPages
from proxy.cache.pinned import PinnedBook
from proxy.cache.private_bytes import PrivateBytes
from proxy.cache.records import remove_missing
from proxy.cache.room import Room
from proxy.cache.usage import UsageBook
from proxy.composition.claims import build_book
from proxy.composition.means import Means
from proxy.composition.storage import Storage, database_trouble
from proxy.core.troubles import Reason, Trouble
from proxy.errors import StorageFailed
from proxy.interfaces import IRecordStore
from proxy.mechanism.flight import swallow
from proxy.settings import MIB, ServerSettings, Settings
from proxy.storage.memory import RecentRecords
from proxy.storage.spare import SpareRecords

#: Memory for pages and documents that cannot be written (bytes).
_UNWRITTEN = 32 * MIB
#: The shares of ``page_memory`` for entries of the ledger and for parsed pages.
_FOR_ENTRIES, _FOR_PARSED = 0.1, 0.25

_log = Logger()


class Caches(Struct, frozen=True, kw_only=True):
    """The caches over one data directory."""

    records: IRecordStore
    parsed: ParsedPages
    ledger: Ledger
    claims: ClaimBook
    usage: UsageBook
    pinned: PinnedBook
    private: PrivateBytes
    room: Room
    files: FileCache

    def begin(self) -> None:
        """Have claims read, before anybody asks for them; who asks earlier waits."""
        swallow(Deferred.fromCoroutine(self.claims.begin()), StorageFailed)

    def tidy(self) -> Deferred[None]:
        """Keep files within their limits from now on, and remove outdated records; cancelling ends the latter."""
        self.room.start()
        cleaning = Deferred.fromCoroutine(remove_missing(self.records))
        return cleaning.addErrback(lambda failure: failure.trap(CancelledError, StorageFailed) and None)

    async def mend(self) -> Sequence[Trouble]:
        """Write what the ledger could not take before; what is still wrong."""
        try:
            await self.ledger.mend()
        except StorageFailed as error:
            return [database_trouble(LEDGER, str(error))]
        return []

    async def look_at_claims(self) -> Sequence[Trouble]:
        """Read claims if they could not be read; what is still wrong."""
        try:
            await self.claims.begin()
        except StorageFailed as error:
            return [Trouble(Reason.RIGHTS, f"{error}: groups refuse every name with 503; check the disk")]
        return []

    async def close(self) -> None:
        """Write what is in memory only."""
        await self.room.stop()
        await self.ledger.sightings.write()
        with suppress(StorageFailed):
            await self.ledger.mend()


def sweep(storage: Storage) -> None:
    """Have what is left of broken downloads removed."""
    swept = Deferred.fromCoroutine(storage.files.sweep())
    swept.addErrback(lambda failure: _log.failure("partial files could not be swept", failure))


def build_caches(settings: Settings, storage: Storage, means: Means, *, divided: bool = False) -> Caches:
    """The caches over *storage*, for the indexes of *settings* and within its limits.

    *divided*: no proxy index serves what another has fetched.
    """
    server, indexes = settings.server, settings.indexes
    hosted = frozenset(each.name for each in indexes if each.kind == "hosted")
    proxies = frozenset(each.name for each in indexes if each.kind == "proxy")
    ledger = Ledger(storage.ledger, int(server.page_memory * _FOR_ENTRIES), means.work)
    usage = UsageBook(storage.files, means.disk, means.clock)
    private = PrivateBytes(ledger, proxies, divided=divided)
    pinned = PinnedBook(storage.ledger, ledger, storage.files, hosted, private)
    room = Room(
        storage.files,
        usage,
        pinned,
        means.disk,
        means.reactor,
        max_size=server.max_size,
        min_free=server.min_free,
        recorder=means.recorder,
        clock=means.clock,
    )
    return Caches(
        records=SpareRecords(storage.records, RecentRecords(_UNWRITTEN)),
        parsed=ParsedPages(int(server.page_memory * _FOR_PARSED)),
        ledger=ledger,
        claims=build_book(settings, storage.ledger),
        usage=usage,
        pinned=pinned,
        private=private,
        room=room,
        files=FileCache(storage.files, means.disk, means.recorder, usage.used, room, means.reactor.callLater, private),
    )


def stores_of(server: ServerSettings, storage: Storage, caches: Caches) -> Stores:
    """What operations work on."""
    return Stores(
        files=storage.files,
        records=storage.records,
        ledger=caches.ledger,
        pinned=caches.pinned,
        usage=caches.usage,
        evicting=server.max_size is not None or server.min_free is not None,
        directory=storage.directory,
        max_size=server.max_size,
    )

"""The ledger: under which digest each file name was first committed, for ever after.

There is one record per file (``entry/<index>/<project>/<name>``).  The entries of a project stay in memory once they were read,
and changes are serialised per project.  Entries that are made while the records can be neither read nor written are held in
memory.  When the records can be read again, they take precedence over such entries, except over one that replaced a record that
had been read before: that entry takes precedence.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.cache.entries import NO_ENTRIES, Entries
from proxy.cache.sightings import Sightings
from proxy.core.bounded import BoundedTable, DividedTable
from proxy.errors import StorageFailed
from proxy.interfaces import IOffload, IVersionedRecords
from proxy.mechanism.flight import Flights
from proxy.model import EMPTY, Change, LedgerEntry, Versioned
from proxy.names import is_version, version_of

#: (index, project) of entries.
_Place = tuple[str, str]

#: The first part of the keys of all entries.
_FOLDER = "entry"


def means(which: str | None, filename: str) -> bool:
    """Whether *which* (a version, a file name, or nothing for any) means *filename*."""
    if which is None or which == filename:
        return True
    from packaging.version import Version  # for what operators name

    try:
        return is_version(which) and Version(which) == version_of(filename)
    except ValueError:
        return False


_decoder = msgspec.msgpack.Decoder(LedgerEntry)
_encoder = msgspec.msgpack.Encoder()

#: The part of the memory for projects without entries: clients can ask for any number of those.
_FOR_NONE = 0.1
#: How often it is logged that entries cannot be read (seconds): clients ask for many projects.
_SAID_EVERY = 60.0


#: Entries of one project that are decoded where they are needed; more are decoded in a worker thread (0.3 ms).
_FEW = 100


class Ledger:
    """The ledger of a data directory.  *memory* bounds what is kept at hand, in bytes; *steady* tells a time that never jumps.

    While the entries of a project cannot be read, nothing is written over them: its files are held against its page.
    """

    log = Logger()

    def __init__(
        self,
        records: IVersionedRecords,
        memory: int,
        offload: IOffload,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._offload = offload
        self.sightings = Sightings(records, offload)
        self._steady = steady
        #: When it may be logged again that entries cannot be read.
        self._say_at = -math.inf
        self._known: DividedTable[_Place, Entries] = DividedTable(
            _table(int(memory * (1 - _FOR_NONE))), _table(int(memory * _FOR_NONE)), bool
        )
        self._locks: dict[_Place, DeferredLock] = {}
        # One waits for the lock on behalf of all who read: a lock that is handed on a thousand times nests a thousand calls.
        self._reads: Flights[Entries] = Flights()
        self._removals: Counter[_Place] = Counter()
        #: Entries that are not written to records yet.
        self._unwritten: dict[_Place, dict[str, LedgerEntry]] = {}
        #: Names in it whose entries take precedence over records: they replace a record that had been read.
        self._replaced: dict[_Place, frozenset[str]] = {}

    async def places(self) -> list[_Place]:
        """(index, project) of all that have entries, sorted.  Raises StorageFailed."""
        indexes = await self._records.branches(f"{_FOLDER}/")
        return [(index, project) for index in indexes for project in await self._records.branches(f"{_FOLDER}/{index}/")]

    async def peek(self, index: str, project: str) -> Entries:
        """The entries of a project, for those who go through all of them: memory stays as it is.  Raises StorageFailed."""
        return await self._certain((index, project))

    def at_hand(self, index: str, project: str) -> Entries | None:
        """The entries of a project if they are in memory."""
        return self._known.get((index, project))

    async def of(self, index: str, project: str) -> Entries:
        """The entries of a project; while they cannot be read, what was entered meanwhile: that is asked for anew each time."""
        place = index, project
        entries = self._known.get(place)
        return entries if entries is not None else await self._reads.join(place, lambda: self._looked_up(place))

    async def _looked_up(self, place: _Place) -> Entries:
        async with _Lock(self._locks, place):
            try:
                entries = await self._certain(place)
            except StorageFailed as error:
                self._say(place[1], error)
                return Entries(self._unwritten.get(place, EMPTY), self._removals[place])
            self._known.put(place, entries)
        return entries

    def _say(self, project: str, error: StorageFailed) -> None:
        now = self._steady()
        if now >= self._say_at:
            self._say_at = now + _SAID_EVERY
            self.log.error("which bytes {project} had cannot be read for now: {error}", project=project, error=error)

    async def add(self, index: str, project: str, name: str, entry: LedgerEntry) -> None:
        """Enter *name*, unless it is there already: the first committed bytes stay.  What cannot be written now is later."""
        place = index, project
        entry = await self._dated(place, name, entry)
        async with _Lock(self._locks, place):
            try:
                await self._change(place, lambda entries: {} if name in entries else {name: entry})
            except StorageFailed as error:
                self._hold(place, {name: entry, **self._unwritten.get(place, EMPTY)}, error)

    async def add_all(self, index: str, project: str, entries: Mapping[str, LedgerEntry]) -> None:
        """Enter what is in *entries* and not there already, for good.  Raises StorageFailed."""

        def new(known: Entries) -> dict[str, LedgerEntry | None]:
            return {name: entry for name, entry in entries.items() if name not in known}

        async with _Lock(self._locks, (index, project)):
            await self._change((index, project), new)

    async def put(self, index: str, project: str, name: str, entry: LedgerEntry) -> None:
        """Enter *name* in place of what is there.  What cannot be written now is later, unless what is there cannot be read."""
        place = index, project
        is_known = False

        def instead(_: Entries) -> dict[str, LedgerEntry | None]:
            nonlocal is_known
            is_known = True
            return {name: entry}

        async with _Lock(self._locks, place):
            try:
                await self._change(place, instead)
            except StorageFailed as error:
                if is_known:
                    self._replaced[place] = self._replaced.get(place, frozenset()) | {name}
                self._hold(place, {**self._unwritten.get(place, EMPTY), name: entry}, error)

    async def remove(self, index: str, project: str, names: Collection[str]) -> dict[str, LedgerEntry]:
        """Forget the entries of *names*; returns those that there were.  Raises StorageFailed."""
        place = index, project
        gone: dict[str, LedgerEntry] = {}

        def without(entries: Entries) -> dict[str, LedgerEntry | None]:
            gone.clear()
            gone.update({name: entry for name, entry in entries.items() if name in names})
            return dict.fromkeys(gone)

        async with _Lock(self._locks, place):
            self._removals[place] += 1
            await self._change(place, without)
            if not gone:
                self._removals[place] -= 1
        return gone

    async def mend(self) -> None:
        """Write what could not be written when it was new.  Raises StorageFailed."""
        for place in list(self._unwritten):
            async with _Lock(self._locks, place):
                self._known.discard(place)
                await self._change(place, lambda entries: {})

    async def _dated(self, place: _Place, name: str, entry: LedgerEntry) -> LedgerEntry:
        """*entry* with the moment at which the file *name* was first seen on a page, if that is known."""
        if entry.first_seen is not None or "/" in name:
            return entry
        try:
            return replace(entry, first_seen=(await self.sightings.first_seen(*place)).get(name))
        except StorageFailed:
            return entry

    async def _certain(self, place: _Place) -> Entries:
        """The entries of a project.  Raises StorageFailed while they cannot be read."""
        known = self._known.get(place)
        return known if known is not None else await self._load(place)

    async def _load(self, place: _Place) -> Entries:
        rows = await self._records.scan(_key(place, ""))
        start = len(_key(place, ""))
        if len(rows) <= _FEW:
            entries, lost = _decoded(rows, start)
        else:
            entries, lost = await self._offload.run(_decoded, rows, start)
        if lost:
            self.log.error(
                "{count} ledger entries make no sense and start anew: {names}", count=len(lost), names=", ".join(lost)
            )
            with suppress(StorageFailed):  # whoever writes them is told
                await self._records.apply([Change(_key(place, name), None) for name in lost])
        first = self._replaced.get(place, frozenset())
        held = self._unwritten.get(place, EMPTY)
        unwritten = {name: entry for name, entry in held.items() if name in first or name not in entries}
        if unwritten or place in self._removals:
            return entries.changed(unwritten, self._removals[place])
        return entries or NO_ENTRIES

    def _hold(self, place: _Place, entries: dict[str, LedgerEntry], error: StorageFailed) -> None:
        """Go by *entries* beside those that the records have, until both can be written."""
        self._unwritten[place] = entries
        self._known.discard(place)
        self.log.error(
            "new files of {project} are entered in memory until they can be written: {error}", project=place[1], error=error
        )

    async def _change(self, place: _Place, wanted: Callable[[Entries], Mapping[str, LedgerEntry | None]]) -> None:
        """Make the changes that are *wanted* of the entries that there are, and those that are not written yet."""
        entries = await self._certain(place)
        while True:
            # What was held is in the entries as it is, unless a record says otherwise.
            held = {name: each for name, each in self._unwritten.get(place, EMPTY).items() if entries.get(name) is each}
            changes: dict[str, LedgerEntry | None] = {**held, **wanted(entries)}
            there = entries.keys() - (held.keys() - self._replaced.get(place, frozenset()))
            if not changes or await self._records.apply(_changes(place, changes, there)) is not None:
                break
            self._known.discard(place)
            entries = await self._load(place)  # somebody else has changed them
        self._unwritten.pop(place, None)
        self._replaced.pop(place, None)
        if changes:
            self._known.put(place, entries.changed(changes, self._removals[place]))


def _changes(place: _Place, changes: Mapping[str, LedgerEntry | None], there: Collection[str]) -> list[Change]:
    """The changes of records; a name that is not *there* must not be there."""
    return [
        Change(
            _key(place, name),
            None if entry is None else _encoder.encode(entry),
            None if entry is None or name in there else 0,
        )
        for name, entry in changes.items()
    ]


def _decoded(rows: Sequence[Versioned], start: int) -> tuple[Entries, list[str]]:
    """The entries in *rows*, whose names begin at *start* in their keys, and the names of those that make no sense."""
    found: dict[str, LedgerEntry] = {}
    lost = []
    for row in rows:
        try:
            found[row.key[start:]] = _decoder.decode(row.value)
        except msgspec.MsgspecError:
            lost.append(row.key[start:])
    return Entries(found), lost


def _key(place: _Place, name: str) -> str:
    index, project = place
    return f"{_FOLDER}/{index}/{project}/{name}"


def _table(limit: int) -> BoundedTable[_Place, Entries]:
    return BoundedTable(limit, lambda entries: entries.weight, lambda place: len(place[0]) + len(place[1]))


class _Lock:
    """A lock per key that leaves nothing behind when nobody holds or wants it."""

    def __init__(self, locks: dict[_Place, DeferredLock], key: _Place) -> None:
        self._locks = locks
        self._key = key
        self._lock = locks.setdefault(key, DeferredLock())

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()
        if not self._lock.locked and not self._lock.waiting:
            self._locks.pop(self._key, None)

"""The ledger: under which digest each file name was first committed, for ever after.

One record a project (``pins/<index>/<project>``), kept in memory once read; changes are serialised per project.  What is pinned
while its record can be neither read nor written is held in memory; what the record says when it can be read again goes first.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import msgspec
from packaging.version import InvalidVersion, Version
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.bounded import BoundedTable, DividedTable
from proxy.errors import StorageFailed
from proxy.flight import Flights
from proxy.interfaces import IRecordStore
from proxy.model import EMPTY, NO_BYTES, LedgerEntry
from proxy.names import is_version
from proxy.simple.legacy import version_of

#: What a pin weighs in memory besides its text, roughly, in bytes; a project without pins weighs one.
_PIN_WEIGHT = 600


class Entries(dict[str, LedgerEntry]):
    """The pins of one project by file name, companions under :func:`companion_name`.  Never changed once made.

    *removals*: how often names were removed from them.
    """

    def __init__(self, pins: Mapping[str, LedgerEntry] = EMPTY, removals: int = 0) -> None:
        super().__init__(pins)
        # What a page states of a companion is no news when it has been fetched; that it is not to be had is.
        known = [pin for name, pin in pins.items() if "/" in name and (not pin.stated or pin.sha256 == NO_BYTES)]
        self.weight = _PIN_WEIGHT * (1 + len(pins)) + sum(len(name) + len(pin.url) for name, pin in pins.items())
        #: Names what is known of companions beyond their page, and which removals came before: another state, another offer.
        self.companions = f"{len(known)}.{sum(pin.size for pin in known)}.{removals}"


NO_ENTRIES = Entries()

#: The companion that is pinned beside its file (PEP 658).
METADATA = ".metadata"

#: Where the pins are in the record store.
FOLDER = "pins"


def companion_name(asked: str, filename: str, companion: str) -> str:
    """The name to pin a companion under: it belongs to the bytes of its file, so the digest segment is part of it."""
    return f"{asked}/{filename}{companion}"


def filename_of(name: str) -> str:
    """The file that the pin *name* belongs to: its own name, or that of the file it is a companion of."""
    return name.partition("/")[2].removesuffix(METADATA) if "/" in name else name


def means(which: str | None, filename: str) -> bool:
    """Whether *which* (a version, a file name, or nothing for any) means *filename*."""
    if which is None or which == filename:
        return True
    try:
        return is_version(which) and Version(which) == version_of(filename)
    except InvalidVersion:
        return False


_decoder = msgspec.msgpack.Decoder(dict[str, LedgerEntry])
_encoder = msgspec.msgpack.Encoder()

#: The part of the memory for projects without pins: clients can ask for any number of those.
_FOR_NONE = 0.1
#: How often it is logged that pins cannot be read (seconds): clients ask for many projects.
_SAID_EVERY = 60.0


class Ledger:
    """All pins of a data directory.  *memory* bounds what is kept at hand, in bytes; *steady* tells a time that never jumps.

    While the pins of a project cannot be read, nothing is written over them: its files are held against what its page states.
    """

    log = Logger()

    def __init__(self, records: IRecordStore, memory: int, steady: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._steady = steady
        #: When it may be logged again that pins cannot be read.
        self._say_at = -math.inf
        self._known: DividedTable[tuple[str, str], Entries] = DividedTable(
            _table(int(memory * (1 - _FOR_NONE))), _table(int(memory * _FOR_NONE)), bool
        )
        self._locks: dict[tuple[str, str], DeferredLock] = {}
        # One waits for the lock on behalf of all who read: a lock that is handed on a thousand times nests a thousand calls.
        self._reads: Flights[Entries] = Flights()
        self._removals: Counter[tuple[str, str]] = Counter()
        #: What no record says yet.
        self._unwritten: dict[tuple[str, str], dict[str, LedgerEntry]] = {}

    async def places(self) -> list[tuple[str, str]]:
        """(index, project) of all that have pins, sorted.  Raises StorageFailed."""
        parts = [key.split("/") for key in await self._records.keys(f"{FOLDER}/")]
        return [(index, project) for _, index, project in (each for each in parts if len(each) == 3)]

    async def peek(self, index: str, project: str) -> Entries:
        """The pins of a project, for those who go through all of them: memory stays as it is.  Raises StorageFailed."""
        return await self._certain(index, project)

    def at_hand(self, index: str, project: str) -> Entries | None:
        """The pins of a project if they are in memory."""
        return self._known.get((index, project))

    async def of(self, index: str, project: str) -> Entries:
        """The pins of a project; while they cannot be read, what was pinned meanwhile, and that is asked for anew each time."""
        pins = self._known.get((index, project))
        return pins if pins is not None else await self._reads.join((index, project), lambda: self._looked_up(index, project))

    async def _looked_up(self, index: str, project: str) -> Entries:
        async with _Lock(self._locks, (index, project)):
            try:
                pins = await self._certain(index, project)
            except StorageFailed as error:
                self._say(project, error)
                return Entries(self._unwritten.get((index, project), EMPTY), self._removals[index, project])
            self._known.put((index, project), pins)
        return pins

    def _say(self, project: str, error: StorageFailed) -> None:
        now = self._steady()
        if now >= self._say_at:
            self._say_at = now + _SAID_EVERY
            self.log.error("which bytes {project} had cannot be read for now: {error}", project=project, error=error)

    async def add(self, index: str, project: str, name: str, pin: LedgerEntry) -> None:
        """Enter *name*, unless it is there already: the first committed bytes stay.  What cannot be written now is later."""
        async with _Lock(self._locks, (index, project)):
            try:
                pins = await self._certain(index, project)
                if name not in pins:
                    await self._write(index, project, {**pins, name: pin})
            except StorageFailed as error:
                self._hold(index, project, {name: pin, **self._unwritten.get((index, project), EMPTY)}, error)

    async def add_all(self, index: str, project: str, pins: Mapping[str, LedgerEntry]) -> None:
        """Enter what is in *pins* and not there already, for good.  Raises StorageFailed."""
        async with _Lock(self._locks, (index, project)):
            known = await self._certain(index, project)
            if not pins.keys() <= known.keys():
                await self._write(index, project, {**pins, **known})

    async def put(self, index: str, project: str, name: str, pin: LedgerEntry) -> None:
        """Enter *name* in place of what is there.  What cannot be written now is later."""
        async with _Lock(self._locks, (index, project)):
            try:
                await self._write(index, project, {**await self._certain(index, project), name: pin})
            except StorageFailed as error:
                self._hold(index, project, {**self._unwritten.get((index, project), EMPTY), name: pin}, error)

    async def remove(self, index: str, project: str, names: Collection[str]) -> dict[str, LedgerEntry]:
        """Forget the pins of *names*; returns those that there were.  Raises StorageFailed."""
        async with _Lock(self._locks, (index, project)):
            pins = await self._certain(index, project)
            gone = {each: pin for each, pin in pins.items() if each in names}
            if gone:
                self._removals[index, project] += 1
                await self._write(index, project, {each: pin for each, pin in pins.items() if each not in gone})
        return gone

    async def mend(self) -> None:
        """Write what could not be written when it was new.  Raises StorageFailed."""
        for index, project in list(self._unwritten):
            async with _Lock(self._locks, (index, project)):
                await self._write(index, project, await self._load(index, project))

    async def _certain(self, index: str, project: str) -> Entries:
        """The pins of a project.  Raises StorageFailed while they cannot be read."""
        known = self._known.get((index, project))
        return known if known is not None else await self._load(index, project)

    async def _load(self, index: str, project: str) -> Entries:
        data = await self._records.get(f"{FOLDER}/{index}/{project}")
        pins: dict[str, LedgerEntry] = {}
        if data is not None:
            try:
                pins = _decoder.decode(data)
            except msgspec.MsgspecError as error:
                self.log.error("the pins of {project} cannot be read and start anew: {error}", project=project, error=error)
        pins = {**self._unwritten.get((index, project), EMPTY), **pins}
        return Entries(pins, self._removals[index, project]) if pins or (index, project) in self._removals else NO_ENTRIES

    def _hold(self, index: str, project: str, pins: dict[str, LedgerEntry], error: StorageFailed) -> None:
        """Go by *pins* beside those that the record has, until both can be written."""
        self._unwritten[index, project] = pins
        self._known.discard((index, project))
        self.log.error("new pins of {project} are in memory until they can be written: {error}", project=project, error=error)

    async def _write(self, index: str, project: str, pins: Mapping[str, LedgerEntry]) -> None:
        key = f"{FOLDER}/{index}/{project}"
        if pins:
            await self._records.set(key, _encoder.encode(pins))
        else:
            await self._records.delete(key)
        self._unwritten.pop((index, project), None)
        self._known.put((index, project), Entries(pins, self._removals[index, project]))


def _table(limit: int) -> BoundedTable[tuple[str, str], Entries]:
    return BoundedTable(limit, lambda pins: pins.weight, lambda place: len(place[0]) + len(place[1]))


def readable(value: bytes) -> bool:
    """Whether *value* is a record of pins."""
    try:
        _decoder.decode(value)
    except msgspec.MsgspecError:
        return False
    return True


class _Lock:
    """A lock per key that leaves nothing behind when nobody holds or wants it."""

    def __init__(self, locks: dict[tuple[str, str], DeferredLock], key: tuple[str, str]) -> None:
        self._locks = locks
        self._key = key
        self._lock = locks.setdefault(key, DeferredLock())

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()
        if not self._lock.locked and not self._lock.waiting:
            self._locks.pop(self._key, None)

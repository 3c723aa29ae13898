"""Pins: under which digest each file name was first committed, for ever after.

One record a project (``pins/<index>/<project>``), kept in memory once read; changes are serialised per project.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.bounded import BoundedTable, DividedTable
from proxy.errors import StorageFailed
from proxy.interfaces import IRecordStore
from proxy.model import EMPTY, NO_BYTES, Pin
from proxy.names import is_version, normal_version
from proxy.simple.legacy import version_of

#: What a pin weighs in memory besides its text, roughly, in bytes; a project without pins weighs one.
_PIN_WEIGHT = 600


class Pins(dict[str, Pin]):
    """The pins of one project by file name, companions under :func:`companion_name`.  Never changed once made.

    *removals*: how often names were removed from them.
    """

    def __init__(self, pins: Mapping[str, Pin] = EMPTY, removals: int = 0) -> None:
        super().__init__(pins)
        # What a page states of a companion is no news when it has been fetched; that it is not to be had is.
        known = [pin for name, pin in pins.items() if "/" in name and (not pin.stated or pin.sha256 == NO_BYTES)]
        self.weight = _PIN_WEIGHT * (1 + len(pins)) + sum(len(name) + len(pin.url) for name, pin in pins.items())
        #: Names what is known of companions beyond their page, and which removals came before: another state, another offer.
        self.companions = f"{len(known)}.{sum(pin.size for pin in known)}.{removals}"


NO_PINS = Pins()

#: The companion that is pinned beside its file (PEP 658).
METADATA = ".metadata"

_FOLDER = "pins"


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
    return is_version(which) and normal_version(which) == str(version_of(filename))


_decoder = msgspec.msgpack.Decoder(dict[str, Pin])
_encoder = msgspec.msgpack.Encoder()

#: The part of the memory for projects without pins: clients can ask for any number of those.
_FOR_NONE = 0.1


class PinBook:
    """All pins of a data directory.  *memory* bounds what is kept at hand, in bytes."""

    log = Logger()

    def __init__(self, records: IRecordStore, memory: int) -> None:
        self._records = records
        self._known: DividedTable[tuple[str, str], Pins] = DividedTable(
            _table(int(memory * (1 - _FOR_NONE))), _table(int(memory * _FOR_NONE)), bool
        )
        self._locks: dict[tuple[str, str], DeferredLock] = {}
        self._removals: Counter[tuple[str, str]] = Counter()

    async def places(self) -> list[tuple[str, str]]:
        """(index, project) of all that have pins, sorted.  Raises StorageFailed."""
        keys = await self._records.keys(f"{_FOLDER}/")
        return [(index, project) for index, project in (key.removeprefix(f"{_FOLDER}/").split("/", 1) for key in keys)]

    async def peek(self, index: str, project: str) -> Pins:
        """The pins of a project, for those who go through all of them: what is in memory stays as it is."""
        return self._known.get((index, project)) or await self._load(index, project)

    def at_hand(self, index: str, project: str) -> Pins | None:
        """The pins of a project if they are in memory."""
        return self._known.get((index, project))

    async def of(self, index: str, project: str) -> Pins:
        """The pins of a project."""
        pins = self._known.get((index, project))
        if pins is None:
            async with _Lock(self._locks, (index, project)):
                pins = self._known.get((index, project)) or await self._read(index, project)
        return pins

    async def add(self, index: str, project: str, name: str, pin: Pin) -> None:
        """Pin *name*, unless it is pinned already: the first committed bytes stay."""
        async with _Lock(self._locks, (index, project)):
            pins = self._known.get((index, project)) or await self._read(index, project)
            if name not in pins:
                await self._note(index, project, {**pins, name: pin})

    async def add_all(self, index: str, project: str, pins: Mapping[str, Pin]) -> None:
        """Pin what is in *pins* and not pinned already, for good.  Raises StorageFailed."""
        async with _Lock(self._locks, (index, project)):
            known = self._known.get((index, project)) or await self._read(index, project)
            if not pins.keys() <= known.keys():
                await self._write(index, project, {**pins, **known})

    async def put(self, index: str, project: str, name: str, pin: Pin) -> None:
        """Pin *name* in place of what it was pinned to."""
        async with _Lock(self._locks, (index, project)):
            pins = self._known.get((index, project)) or await self._read(index, project)
            await self._note(index, project, {**pins, name: pin})

    async def remove(self, index: str, project: str, names: Collection[str]) -> dict[str, Pin]:
        """Forget the pins of *names*; returns those that there were."""
        async with _Lock(self._locks, (index, project)):
            pins = self._known.get((index, project)) or await self._read(index, project)
            gone = {each: pin for each, pin in pins.items() if each in names}
            if gone:
                self._removals[index, project] += 1
                await self._write(index, project, {each: pin for each, pin in pins.items() if each not in gone})
        return gone

    async def _read(self, index: str, project: str) -> Pins:
        pins = await self._load(index, project)
        self._known.put((index, project), pins)
        return pins

    async def _load(self, index: str, project: str) -> Pins:
        data = await self._records.get(f"{_FOLDER}/{index}/{project}")
        pins: dict[str, Pin] = {}
        if data is not None:
            try:
                pins = _decoder.decode(data)
            except msgspec.MsgspecError as error:
                self.log.error("the pins of {project} cannot be read and start anew: {error}", project=project, error=error)
        return Pins(pins, self._removals[index, project]) if pins or (index, project) in self._removals else NO_PINS

    async def _note(self, index: str, project: str, pins: dict[str, Pin]) -> None:
        """Go by *pins*.  A store that fails costs the restart what is new in them, not the client its file."""
        try:
            await self._write(index, project, pins)
        except StorageFailed as error:
            self._known.put((index, project), Pins(pins, self._removals[index, project]))
            self.log.error("new pins of {project} are known until the proxy stops: {error}", project=project, error=error)

    async def _write(self, index: str, project: str, pins: dict[str, Pin]) -> None:
        key = f"{_FOLDER}/{index}/{project}"
        if pins:
            await self._records.set(key, _encoder.encode(pins))
        else:
            await self._records.delete(key)
        self._known.put((index, project), Pins(pins, self._removals[index, project]))


def _table(limit: int) -> BoundedTable[tuple[str, str], Pins]:
    return BoundedTable(limit, lambda pins: pins.weight, lambda place: len(place[0]) + len(place[1]))


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

"""Pins: under which digest each file name was first committed, for ever after.

One record a project (``pins/<index>/<project>``), kept in memory once read; changes are serialised per project.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.bounded import BoundedTable
from proxy.interfaces import IRecordStore
from proxy.model import EMPTY, Pin


class Pins(dict[str, Pin]):
    """The pins of one project by file name, companions under :func:`companion_name`.  Never changed once made."""

    def __init__(self, pins: Mapping[str, Pin] = EMPTY) -> None:
        super().__init__(pins)
        known = [pin for name, pin in pins.items() if "/" in name]
        #: Names what is known of companions: another state, another offer of metadata.
        self.companions = f"{len(known)}.{sum(pin.size for pin in known)}"


NO_PINS = Pins()


def companion_name(asked: str, filename: str, companion: str) -> str:
    """The name to pin a companion under: it belongs to the bytes of its file, so the digest segment is part of it."""
    return f"{asked}/{filename}{companion}"


_decoder = msgspec.msgpack.Decoder(dict[str, Pin])
_encoder = msgspec.msgpack.Encoder()

#: What a pin weighs in memory, roughly, in bytes; a project without pins weighs one.
_PIN_WEIGHT = 600


class PinBook:
    """All pins of a data directory.  *memory* bounds what is kept at hand, in bytes."""

    log = Logger()

    def __init__(self, records: IRecordStore, memory: int) -> None:
        self._records = records
        self._known: BoundedTable[tuple[str, str], Pins] = BoundedTable(memory, lambda pins: _PIN_WEIGHT * (1 + len(pins)))
        self._locks: dict[tuple[str, str], DeferredLock] = {}

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
        await self.add_all(index, project, {name: pin})

    async def add_all(self, index: str, project: str, pins: Mapping[str, Pin]) -> None:
        """The same for many names at once."""
        async with _Lock(self._locks, (index, project)):
            known = self._known.get((index, project)) or await self._read(index, project)
            if not pins.keys() <= known.keys():
                await self._write(index, project, {**pins, **known})

    async def put(self, index: str, project: str, name: str, pin: Pin) -> None:
        """Pin *name* in place of what it was pinned to."""
        async with _Lock(self._locks, (index, project)):
            pins = self._known.get((index, project)) or await self._read(index, project)
            await self._write(index, project, {**pins, name: pin})

    async def remove(self, index: str, project: str, name: str) -> None:
        """Forget the pin of *name*."""
        async with _Lock(self._locks, (index, project)):
            pins = self._known.get((index, project)) or await self._read(index, project)
            if name in pins:
                await self._write(index, project, {each: pin for each, pin in pins.items() if each != name})

    async def _read(self, index: str, project: str) -> Pins:
        data = await self._records.get(f"pins/{index}/{project}")
        pins = NO_PINS
        if data is not None:
            try:
                pins = Pins(_decoder.decode(data))
            except msgspec.MsgspecError as error:
                self.log.error("the pins of {project} cannot be read and start anew: {error}", project=project, error=error)
        self._known.put((index, project), pins)
        return pins

    async def _write(self, index: str, project: str, pins: dict[str, Pin]) -> None:
        await self._records.set(f"pins/{index}/{project}", _encoder.encode(pins))
        self._known.put((index, project), Pins(pins))


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

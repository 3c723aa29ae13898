"""When each file was first seen on a page of its project, whether it was ever fetched or not.

One record for each moment at which a page had new files (``seen/<index>/<project>/<moment>``): their names, compressed.  So a
page of 40,000 files is one record, and each release after that another one.  What else a page states of a file is on the page;
what it stated when the file was fetched is in the ledger.

The names on pages that were taken over are noted in memory and written together a second later, in one transaction, earlier if
they are many: no client waits for it, and a crash in between dates the files to the next change of the page.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from proxy.errors import StorageFailed
from proxy.interfaces import IOffload, IVersionedRecords
from proxy.mechanism.spool.steps import Later
from proxy.model import Change, Page, Versioned

#: (index, project) of pages.
_Place = tuple[str, str]

_FOLDER = "seen"
#: Seconds between a page and what is written of it; between a failure and the next attempt.
_DELAY = 1.0
_PAUSE = 10.0
#: What is noted is written at once above so many bytes; above so many the oldest are forgotten, while nothing can be written.
_MANY_BYTES = 4 * 1024 * 1024
_MOST_BYTES = 16 * 1024 * 1024
#: What a name weighs in memory besides its text, roughly (bytes).
_NAME_WEIGHT = 60
#: Compressed names that are read where they are needed (bytes); more are read in a worker thread (0.2 ms).
_FEW_BYTES = 2048
#: How hard names are compressed: beyond this, three times the work makes them a tenth smaller.
_LEVEL = 1
#: What an unpacked record may have (bytes): the names of half a million files.
_LARGEST = 64 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[str])


class _Noted(Struct, frozen=True):
    """The names on a page that was taken over at *moment*; *before* is when another page was confirmed, *earlier* its names."""

    place: _Place
    moment: float
    names: tuple[str, ...]
    before: float | None
    earlier: tuple[str, ...] | None

    @property
    def weight(self) -> int:
        both = self.names, self.earlier or ()
        return sum(sum(map(len, names)) + (len(names) + 1) * _NAME_WEIGHT for names in both)


class Sightings:
    """The first sightings of all files of a data directory."""

    log = Logger()

    def __init__(self, records: IVersionedRecords, offload: IOffload) -> None:
        self._records = records
        self._offload = offload
        self._noted: list[_Noted] = []
        self._weight = 0
        #: What is being written.
        self._writing: list[_Noted] = []
        self._failed = False
        self._timer: IDelayedCall | None = None
        #: Number of calls of `write`.  A write that was scheduled before the last of them has nothing left to do.
        self._writes = 0
        #: Whoever stops the service waits for what is being written: the records are closed afterwards.
        self._one_at_a_time = DeferredLock()

    def note(
        self, place: _Place, page: Page, moment: float, later: Later, before: float | None = None, earlier: Page | None = None
    ) -> None:
        """Note that *page* was taken over at *moment*; *earlier* is the page before it, if at hand, confirmed at *before*.

        If nothing is known of the project, as after an upgrade, what was on the earlier page is dated to *before*; all of the
        new page if the earlier one is not at hand.
        """
        noted = _Noted(place, moment, _names(page), before, None if earlier is None else _names(earlier))
        self._noted.append(noted)
        self._weight += noted.weight
        self._forget()
        if self._timer is None:
            self._in(_DELAY, later)
        if self._weight > _MANY_BYTES and not self._failed and not self._one_at_a_time.locked:
            self._start(later, self._writes)

    async def first_seen(self, index: str, project: str) -> Mapping[str, float]:
        """When each file of a project was first seen (seconds since the epoch), by its name.  Raises StorageFailed."""
        place = index, project
        rows = await self._records.scan(_prefix(place))
        noted = [each for each in (*self._writing, *self._noted) if each.place == place]
        if not noted and sum(len(row.value) for row in rows) <= _FEW_BYTES:
            return _moments(rows, noted)
        return await self._offload.run(_moments, rows, noted)

    async def forget(self, index: str) -> None:
        """Forget when the files of all projects of *index* were first seen.  Raises StorageFailed."""
        for project in await self._records.branches(f"{_FOLDER}/{index}/"):
            rows = await self._records.scan(_prefix((index, project)))
            await self._records.apply([Change(row.key, None) for row in rows])

    async def write(self) -> None:
        """Write what was noted, after what is being written.  What cannot be written now is with what is noted next."""
        self._writes += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._one_at_a_time.run(self._write)

    async def _write(self) -> None:
        batch, self._noted, self._weight = self._noted, [], 0
        self._writing = batch
        try:
            places: dict[_Place, list[_Noted]] = {}
            for each in batch:
                places.setdefault(each.place, []).append(each)
            known = await self._records.scan_all(list(map(_prefix, places)))
            changes = await self._offload.run(_all_changes, list(places.items()), known)
            if changes:
                await self._records.apply(changes)
            self._failed = False
        except StorageFailed as error:
            if not self._failed:
                self.log.error("when files were first seen cannot be written and is tried again: {error}", error=error)
            self._failed = True
            self._noted = [*batch, *self._noted]
            self._weight = sum(each.weight for each in self._noted)
            self._forget()
        finally:
            self._writing = []

    def _forget(self) -> None:
        """Forget the oldest of what is too much."""
        while self._weight > _MOST_BYTES and len(self._noted) > 1:
            self._weight -= self._noted.pop(0).weight

    def _in(self, seconds: float, later: Later) -> None:
        """Write after *seconds*, unless `write` is called before."""
        writes = self._writes

        def due() -> None:
            self._timer = None
            self._start(later, writes)

        self._timer = later(seconds, due)

    def _start(self, later: Later, writes: int) -> None:
        def ended(result: None) -> None:
            if self._failed and self._timer is None and writes == self._writes:
                self._in(_PAUSE, later)

        writing: Deferred[None] = self._one_at_a_time.run(self._write)
        writing.addCallback(ended)
        writing.addErrback(lambda failure: self.log.failure("when files were first seen cannot be written", failure))


def _names(page: Page) -> tuple[str, ...]:
    return tuple(file.filename for file in page.files)


def _prefix(place: _Place) -> str:
    return f"{_FOLDER}/{place[0]}/{place[1]}/"


def _read(rows: Sequence[Versioned]) -> dict[float, list[str]]:
    """Names by the moment they were first seen at; a record that makes no sense is passed over."""
    found: dict[float, list[str]] = {}
    for row in rows:
        try:
            unpacked = zlib.decompressobj().decompress(row.value, _LARGEST)
            found[float(row.key.rpartition("/")[2])] = _decoder.decode(unpacked)
        except (ValueError, zlib.error, msgspec.MsgspecError):
            continue
    return found


def _new(known: set[str], noted: Iterable[_Noted]) -> dict[float, list[str]]:
    """The names on the pages *noted* that are not *known*, by the moment they were first seen at."""
    found: dict[float, list[str]] = {}
    for each in noted:
        if not known and each.before is not None:
            earlier = set(each.names if each.earlier is None else each.earlier)
            found.setdefault(each.before, []).extend(sorted(earlier))
            known |= earlier
        names = set(each.names) - known
        if names:
            found.setdefault(each.moment, []).extend(sorted(names))
            known |= names
    return found


def _moments(rows: Sequence[Versioned], noted: Sequence[_Noted]) -> dict[str, float]:
    read = _read(rows)
    moments = {name: moment for moment, names in sorted(read.items(), reverse=True) for name in names}
    new = _new(set(moments), noted)
    return moments | {name: moment for moment, names in new.items() for name in names}


def _all_changes(noted: Sequence[tuple[_Place, Sequence[_Noted]]], known: Sequence[Sequence[Versioned]]) -> list[Change]:
    """The changes of the records of many projects: for each, what was noted, and what is recorded."""
    return [change for (place, pages), rows in zip(noted, known, strict=True) for change in _changes(place, rows, pages)]


def _changes(place: _Place, rows: Sequence[Versioned], noted: Sequence[_Noted]) -> list[Change]:
    from isal import isal_zlib  # loaded with the first one, in its thread; a third of zlib's time for as many bytes

    read = _read(rows)
    new = _new({name for names in read.values() for name in names}, noted)
    return [
        Change(
            f"{_prefix(place)}{moment:.3f}",
            isal_zlib.compress(_encoder.encode([*read.get(round(moment, 3), ()), *names]), _LEVEL),
        )
        for moment, names in new.items()
    ]

"""When each file was first seen on a page of its project, whether it was ever fetched or not.

One record for each moment at which a page had new files (``seen/<index>/<project>/<moment>``): their names, compressed.  So a
page of 40,000 files is one record, and each release after that another one.  What else a page states of a file is on the page;
what it stated when the file was fetched is in the ledger.

Pages that were taken over are noted in memory and written together a second later, in one transaction: no client waits for it,
and a crash in between dates their files to the next change of the page.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from proxy.errors import StorageFailed
from proxy.interfaces import IOffload, IVersionedRecords
from proxy.model import Change, Page, Versioned

#: (index, project) of pages.
Place = tuple[str, str]
#: Calls a function after so many seconds, as ``IReactorTime.callLater`` does.
Later = Callable[[float, Callable[[], None]], IDelayedCall]

_FOLDER = "seen"
#: Seconds between a page and what is written of it, and how many pages may wait for that.
_DELAY = 1.0
_MOST = 200
#: Compressed names that are read where they are needed (bytes); more are read in a worker thread (0.2 ms).
_FEW_BYTES = 2048
#: What an unpacked record may have (bytes): the names of half a million files.
_LARGEST = 64 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[str])


@frozen
class _Noted:
    """A page that was taken over at *moment*; *before* is when another page was confirmed in its place, *earlier* that page."""

    place: Place
    moment: float
    page: Page
    before: float | None
    earlier: Page | None


class Sightings:
    """The first sightings of all files of a data directory."""

    log = Logger()

    def __init__(self, records: IVersionedRecords, offload: IOffload) -> None:
        self._records = records
        self._offload = offload
        self._noted: list[_Noted] = []
        self._timer: IDelayedCall | None = None
        #: Whoever stops the service waits for what is being written: the records are closed afterwards.
        self._one_at_a_time = DeferredLock()

    def note(
        self, place: Place, page: Page, moment: float, later: Later, before: float | None = None, earlier: Page | None = None
    ) -> None:
        """Note that *page* was taken over at *moment*; *earlier* is the page before it, if at hand, confirmed at *before*.

        If nothing is known of the project, as after an upgrade, what was on the earlier page is dated to *before*; all of the
        new page if the earlier one is not at hand.
        """
        if self._timer is None:
            self._timer = later(_DELAY, self._start)
        self._noted.append(_Noted(place, moment, page, before, earlier))
        del self._noted[:-_MOST]

    async def first_seen(self, index: str, project: str) -> Mapping[str, float]:
        """When each file of a project was first seen (seconds since the epoch), by its name.  Raises StorageFailed."""
        place = index, project
        rows = await self._records.scan(_prefix(place))
        noted = [each for each in self._noted if each.place == place]
        if not noted and sum(len(row.value) for row in rows) <= _FEW_BYTES:
            return _moments(rows, noted)
        return await self._offload.run(_moments, rows, noted)

    async def write(self) -> None:
        """Write what was noted, after what is being written.  What cannot be written now is later."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        await self._one_at_a_time.run(self._write)

    async def _write(self) -> None:
        batch, self._noted = self._noted, []
        try:
            changes: list[Change] = []
            for place in dict.fromkeys(each.place for each in batch):
                rows = await self._records.scan(_prefix(place))
                noted = [each for each in batch if each.place == place]
                changes += await self._offload.run(_changes, place, rows, noted)
            if changes:
                await self._records.apply(changes)
        except StorageFailed as error:
            self._noted = [*batch, *self._noted][-_MOST:]
            self.log.error("when files were first seen cannot be written and is tried again: {error}", error=error)

    def _start(self) -> None:
        writing = Deferred.fromCoroutine(self.write())
        writing.addErrback(lambda failure: self.log.failure("when files were first seen cannot be written", failure))


def _prefix(place: Place) -> str:
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
            earlier = {file.filename for file in (each.earlier or each.page).files}
            found.setdefault(each.before, []).extend(sorted(earlier))
            known |= earlier
        names = {file.filename for file in each.page.files} - known
        if names:
            found.setdefault(each.moment, []).extend(sorted(names))
            known |= names
    return found


def _moments(rows: Sequence[Versioned], noted: Sequence[_Noted]) -> dict[str, float]:
    read = _read(rows)
    moments = {name: moment for moment, names in sorted(read.items(), reverse=True) for name in names}
    new = _new(set(moments), noted)
    return moments | {name: moment for moment, names in new.items() for name in names}


def _changes(place: Place, rows: Sequence[Versioned], noted: Sequence[_Noted]) -> list[Change]:
    read = _read(rows)
    new = _new({name for names in read.values() for name in names}, noted)
    return [
        Change(f"{_prefix(place)}{moment:.3f}", zlib.compress(_encoder.encode([*read.get(round(moment, 3), ()), *names]), 6))
        for moment, names in new.items()
    ]

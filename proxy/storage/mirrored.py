"""Versioned records in two files of the same content: what one of them loses, the other one still knows.

Theory of operation.  All work is done in one thread.  Everything is read from the first file.  Changes are committed there,
those of all who wait in one transaction, and then in the second one, whose sequence tells whether it has come as far.  When it
has not (a crash came between the two, or the disk took only one), each file is given what the other one has of a higher
version, before the next change at the latest.

A file that is damaged is set aside; one that is damaged or missing is made anew out of the other one.  While that
other one cannot be read nothing is made: a new file would say of every record that there is none.  While the first file cannot
be opened (another process holds it, the disk is read-only), nothing is written, and what it says is read from a copy of it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import Struct
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.events import Incident, Notice
from proxy.errors import StorageFailed, to_make_room
from proxy.interfaces import Clock, IOffload, IRecorder, IVersionedRecords
from proxy.model import Change, Versioned
from proxy.statistics.recorders import UNRECORDED
from proxy.storage import table
from proxy.storage.database import set_aside
from proxy.storage.halves import BrokenHalf, Copy, Half, copied, level
from proxy.storage.table import Row, Table, versioned
from proxy.storage.together import Posed, Together, settle_each

T = TypeVar("T")

#: How often opening a file is tried when that has failed (seconds).
_PAUSE = 2.0
#: How often a file is made out of the other one when that has failed half-way: each time all that there is room for is written.
_COPY_PAUSE = 60.0


class _Question(Struct, frozen=True):
    """What is asked for: *changes*, which are answered with their version, or whatever *call* does."""

    call: Callable[[], Any]
    changes: Sequence[Change] | None = None


@implementer(IVersionedRecords)
class MirroredRecords:
    """The records in the directories *first* and *second* (mode 0700).  *offload* has one thread.

    *clock* tells the wall time, *steady* a time that no clock setting changes; *ours* whether the directory above is the one
    that was claimed.  *recorder* is told what is worth counting.  All are called in the thread.
    """

    log = Logger()

    def __init__(
        self,
        first: Path,
        second: Path,
        offload: IOffload,
        *,
        clock: Clock = time.time,
        steady: Callable[[], float] = time.monotonic,
        ours: Callable[[], bool] = lambda: True,
        recorder: IRecorder = UNRECORDED,
    ) -> None:
        self.name = first.name
        self._first = Half(first)
        self._second = Half(second)
        self._together: Together[_Question] = Together(offload, self._answer)
        self._clock = clock
        self._steady = steady
        self._ours = ours
        self._recorder = recorder
        #: Whether both files were found in their places for what is answered now, all of which began to wait before that.
        self._in_place = False
        self._copy: Copy | None = None
        self._try_at = 0.0
        self._trouble: str | None = None
        self._trouble_of_second: str | None = None
        self._try_second_at = 0.0
        #: Why a file could not be made out of the other one, and when that is tried again.
        self._uncopied: sqlite3.Error | None = None
        self._copy_at = 0.0
        #: Whether a file was set aside: if nothing is left, something is lost.
        self._was_damaged = False

    async def read(self, key: str) -> Versioned | None:
        return await self._called(partial(self._get, key))

    async def scan(self, prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        return await self._called(partial(self._scan, prefix, after, limit))

    async def scan_all(self, prefixes: Sequence[str]) -> list[list[Versioned]]:
        return await self._called(lambda: [self._scan(each, "", None) for each in prefixes])

    async def branches(self, prefix: str) -> list[str]:
        return await self._called(partial(self._branches, prefix))

    async def apply(self, changes: Sequence[Change]) -> int | None:
        version: int | None = await self._together.ask(_Question(partial(self._make, changes), changes))
        return version

    async def copy_to(self, directory: Path) -> None:
        """Copy the records as they are now into *directory*, which is made.  Raises StorageFailed."""
        await self._called(partial(self._copy_to, directory))

    async def look(self) -> str | None:
        """Open what could not be opened, and write what could not be written, if that is possible by now; the trouble left."""
        return await self._called(self._look)

    async def close(self) -> None:
        await self._called(self._close)

    async def _called(self, call: Callable[[], T]) -> T:
        return cast("T", await self._together.ask(_Question(call)))

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def _copy_to(self, directory: Path) -> None:
        try:
            self._asked(lambda rows: rows.copy_to(directory), writing=False)
        except OSError as error:
            raise StorageFailed(f"{self.name}/ cannot be copied: {error.strerror}{to_make_room(error)}") from error

    def _get(self, key: str) -> Versioned | None:
        row = self._read(lambda rows: rows.get(key, self._clock()))
        return None if row is None else self._sound(row)

    def _scan(self, prefix: str, after: str, limit: int | None) -> list[Versioned]:
        rows = self._read(lambda rows: rows.scan(prefix, after, limit, self._clock()))
        return [found for row in rows if (found := self._sound(row)) is not None]

    def _branches(self, prefix: str) -> list[str]:
        return self._read(lambda rows: rows.branches(prefix, self._clock()))

    def _sound(self, row: Row) -> Versioned | None:
        """*row*, from the second file if it is damaged in the first; ``None`` when it is damaged in both."""
        if row.sound:
            return versioned(row)
        self._recorder.record(Notice(Incident.RECORD_UNREADABLE))
        if not self._second.in_place:
            raise StorageFailed(f"record {row.key} is damaged, and its copy cannot be read for now")
        try:
            found = self._second.ask(lambda rows: rows.get(row.key, self._clock()))
        except (BrokenHalf, sqlite3.Error) as error:
            raise StorageFailed(f"record {row.key} is damaged, and its copy cannot be read for now: {error}") from error
        if found is None or not found.sound:
            self.log.error("record {key} is damaged in both files and counts as lost", key=row.key)
            self._apply([[Change(row.key, None)]])
            return None
        self.log.warn("record {key} was damaged and is taken from its copy", key=row.key)
        with suppress(StorageFailed):
            self._asked(lambda rows: rows.put_back(found), writing=True)
        return versioned(found)

    def _read(self, question: Callable[[Table], T]) -> T:
        """What *question* gets of the first file, or of what can be read of it.  Raises StorageFailed."""
        try:
            return self._asked(question, writing=False)
        except StorageFailed:
            if self._copy is None:
                raise
        try:
            return question(self._copy.table)
        except sqlite3.Error as error:
            raise StorageFailed(f"{self.name}/ cannot be read: {error}") from error

    def _answer(self, batch: Sequence[Posed[_Question]]) -> None:
        try:
            for are_changes, group in groupby(batch, lambda each: each.question.changes is not None):
                asked = list(group)
                if not (are_changes and len(asked) > 1 and self._made_together(asked)):
                    settle_each(asked, lambda question: question.call())
        finally:
            self._in_place = False

    def _made_together(self, asked: Sequence[Posed[_Question]]) -> bool:
        """Make the changes of all that are *asked* for in one transaction; false when it fails, and then none is made."""
        try:
            versions = self._apply([each.question.changes or () for each in asked])
        except StorageFailed:  # there may be room for some
            return False
        for each, version in zip(asked, versions, strict=True):
            each.have(version)
        return True

    def _make(self, changes: Sequence[Change]) -> int | None:
        (version,) = self._apply([changes])
        return version

    def _apply(self, batch: Sequence[Sequence[Change]]) -> list[int | None]:
        versions = self._asked(lambda rows: rows.apply_each(batch, self._clock()), writing=True)
        self._trouble = None
        made = [(changes, version) for changes, version in zip(batch, versions, strict=True) if version is not None]
        if made:
            self._mirror([row for changes, version in made for row in table.rows_of(changes, version)], len(made))
        return versions

    def _asked(self, question: Callable[[Table], T], *, writing: bool) -> T:
        """What *question* gets of the first file; of one made out of the second one when it turns out to be damaged."""
        for _ in range(2):
            self._require_first(writing=writing)
            try:
                return self._first.ask(question)
            except BrokenHalf as broken:
                self._set_aside(broken)
            except sqlite3.Error as error:
                if writing:
                    self._trouble = str(error)
                raise StorageFailed(f"{self.name}/ cannot be used: {error}") from error
        raise StorageFailed(f"{self.name}/ is damaged, and so is what took its place")

    def _require_first(self, *, writing: bool) -> None:
        """Have the first file open, and the second one as far as that.  Raises StorageFailed."""
        if self._in_place and self._first.table is not None and self._second.sequence == self._first.sequence:
            return
        self._in_place = False
        if not self._ours():
            if self._first.table is None or writing:
                self._trouble = "the data directory is not there"
                raise StorageFailed(f"{self.name}/ cannot be used: the data directory is not there")
            return
        if not self._first.in_place:
            if self._steady() < self._try_at:
                raise StorageFailed(f"{self.name}/ cannot be opened: {self._trouble}")
            try:
                self._open_first()
            except (sqlite3.Error, OSError) as error:
                self._unopened((isinstance(error, OSError) and error.strerror) or str(error))
                raise StorageFailed(f"{self.name}/ cannot be opened: {self._trouble}") from error
            self._trouble = None
            self._close_copy()
        if not writing and self._trouble_of_second is not None:
            return  # whoever writes tries again, and each look: nobody who reads waits for it
        if self._second.sequence != self._first.sequence or not self._second.in_place:
            self._mirror([])
            if self._first.table is None:  # it was found damaged
                self._require_first(writing=writing)
        self._in_place = True

    def _open_first(self) -> None:
        """Open the first file; make it out of the second one, or anew if there is none.  Raises sqlite3.Error, OSError."""
        if self._open_or_set_aside(self._first):
            return
        if self._open_or_set_aside(self._second):
            self.log.error("{name}/ was lost: it is made again out of its copy", name=self.name)
            self._make_half(self._first, self._second)
        else:
            if self._was_damaged:
                self.log.error("{name}/ and its copy are lost: what they said is not known any more", name=self.name)
            table.made(self._first.directory)
        self._first.open()

    def _make_half(self, half: Half, source: Half) -> None:
        """Make the file of *half* out of that of *source*.  Raises BrokenHalf, sqlite3.Error, OSError."""
        if self._uncopied is not None and self._steady() < self._copy_at:
            raise self._uncopied
        self._uncopied = None
        try:
            source.ask(lambda there: there.copy_to(half.directory))
        except sqlite3.Error as error:
            self._uncopied, self._copy_at = error, self._steady() + _COPY_PAUSE
            raise

    def _open_or_set_aside(self, half: Half) -> bool:
        """Open *half*; false when there is none, any more.  Raises sqlite3.Error, OSError."""
        try:
            return half.open()
        except BrokenHalf as broken:
            self._rename(broken)
            return False

    def _mirror(self, rows: Sequence[Row], steps: int = 1) -> None:
        """Bring the second file as far as the first one, whose last *steps* wrote *rows*; make it if there is none."""
        first, second = self._first, self._second
        if not self._ours() or (self._trouble_of_second is not None and self._steady() < self._try_second_at):
            return
        try:
            if not self._open_or_set_aside(second):
                self._make_half(second, first)
                second.open()
            elif rows and second.sequence == first.sequence - steps:
                second.ask(lambda there: there.take(rows, first.sequence))
            elif second.sequence != first.sequence:
                level(first, second)
            self._trouble_of_second = None
        except BrokenHalf as broken:
            with suppress(StorageFailed):  # whoever needs it next will find it as it is
                self._set_aside(broken)
        except (sqlite3.Error, OSError) as error:
            self._try_second_at = self._steady() + _PAUSE
            if self._trouble_of_second is None:
                self.log.error("{name}/ has no second copy until that can be written: {error}", name=self.name, error=error)
            self._trouble_of_second = f"its copy {second.directory.name}/: {error}"

    def _unopened(self, why: str) -> None:
        self._try_at = self._steady() + _PAUSE
        if self._trouble is None:
            self.log.error("{name}/ cannot be opened: {why}", name=self.name, why=why)
        self._trouble = why
        if self._copy is None:
            with suppress(StorageFailed):
                self._copy = copied(self._first.directory)

    def _set_aside(self, broken: BrokenHalf) -> None:
        """Take a damaged file out of the way.  Raises StorageFailed."""
        try:
            self._rename(broken)
        except OSError as error:
            self._try_at = self._steady() + _PAUSE
            self._trouble = f"it is damaged ({broken}) and cannot be set aside: {error.strerror}"
            raise StorageFailed(f"{broken.half.directory.name}/ cannot be used: {self._trouble}") from error

    def _rename(self, broken: BrokenHalf) -> None:
        broken.half.release()
        target = set_aside(broken.half.directory, self._clock())
        self._was_damaged = True
        self._recorder.record(Notice(Incident.DATABASE_SET_ASIDE))
        self.log.error(
            "the database {name} is damaged ({why}) and was set aside as {target}; a new one takes its place",
            name=broken.half.directory.name,
            why=str(broken),
            target=target.name,
        )

    def _look(self) -> str | None:
        self._try_at = self._try_second_at = 0.0
        self._in_place = False
        with suppress(StorageFailed):
            if self._trouble is not None:
                self._apply([[]])
            self._require_first(writing=True)
            if self._second.sequence == self._first.sequence:
                for each in (self._first, self._second):
                    with suppress(BrokenHalf, sqlite3.Error):  # it is told by whoever needs it
                        each.ask(lambda rows: rows.prune(self._clock()))
        return self._trouble or self._trouble_of_second

    def _close_copy(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()

    def _close(self) -> None:
        self._first.release()
        self._second.release()
        self._close_copy()

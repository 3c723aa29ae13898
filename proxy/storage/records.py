"""Records in diskcache: small mutable values in SQLite that survive a restart.

Theory of operation.  All work is done in one thread over one connection, which locks the database for this process.  So SQLite
keeps the index of its log in memory; in a shared file, which is the other way, anybody who truncates that file kills the
process (SIGBUS).  The database is opened when it is first needed.  Small values that wait to be kept at the same time are kept
in one transaction; when it fails, each of them has one of its own.  What goes wrong is of two kinds:

- *Damage*: what is in the database is not what was written.  It is set aside under another name, and a new one is made.
- *Trouble*: the disk is full, read-only or failing, or another process holds the database.  What can be read is served from
  where it is or from a copy, writes fail with StorageFailed, and opening it is tried again.

There is no eviction: diskcache's default would drop data at 1 GiB.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from diskcache import Cache
from diskcache.core import DBNAME
from msgspec import Struct
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.events import Incident, Notice
from proxy.errors import StorageFailed
from proxy.interfaces import Clock, IOffload, IRecorder, IRecordStore
from proxy.settings import KIB
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.database import (
    Damaged,
    ForeignRow,
    Readings,
    Starved,
    Unread,
    copied_rows,
    file_identity,
    open_cache,
    plain_errors,
    readings,
    set_aside,
)
from proxy.storage.together import Posed, Together, settle_each

#: How often opening the database is tried when that has failed (seconds).
_PAUSE = 2.0
#: What :meth:`DiskRecords.look` writes to learn whether the database takes anything again.
_PROBE = ".probe"
#: Values of this size (bytes) may be in files beside the database, each of which has to be there before its row is.
_IN_A_FILE = 30 * KIB


class _Question(Struct, frozen=True):
    """What is asked for: small *values* to keep, or whatever *call* does."""

    call: Callable[[], Any]
    values: Mapping[str, bytes] | None = None


@implementer(IRecordStore)
class DiskRecords:
    """The database under *directory* (mode 0700).  *offload* has one thread.

    *clock* tells the wall time, *steady* a time that no clock setting changes; *ours* whether the directory above is the one
    that was claimed.  *recorder* is told what is worth counting.  All are called in the thread.
    """

    log = Logger()

    def __init__(
        self,
        directory: Path,
        offload: IOffload,
        *,
        clock: Clock = time.time,
        steady: Callable[[], float] = time.monotonic,
        ours: Callable[[], bool] = lambda: True,
        recorder: IRecorder = UNRECORDED,
    ) -> None:
        self.name = directory.name
        self._directory = directory
        self._file = str(directory / DBNAME)
        self._together: Together[_Question] = Together(offload, self._answer)
        self._clock = clock
        self._steady = steady
        self._ours = ours
        self._recorder = recorder
        self._cache: Cache | None = None
        #: Whether the database was found in its place for what is answered now, all of which began to wait before that.
        self._in_place = False
        self._identity: tuple[int, int] | None = None
        self._readable: Readings | None = None
        self._try_at = 0.0
        #: Why nothing can be written, ``None`` when all is well.
        self.trouble: str | None = None

    async def get(self, key: str) -> bytes | None:
        value: bytes | None = await self._together.ask(_Question(partial(self._get, key)))
        return value

    async def set(self, key: str, value: bytes) -> None:
        await self.set_all({key: value})

    async def set_all(self, values: Mapping[str, bytes]) -> None:
        if max(map(len, values.values()), default=0) < _IN_A_FILE:
            await self._together.ask(_Question(partial(self._keep, values), values))
            return
        for key, value in values.items():
            await self._together.ask(_Question(partial(self._keep_alone, key, value)))

    async def delete(self, key: str) -> bool:
        return bool(await self._together.ask(_Question(partial(self._write, lambda cache: cache.delete(key), key))))

    async def keys(self, prefix: str) -> list[str]:
        found: list[str] = await self._together.ask(_Question(partial(self._keys, prefix)))
        return found

    async def look(self) -> str | None:
        """Open what could not be opened, and write what could not be written, if that is possible by now; the trouble left."""
        trouble: str | None = await self._together.ask(_Question(self._look))
        return trouble

    async def close(self) -> None:
        await self._together.ask(_Question(self._close))

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def _answer(self, batch: Sequence[Posed[_Question]]) -> None:
        try:
            for are_small, group in groupby(batch, lambda each: each.question.values is not None):
                asked = list(group)
                if not (are_small and len(asked) > 1 and self._kept_together(asked)):
                    settle_each(asked, lambda question: question.call())
        finally:
            self._in_place = False

    def _kept_together(self, asked: Sequence[Posed[_Question]]) -> bool:
        """Keep the values of all that are *asked* for; false when not all of them can be kept, and then none is."""
        values: dict[str, bytes] = {}
        for each in asked:
            values |= each.question.values or {}
        try:
            self._keep(values)
        except StorageFailed:  # there may be room for some
            return False
        for each in asked:
            each.have(None)
        return True

    def _keep(self, values: Mapping[str, bytes]) -> None:
        self._write(lambda cache: cache.set_small(values), ", ".join(values))

    def _keep_alone(self, key: str, value: bytes) -> None:
        self._write(lambda cache: cache.set(key, value), key)

    def _get(self, key: str) -> bytes | None:
        try:
            value: bytes | None = self._read(lambda rows: rows.get(key))
        except (Unread, OSError) as error:
            # It may well be there: whoever took it for missing would write over it.
            failure = Starved if isinstance(error, Unread) and error.passing else StorageFailed
            raise failure(f"record {key} cannot be read for now: {error}") from error
        except (ForeignRow, TypeError, ValueError) as error:
            # A record that cannot be read is fetched again: a broken cache must not break a build.
            self._recorder.record(Notice(Incident.RECORD_UNREADABLE))
            self.log.error("record {key} cannot be read and is asked for anew: {error}", key=key, error=error)
            return None
        return value

    def _keys(self, prefix: str) -> list[str]:
        found: list[str] = self._read(lambda rows: rows.beginning(prefix))
        return found

    def _read(self, question: Callable[[Any], Any]) -> Any:
        """What *question* gets of the database, or of what can be read of it.  Raises StorageFailed."""
        try:
            return self._answered(question, writing=False)
        except StorageFailed:
            if self._readable is None:
                raise
        try:
            return question(self._readable)
        except sqlite3.Error as error:
            raise StorageFailed(f"the record database cannot be read: {error}") from error

    def _write(self, change: Callable[[Cache], Any], key: str) -> Any:
        try:
            done = self._answered(change, writing=True)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            raise StorageFailed(f"the record database did not take {key}: {self.trouble}") from error
        self.trouble = None
        return done

    def _answered(self, question: Callable[[Cache], Any], *, writing: bool) -> Any:
        """What *question* gets of the database; of a new one when this one turns out to be damaged.  Raises StorageFailed."""
        for _ in range(2):
            cache = self._opened(writing=writing)
            try:
                with plain_errors():
                    return question(cache)
            except Damaged as error:
                self._set_aside(str(error))
            except sqlite3.Error as error:
                # Whatever this has left under way must not be in the way of the next call.  On a full disk there may be no room
                # to open the database again.
                if not (getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL and cache.rolled_back()):
                    self._release()
                if writing:
                    self.trouble = str(error)
                raise StorageFailed(f"the record database cannot be used: {error}") from error
        raise StorageFailed("the record database is damaged, and so is the new one")

    def _opened(self, *, writing: bool) -> Cache:
        """The open database.  Raises StorageFailed."""
        if self._in_place and self._cache is not None:
            return self._cache
        if not self._ours():
            if self._cache is None or writing:
                self.trouble = "the data directory is not there"
                raise StorageFailed("the record database cannot be used: the data directory is not there")
        elif self._cache is not None and self._identity != file_identity(self._file):
            self.log.error("the record database {name} was taken away while it was in use", name=self.name)
            self._release()
        else:
            self._in_place = self._cache is not None
        if self._cache is None:
            self._open()
        assert self._cache is not None
        return self._cache

    def _open(self) -> None:
        now = self._steady()
        if now < self._try_at:
            raise StorageFailed(f"the record database cannot be opened: {self.trouble}")
        for _ in range(2):
            try:
                if self._readable is not None and not self._readable.is_copy:
                    self._close_readable()  # it holds the lock
                self._cache = open_cache(self._directory)
            except Damaged as error:
                self._set_aside(str(error))
            except (sqlite3.Error, OSError) as error:
                self._unopened((isinstance(error, OSError) and error.strerror) or str(error))
                raise StorageFailed(f"the record database cannot be opened: {error}") from error
            else:
                self._identity = file_identity(self._file)
                self.trouble = None
                self._close_readable()
                return
        self._unopened("it is damaged and cannot be set aside")
        raise StorageFailed("the record database is damaged and cannot be set aside")

    def _unopened(self, why: str) -> None:
        self._try_at = self._steady() + _PAUSE
        if self.trouble is None:
            self.log.error("the record database {name} cannot be opened: {why}", name=self.name, why=why)
        self.trouble = why
        if self._readable is None:
            self._readable = readings(self._directory)

    def _set_aside(self, why: str) -> None:
        """Take a damaged database out of the way.  Raises StorageFailed."""
        self._release()
        try:
            target = set_aside(self._directory, self._clock())
        except OSError as error:
            self._try_at = self._steady() + _PAUSE
            self.trouble = f"it is damaged ({why}) and cannot be set aside: {error.strerror}"
            raise StorageFailed(f"the record database cannot be used: {self.trouble}") from error
        self._recorder.record(Notice(Incident.DATABASE_SET_ASIDE))
        self.log.error(
            "the database {name} is damaged ({why}) and was set aside as {target}; a new one takes its place",
            name=self.name,
            why=why,
            target=target.name,
        )

    def _look(self) -> str | None:
        self._try_at = 0.0
        self._in_place = False
        with suppress(StorageFailed):
            if self.trouble is not None:
                self._write(lambda cache: cache.set(_PROBE, b""), _PROBE)
            else:
                self._opened(writing=True)
        return self.trouble

    def _release(self) -> None:
        cache, self._cache = self._cache, None
        if cache is not None:
            with suppress(sqlite3.Error):
                cache.close()

    def _close_readable(self) -> None:
        readable, self._readable = self._readable, None
        if readable is not None:
            readable.close()

    def _close(self) -> None:
        self._release()
        self._close_readable()


@implementer(IRecordStore)
class CopiedRecords:
    """A copy of the database under *directory* as it is now, for those who only read while a proxy works on it.

    Raises StorageFailed when no copy can be made.
    """

    def __init__(self, directory: Path, offload: IOffload) -> None:
        self.name = directory.name
        self._offload = offload
        self._rows = copied_rows(directory)

    async def get(self, key: str) -> bytes | None:
        return await self._offload.run(self._get, key)

    def _get(self, key: str) -> bytes | None:
        try:
            return self._rows.get(key) if self._rows is not None else None
        except (ForeignRow, Unread, TypeError, ValueError, OSError, sqlite3.Error):
            return None

    async def set(self, key: str, value: bytes) -> None:
        raise StorageFailed(f"{key} cannot be kept: this is a copy of the record database")

    async def set_all(self, values: Mapping[str, bytes]) -> None:
        for key, value in values.items():
            await self.set(key, value)

    async def delete(self, key: str) -> bool:
        raise StorageFailed(f"{key} cannot be removed: this is a copy of the record database")

    async def look(self) -> str | None:
        """A copy is as it is."""
        return None

    async def keys(self, prefix: str) -> list[str]:
        return await self._offload.run(self._keys, prefix)

    def _keys(self, prefix: str) -> list[str]:
        try:
            return self._rows.beginning(prefix) if self._rows is not None else []
        except sqlite3.Error as error:
            raise StorageFailed(f"the record database cannot be read: {error}") from error

    async def close(self) -> None:
        if self._rows is not None:
            self._rows.close()

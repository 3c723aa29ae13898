"""One SQLite file of versioned records: a table of our own, locked for this process.

Every transaction gets the next number of the file's *sequence*, and each record it writes bears that number as its version.  A
deleted record leaves its key and version behind until :meth:`Table.prune`, so that another file can be brought up to date by
versions alone.  Each record has a checksum.  Everything here blocks, and may raise sqlite3.Error;
:func:`proxy.storage.database.plain_errors` tells damage from trouble.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from proxy.model import Change, Versioned
from proxy.storage.database import LAST, Damaged, locked
from proxy.storage.syncing import sync

#: The file in the directory of a table.
FILE = "records.db"
#: What SQLite's header says of the file: ``pypx``, and the layout below.
_APPLICATION = 0x70797078
_LAYOUT = 1

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE record (
    key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, expires REAL, seal INTEGER NOT NULL, value BLOB
) WITHOUT ROWID;
CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE INDEX record_gone ON record (version) WHERE value IS NULL;
CREATE TABLE state (sequence INTEGER NOT NULL);
INSERT INTO state VALUES (0);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_LAYOUT};
COMMIT;
"""
_THERE = "value IS NOT NULL AND (expires IS NULL OR expires > ?)"
_COLUMNS = "key, version, expires, seal, value"
_UPSERT = (
    f"INSERT INTO record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET version = excluded.version, "
    "expires = excluded.expires, seal = excluded.seal, value = excluded.value "
    # No checksum covers the version, and one that no transaction had yet is damaged.
    "WHERE excluded.version > record.version OR record.version > (SELECT sequence FROM state)"
)
#: The checksum of no record: rows have it whose version cannot be.
_BROKEN = -1
#: Behind a slash, to pass over all that begins with what stands before it.
_AFTER_SLASH = chr(ord("/") + 1)


class Row(NamedTuple):
    """A record as it is in the file; *value* is ``None`` where it was deleted.  A tuple: thousands are made at a time."""

    key: str
    version: int
    expires: float | None
    seal: int
    value: bytes | None

    @property
    def sound(self) -> bool:
        """Whether it is what was written."""
        if self.value is None:
            return self.seal != _BROKEN
        return isinstance(self.value, bytes) and self.seal == seal(self.key, self.value)


def seal(key: str, value: bytes) -> int:
    """The checksum of a record."""
    return zlib.crc32(value, zlib.crc32(key.encode()))


def rows_of(changes: Iterable[Change], version: int) -> list[Row]:
    """What *changes* leave in the file when they are made as *version*."""
    return [
        Row(each.key, version, each.expires, 0 if each.value is None else seal(each.key, each.value), each.value)
        for each in changes
    ]


class Table:
    """The records of the file behind *connection*.  *sequence* is the number of its last transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        try:
            ((self.sequence,),) = connection.execute("SELECT sequence FROM state").fetchall()
        except ValueError:
            raise Damaged("it has no sequence, or several") from None
        if not isinstance(self.sequence, int):
            raise Damaged("its sequence is no number")

    # -- reading -------------------------------------------------------------------------------------------------------------

    def get(self, key: str, now: float) -> Row | None:
        """The record of *key* that has not expired at *now*, sound or not."""
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM record WHERE key = ? AND {_THERE}", (key, now)).fetchone()
        return None if found is None else self._row(found)

    def scan(self, prefix: str, after: str, limit: int | None, now: float) -> list[Row]:
        """At most *limit* records whose keys begin with *prefix* and come after *after*, by key, sound or not."""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM record WHERE key >= ? AND key > ? AND key < ? AND {_THERE} ORDER BY key LIMIT ?",
            (prefix, after, prefix + LAST, now, -1 if limit is None else limit),
        )
        return list(map(self._row, found))

    def branches(self, prefix: str, now: float) -> list[str]:
        """What follows *prefix* in keys up to the next slash, once each, sorted; what ends without one is no branch."""
        found: list[str] = []
        start = prefix
        while True:
            row = self._connection.execute(
                f"SELECT key FROM record WHERE key >= ? AND key < ? AND {_THERE} ORDER BY key LIMIT 1",
                (start, prefix + LAST, now),
            ).fetchone()
            if row is None:
                return sorted(found)
            head, slash, _ = row[0][len(prefix) :].partition("/")
            if slash:
                found.append(head)
                start = prefix + head + _AFTER_SLASH
            else:
                start = row[0] + "\0"

    def newer(self, than: int) -> Iterator[Row]:
        """The rows whose version is above *than*, deleted ones too."""
        yield from map(self._row, self._connection.execute(f"SELECT {_COLUMNS} FROM record WHERE version > ?", (than,)))

    def some(self, above: int, upto: int, limit: int) -> list[Row]:
        """At most *limit* rows whose version is above *above* and not above *upto*, deleted ones too."""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM record WHERE version > ? AND version <= ? LIMIT ?", (above, upto, limit)
        )
        return list(map(self._row, found))

    def has(self, row: Row) -> bool:
        """Whether the very change that left *row* is in this file."""
        found = self._connection.execute("SELECT version, seal FROM record WHERE key = ?", (row.key,)).fetchone()
        return bool(found == (row.version, row.seal))

    def _row(self, found: tuple[Any, ...]) -> Row:
        row = Row._make(found)
        if isinstance(row.version, int) and row.version <= self.sequence:
            return row
        return row._replace(seal=_BROKEN)

    # -- writing -------------------------------------------------------------------------------------------------------------

    def apply_each(self, batch: Sequence[Sequence[Change]], now: float) -> list[int | None]:
        """Make the changes of each of *batch*, all of them or, if one expects another version than there is, none.

        Their versions, or ``None``, one after another and in one transaction: when it fails, nothing is made.
        """
        versions: list[int | None] = []
        sequence = self.sequence
        with self._transaction():
            for changes in batch:
                if all(self._as_expected(each, now) for each in changes):
                    sequence += 1
                    self._take(rows_of(changes, sequence), sequence)
                    versions.append(sequence)
                else:
                    versions.append(None)
        self.sequence = sequence
        return versions

    def _as_expected(self, change: Change, now: float) -> bool:
        if change.expects is None:
            return True
        found = self._connection.execute(f"SELECT version FROM record WHERE key = ? AND {_THERE}", (change.key, now)).fetchone()
        return bool(change.expects == (0 if found is None else found[0]))

    def take(self, rows: Iterable[Row], sequence: int) -> None:
        """Have what is newer in *rows*, those of a file that has come to *sequence*; what is not sound is left out."""
        with self._transaction():
            self._take((each for each in rows if each.sound), max(sequence, self.sequence))
        self.sequence = max(sequence, self.sequence)

    def put_back(self, row: Row) -> None:
        """Have *row* in place of what its key has, which is damaged."""
        with self._transaction():
            self._connection.execute(f"REPLACE INTO record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", row)

    def prune(self, now: float) -> None:
        """Forget what was deleted, and what has expired."""
        with self._transaction():
            self._connection.execute("DELETE FROM record WHERE value IS NULL")
            self._connection.execute("DELETE FROM record WHERE expires <= ?", (now,))

    def _take(self, rows: Iterable[Row], sequence: int) -> None:
        self._connection.executemany(_UPSERT, rows)
        self._connection.execute("UPDATE state SET sequence = ?", (sequence,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    # -- the file ------------------------------------------------------------------------------------------------------------

    def copy_to(self, directory: Path) -> None:
        """Make a table of the same records in *directory*, where there is nothing; whole, or not there.

        Raises sqlite3.Error when what was begun cannot be ended, and OSError.
        """
        made = directory.with_name(f"{directory.name}.new")
        try:
            made.mkdir(mode=0o700, exist_ok=True)
            for left in made.iterdir():
                left.unlink()
            self._require_room(made)
            target = sqlite3.connect(made / FILE)
            try:
                self._connection.backup(target)
            finally:
                target.close()
            if self.sequence:  # an empty one can be made again
                sync(made / FILE)
            os.rename(made, directory)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)  # what there was room for is of no use
            raise
        if self.sequence:
            sync(directory.parent)

    def _require_room(self, directory: Path) -> None:
        """Raise OSError when *directory* has no room for another file of this size."""
        ((pages,),) = self._connection.execute("PRAGMA page_count")
        ((size,),) = self._connection.execute("PRAGMA page_size")
        room = os.statvfs(directory)
        if pages * size > room.f_bavail * room.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Let the file go."""
        with suppress(sqlite3.Error):
            self._connection.close()


def opened(directory: Path) -> Table | None:
    """The table in *directory*, ``None`` when there is none.  Raises Damaged, and sqlite3.Error and OSError for the machine."""
    if not directory.exists() and not directory.is_symlink():
        return None
    if not directory.is_dir() and directory.exists():
        raise Damaged("it is no directory")
    os.chmod(directory, 0o700)
    file = directory / FILE
    others = [each for each in directory.iterdir() if each != file]
    if file.exists() and not file.is_file():
        raise Damaged(f"{FILE} is no file")
    if not (file.exists() and file.stat().st_size):
        if others or file.exists():
            raise Damaged(f"{FILE} is missing or empty")
        return None
    for beside in ("-wal", "-shm", "-journal"):
        if (other := directory / f"{FILE}{beside}").exists() and not other.is_file():
            raise Damaged(f"{other.name} is no file")
    return _of(locked(file))


def made(directory: Path) -> None:
    """Make an empty table in *directory*, where there is none.  Raises as :func:`opened`."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_SCHEMA)
    table = Table(connection)
    try:
        table.copy_to(directory)
    finally:
        table.close()


def read_only(file: Path) -> Table:
    """The table in *file*, which nobody writes to."""
    return Table(sqlite3.connect(file, isolation_level=None, check_same_thread=False))


def _of(connection: sqlite3.Connection) -> Table:
    try:
        ((application,),) = connection.execute("PRAGMA application_id")
        ((layout,),) = connection.execute("PRAGMA user_version")
        if (application, layout) != (_APPLICATION, _LAYOUT):
            raise Damaged("it is a database of another kind")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16384")
        # A file that is truncated under a memory map kills the process.
        connection.execute("PRAGMA mmap_size = 0")
        # The first write would find out too late that another process holds it.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return Table(connection)
    except BaseException:
        connection.close()
        raise


def versioned(row: Row) -> Versioned:
    """*row*, which is sound and not deleted, as the port has it."""
    assert row.value is not None
    return Versioned(row.key, row.value, row.version)

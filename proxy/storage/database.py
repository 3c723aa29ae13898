"""One SQLite database of diskcache's: opened for this process alone, read while it cannot be, told from one that is damaged.

diskcache pickles what it does not know and unpickles what it finds (CVE-2025-69872), so :class:`BytesOnly` stores bytes under
text keys, each with a checksum, and refuses any row that is something else.  Everything here blocks.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from diskcache import Cache, Disk, Timeout
from diskcache.core import DBNAME, MODE_BINARY, MODE_RAW

from proxy.errors import StorageFailed, is_of_the_disk

#: What a database that was found damaged is called from then on: this after its own name, then when that was.
SET_ASIDE = ".damaged-"
#: How many of them are left for those who want to know why; the oldest go.
_LEFT = 3
#: How long another process may hold the database before a call fails (seconds).
_PATIENCE = 0.2
#: Begins a value with a checksum.  MessagePack never uses this byte, and no page begins with it: values without one are older.
_SEALED = b"\xc1"
_SEAL = len(_SEALED) + 4
_SEALED_FILE = ".sealed.val"
#: The last character there is: behind all text that begins with a prefix.
LAST = "\U0010ffff"

#: Result codes of SQLite that speak of the machine (https://sqlite.org/rescode.html).  All others speak of what is in the file.
_OF_THE_MACHINE = frozenset(
    (
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
    )
)
#: As diskcache writes a row, and what it has to remove afterwards (its columns: diskcache.core.Cache._row_insert).
_SET = """
INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value)
VALUES (?, 1, ?, NULL, ?, 0, NULL, ?, ?, NULL, ?)
ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, expire_time = NULL, access_time = excluded.access_time,
access_count = 0, tag = NULL, size = excluded.size, mode = excluded.mode, filename = NULL, value = excluded.value
"""
_FILES_OF = "SELECT filename FROM Cache WHERE key IN ({}) AND raw = 1 AND filename IS NOT NULL"
_OF_THE_FILE = frozenset((sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS, sqlite3.SQLITE_IOERR_DATA))


class ForeignRow(Exception):
    """A row in the database is not one that this proxy wrote."""


class Unread(Exception):
    """A value that may well be in order could not be read for now.  No OSError: diskcache takes those for a missing value."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.passing = not is_of_the_disk(error)


class Starved(StorageFailed):
    """A record could not be read because this process has no room for another open file: it is there, and not lost."""


class Damaged(Exception):
    """The database is not one that this proxy wrote."""


class BytesOnly(Disk):  # type: ignore[misc]  # diskcache has no types
    """A :class:`diskcache.Disk` that neither pickles nor unpickles, and gives back what it was given or nothing."""

    def put(self, key: Any) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"keys are text, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        """The key; no text at all for a pickle, or whatever else is none of ours."""
        return key if raw and isinstance(key, str) else ""

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        """A name, and the same as a path, that tells a file with a checksum from older ones."""
        name, path = super().filename(key, value)
        return name.removesuffix(".val") + _SEALED_FILE, path.removesuffix(".val") + _SEALED_FILE

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if read or not isinstance(value, bytes):
            raise TypeError(f"values are bytes, not {type(value).__name__}")
        return super().store(_SEALED + zlib.crc32(value).to_bytes(4, "big") + value, False, key)

    def _write(self, full_path: str, iterator: Any, mode: str, encoding: str | None = None) -> Any:
        try:
            return super()._write(full_path, iterator, mode, encoding)
        except OSError:
            with suppress(OSError):
                os.unlink(full_path)  # what there was room for is of no use
            raise

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if read or mode not in (MODE_RAW, MODE_BINARY):
            raise ForeignRow("a value in the record database is a pickle")
        try:
            fetched = super().fetch(mode, filename, value, False)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ForeignRow("the file of a value in the record database is gone") from None
        except OSError as error:
            raise Unread(error) from error
        if not isinstance(fetched, bytes):
            raise ForeignRow("a value in the record database is not bytes")
        if not fetched.startswith(_SEALED):
            if filename is not None and filename.endswith(_SEALED_FILE):
                raise ForeignRow("a value in the record database has lost its checksum")
            return fetched
        sealed = fetched[_SEAL:]
        if zlib.crc32(sealed) != int.from_bytes(fetched[len(_SEALED) : _SEAL], "big"):
            raise ForeignRow("a value in the record database has another checksum")
        return sealed


class _Alone(Cache):  # type: ignore[misc]  # diskcache has no types
    """A cache over a connection that locks its database; ``_con`` is where diskcache makes one (test_damage notices)."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        try:
            super().__init__(*args, **settings)
        except BaseException:
            self.close()  # it would hold the lock
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "con", None)
        if made is None:
            made = self._local.con = locked(Path(self._directory) / DBNAME)
            made.execute("PRAGMA synchronous = NORMAL")
            made.execute("PRAGMA cache_size = 8192")
            # A file that is truncated under a memory map kills the process.
            made.execute("PRAGMA mmap_size = 0")
        return made

    def get(self, key: str) -> bytes | None:
        """As diskcache has it, for what this class is made with, in half of the time."""
        return _value(self._con, self._disk, key)

    def set_small(self, values: Mapping[str, bytes]) -> None:
        """Set *values* in one transaction, each of which has its place in its row: as diskcache has it, in half of the time."""
        now = time.time()
        rows = []
        for key, value in values.items():
            size, mode, filename, stored = self._disk.store(value, False, key)
            assert filename is None
            rows.append((key, now, now, size, mode, stored))
        connection = self._con
        connection.execute("BEGIN IMMEDIATE")
        try:
            files = connection.execute(_FILES_OF.format(",".join("?" * len(values))), list(values)).fetchall()
            connection.executemany(_SET, rows)
            connection.execute("COMMIT")
        except BaseException:
            self.rolled_back()
            raise
        for (name,) in files:
            self._disk.remove(name)

    def beginning(self, prefix: str) -> list[str]:
        return _beginning(self._con, prefix)

    def rolled_back(self) -> bool:
        """Give up the transaction under way, if there is one; false if that fails."""
        try:
            if self._con.in_transaction:
                self._con.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True


class Readings:
    """The rows of the database in *directory* over *connection*, which need not be to the file that is there."""

    def __init__(self, directory: Path, connection: sqlite3.Connection, copy: tempfile.TemporaryDirectory[str] | None) -> None:
        self._disk = BytesOnly(str(directory))
        self._connection = connection
        self._copy = copy

    @property
    def is_copy(self) -> bool:
        """Whether the database itself is left alone."""
        return self._copy is not None

    def get(self, key: str) -> bytes | None:
        return _value(self._connection, self._disk, key)

    def beginning(self, prefix: str) -> list[str]:
        return _beginning(self._connection, prefix)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()


def locked(file: Path) -> sqlite3.Connection:
    """A connection that locks *file* for itself with the first statement."""
    connection = sqlite3.connect(file, timeout=_PATIENCE, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def open_cache(directory: Path) -> Cache:
    """The database in *directory*, made if there is none.  Raises Damaged, and sqlite3.Error and OSError for the machine."""
    if directory.exists() and not directory.is_dir():
        raise Damaged("it is no directory")
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    file = directory / DBNAME
    others = [each for each in directory.iterdir() if each != file]
    if file.exists() and not file.is_file():
        raise Damaged(f"{DBNAME} is no file")
    if others and not (file.exists() and file.stat().st_size):
        raise Damaged(f"{DBNAME} is missing or empty")
    for beside in ("-wal", "-shm", "-journal"):
        if (other := directory / f"{DBNAME}{beside}").exists() and not other.is_file():
            raise Damaged(f"{other.name} is no file")
    with plain_errors():
        # diskcache would wait a minute for a database that is locked.
        connection = locked(file)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
        try:
            return _Alone(
                str(directory),
                disk=BytesOnly,
                eviction_policy="none",
                cull_limit=0,
                size_limit=2**62,
                timeout=_PATIENCE,
                statistics=0,
                sqlite_mmap_size=0,
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise Damaged(f"its settings make no sense: {error!r}") from error


@contextmanager
def plain_errors() -> Iterator[None]:
    """Tells damage from trouble: Damaged, or the sqlite3.Error that diskcache hides behind its Timeout."""
    try:
        yield
    except (sqlite3.Error, Timeout) as error:
        # What came first tells: after it, diskcache fails to roll back what SQLite has rolled back already.
        cause: BaseException = error
        while isinstance(cause.__context__, sqlite3.Error):
            cause = cause.__context__
        if not isinstance(cause, sqlite3.DatabaseError):
            raise sqlite3.OperationalError(str(cause) or "the database is locked") from error
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # there is none for text that is no UTF-8
        if code in _OF_THE_FILE or code & 0xFF not in _OF_THE_MACHINE:
            raise Damaged(str(cause)) from error
        raise cause from None


def readings(directory: Path) -> Readings | None:
    """What can be read of a database that cannot be opened for writing, ``None``: nothing."""
    with suppress(sqlite3.Error, OSError):
        connection = locked(directory / DBNAME) if (directory / DBNAME).is_file() else None
        if connection is not None:
            try:
                connection.execute("SELECT count(*) FROM Cache")
            except sqlite3.Error:
                connection.close()
            else:
                return Readings(directory, connection, None)
    with suppress(StorageFailed):
        return copied_rows(directory)
    return None


def copied_rows(directory: Path) -> Readings | None:
    """The rows of a copy of the database, ``None`` when there is no database.  Raises StorageFailed."""
    copy = copy_of(directory / DBNAME)
    if copy is None:
        return None
    try:
        connection = sqlite3.connect(Path(copy.name) / DBNAME, isolation_level=None, check_same_thread=False)
        connection.execute("SELECT count(*) FROM Cache")
    except sqlite3.Error as error:
        copy.cleanup()
        raise StorageFailed(f"the record database {directory} cannot be copied: {error}") from error
    return Readings(directory, connection, copy)


def copy_of(file: Path) -> tempfile.TemporaryDirectory[str] | None:
    """A directory with a copy of the database *file* and its log, ``None`` when there is no database.  Raises StorageFailed.

    The file changes only when the log is written back to it, and then the log begins anew: a copy is whole when both are as
    they were before.
    """
    directory, log = file.parent, file.with_name(f"{file.name}-wal")
    try:
        copy = tempfile.TemporaryDirectory(prefix="pypiproxy-records-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageFailed(f"the record database {directory} cannot be copied: {error.strerror}") from error
    try:
        for _ in range(5):
            if not file.exists():
                copy.cleanup()
                return None
            before = _state(file), _head(log)
            shutil.copyfile(file, Path(copy.name) / file.name)
            with suppress(FileNotFoundError):
                shutil.copyfile(log, Path(copy.name) / log.name)
            if (_state(file), _head(log)) == before:
                break
    except OSError as error:
        copy.cleanup()
        raise StorageFailed(f"the record database {directory} cannot be copied: {error}") from error
    return copy


def _state(file: Path) -> tuple[int, ...]:
    facts = file.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _head(log: Path) -> bytes:
    """The header of SQLite's log, which is another one each time the log begins anew."""
    try:
        with log.open("rb") as opened:
            return opened.read(32)
    except FileNotFoundError:
        return b""


def file_identity(file: str) -> tuple[int, int] | None:
    """Which file a database is; ``None`` when it is not there, or nothing is in it.  Each access to one asks."""
    try:
        facts = os.stat(file)
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if facts.st_size else None


def _value(connection: sqlite3.Connection, disk: BytesOnly, key: str) -> bytes | None:
    """The value under *key*; ``None`` if there is none, or it has expired."""
    row = connection.execute(
        "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)",
        (key, time.time()),
    ).fetchone()
    if row is None:
        return None
    mode, filename, value = row
    return disk.fetch(mode, filename, value, False)


def _beginning(connection: sqlite3.Connection, prefix: str) -> list[str]:
    """The keys that begin with *prefix*, sorted; a key that begins with a dot is not listed.

    The index on (key, raw), which diskcache makes, has the range; diskcache's own iterators go through all rows.
    """
    rows = connection.execute("SELECT key FROM Cache WHERE raw = 1 AND key >= ? AND key < ?", (prefix, prefix + LAST))
    return sorted(key for (key,) in rows if isinstance(key, str) and key and not key.startswith("."))


def _modified(path: Path) -> tuple[int, str]:
    """When *path* was modified, for sorting; what is gone comes first."""
    try:
        return path.lstat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def set_aside(directory: Path, now: float) -> Path:
    """Rename the database *directory*, found damaged at *now*; its new name.  Raises OSError."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    number, target = 1, directory.with_name(f"{directory.name}{SET_ASIDE}{moment}")
    while target.exists():
        number += 1
        target = directory.with_name(f"{directory.name}{SET_ASIDE}{moment}.{number}")
    os.rename(directory, target)
    # The clock may have been set back since the others got their names.
    others = [each for each in directory.parent.glob(f"{directory.name}{SET_ASIDE}*") if each != target]
    for old in sorted(others, key=_modified)[: 1 - _LEFT]:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(OSError):
                old.unlink()
    return target

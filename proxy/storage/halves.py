"""One of the two files of versioned records: opened, asked, and told from a damaged one; and a copy for reading alone."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from proxy.errors import StorageFailed
from proxy.storage import table
from proxy.storage.database import Damaged, copy_of, file_identity, plain_errors
from proxy.storage.table import FILE, Row, Table

T = TypeVar("T")

#: Of how many of the last transactions that both files should have rows are compared, and how many rows at most.
_COMPARED = 10, 1000


class BrokenHalf(Exception):
    """One of the files is damaged."""

    def __init__(self, half: Half, error: Damaged) -> None:
        super().__init__(str(error))
        self.half = half


class Half:
    """One of the two files, in *directory*.  Its methods raise BrokenHalf, and sqlite3.Error and OSError for the machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.table: Table | None = None
        self._identity: tuple[int, int] | None = None
        self._file = str(directory / FILE)

    @property
    def in_place(self) -> bool:
        """Whether it is open, and the file that is there."""
        return self.table is not None and self._identity == file_identity(self._file)

    def open(self) -> bool:
        """Open it; false when there is none."""
        if not self.in_place:
            self.release()
            try:
                with plain_errors():
                    self.table = table.opened(self.directory)
            except Damaged as error:
                raise BrokenHalf(self, error) from error
            self._identity = file_identity(self._file)
        return self.table is not None

    def ask(self, question: Callable[[Table], T]) -> T:
        """What *question* gets of the open file."""
        assert self.table is not None
        try:
            with plain_errors():
                return question(self.table)
        except Damaged as error:
            raise BrokenHalf(self, error) from error
        except sqlite3.Error as error:
            # On a full disk there may be no room to open it again.
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                self.release()
            raise

    def newer(self, than: int) -> Iterator[Row]:
        """The rows of the open file whose version is above *than*."""
        assert self.table is not None
        try:
            with plain_errors():
                yield from self.table.newer(than)
        except Damaged as error:
            raise BrokenHalf(self, error) from error

    @property
    def sequence(self) -> int:
        """The number of its last transaction, -1 while it is not open."""
        return -1 if self.table is None else self.table.sequence

    def release(self) -> None:
        """Close it."""
        opened, self.table = self.table, None
        if opened is not None:
            opened.close()


def level(one: Half, other: Half) -> None:
    """Give each of two open files what the other one has of a higher version.

    The one that is behind lacks what is newer than its last transaction, and nothing else, unless the other one did not know
    all of its transactions when it went on (a loss of power took them from it).  Then all rows of both are compared.
    """
    behind, ahead = sorted((one, other), key=lambda each: each.sequence)
    common, last = behind.sequence, ahead.sequence
    transactions, rows = _COMPARED
    both = [row for row in ahead.ask(lambda there: there.some(common - transactions, common, rows)) if row.sound]
    if behind.ask(lambda there: all(map(there.has, both))):
        behind.ask(lambda there: there.take(ahead.newer(common), last))
    else:
        ahead.ask(lambda there: there.take(behind.newer(0), common))
        behind.ask(lambda there: there.take(ahead.newer(0), last))


class Copy(Struct):
    """A copy of a file, for reading alone."""

    table: Table
    place: tempfile.TemporaryDirectory[str]

    def close(self) -> None:
        self.table.close()
        self.place.cleanup()


def copied(directory: Path) -> Copy | None:
    """A copy of the file in *directory* as it is now, ``None`` when there is none.  Raises StorageFailed."""
    place = copy_of(directory / FILE)
    if place is None:
        return None
    try:
        with plain_errors():
            return Copy(table.read_only(Path(place.name) / FILE), place)
    except (Damaged, sqlite3.Error) as error:
        place.cleanup()
        raise StorageFailed(f"{directory.name}/ cannot be copied: {error}") from error

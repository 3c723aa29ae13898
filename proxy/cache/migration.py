"""What earlier versions wrote, brought into the present format: digests and pinned files out of two diskcache databases.

Theory of operation.  In format 0 ``pins/<index>/<project>`` holds the digests of a project and ``kept`` the pinned files, both
in the database ``records`` and, as a second copy, in ``pins``.  They are written to a backup first, which is complete or not
there.  Then the ledger is filled; what it has already stays.  Then the marker says which format it is, and at last what has
moved is removed.  Killed anywhere, it is done again from the beginning at the next start, and nothing is lost or replaced.

While an earlier version could still write, the ledger of a conversion that was cut short proves nothing: it is made anew.
After a failure what was made is removed again: the earlier version may go on, and needs the room.
What cannot be decoded is not in the ledger, entry by entry; its bytes are in the backup.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, field
from twisted.logger import Logger

from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook, PinnedFile
from proxy.errors import ConfigError, StorageFailed
from proxy.interfaces import IVersionedRecords
from proxy.mechanism.offload import Inline, completed
from proxy.model import LedgerEntry
from proxy.storage.local import LocalFiles
from proxy.storage.marker import read_marker
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.records import DiskRecords
from proxy.storage.syncing import sync

T = TypeVar("T")

#: The directories of the ledger.
LEDGER, LEDGER_COPY = "ledger", "ledger-copy"
#: Where what is replaced is kept.
BACKUP = "backup-format-0"
_UNFINISHED = f"{BACKUP}.new"

_RECORDS, _PINS = "records", "pins"
#: The lock: a file as long as an earlier version can use the directory.
_LOCK = "lock"
_FOLDER, _KEPT = "pins/", "kept"
#: Before the key of what only the backup has: the other value of a key of which no database has one that can be read whole.
_OTHER = "unreadable/"
#: What the comparison of the two databases left in each of them.
_NOTES = (".compared", ".unequal")

_raw_entries = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_entry = msgspec.msgpack.Decoder(LedgerEntry)
_raw_pinned = msgspec.msgpack.Decoder(list[msgspec.Raw])
_pinned = msgspec.msgpack.Decoder(PinnedFile)


class _Value(Struct):
    """The value of a key in one database, as far as it can be decoded; *lost* says what cannot."""

    data: bytes
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    pinned: list[PinnedFile] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    whole: bool = True


class _Found(Struct):
    """What the two databases of format 0 say: *values* as they are, the rest as far as it can be read."""

    values: dict[str, bytes] = field(default_factory=dict)
    entries: dict[tuple[str, str], Mapping[str, LedgerEntry]] = field(default_factory=dict)
    pinned: list[PinnedFile] = field(default_factory=list)
    #: Keys without a value that can be read, and by key what is lost of others.
    unread: list[str] = field(default_factory=list)
    lost: dict[str, list[str]] = field(default_factory=dict)


class Migration:
    """The data directory at *root*, which nobody else uses, on its way from format 0.  Blocks.

    Raises ConfigError when that is not possible now; the directory is then as usable for the earlier version as it was before.
    """

    log = Logger()
    #: What there is of format 0.
    SOURCES = (_RECORDS, _PINS)

    def __init__(self, root: Path) -> None:
        self._root = root

    def fill(self) -> None:
        """Make the backup, and the ledger out of what it holds."""
        made: list[str] = []
        try:
            found = self._read()
            if self._is_earlier(found):
                for name in (LEDGER, LEDGER_COPY):
                    self._remove(name)
            if found.values:
                made = [each for each in (LEDGER, LEDGER_COPY, BACKUP) if not (self._root / each).exists()]
                self._back_up(found)
                self._enter(found)
        except (OSError, StorageFailed) as error:
            self._undo(made)
            raise ConfigError(
                f'"{self._root}": it was written by an earlier version and cannot be brought into the present format: {error}; '
                "nothing in it was changed: make room or mend the disk and start again, or start the earlier version"
            ) from error
        if found.values:
            self.log.warn(
                "the data directory was brought into format 1: {entries} files of {projects} projects are in the ledger; what "
                "that replaces is in {backup} (docs/upgrade.md says how to return to the earlier version)",
                entries=sum(map(len, found.entries.values())),
                projects=len(found.entries),
                backup=str(self._root / BACKUP),
            )
        for key in found.unread:
            self.log.error("{key} cannot be read in either database; it is neither in the ledger nor in the backup", key=key)
        for key, lost in found.lost.items():
            self.log.error(
                "{count} entries of {key} make no sense and are not in the ledger: {names}; {backup} has them as they were",
                count=len(lost),
                key=key,
                names=", ".join(lost),
                backup=str(self._root / BACKUP),
            )

    def clean(self) -> None:
        """Remove what is in the ledger and the backup.  What cannot be removed now is at the next start."""
        if not (self._root / _PINS).exists():
            return
        try:
            records = self._database(self._root / _RECORDS)
            try:
                for key in [*completed(records.keys(_FOLDER)), _KEPT, *_NOTES]:
                    completed(records.delete(key))
            finally:
                completed(records.close())
            shutil.rmtree(self._root / _PINS)
        except (OSError, StorageFailed) as error:
            self.log.warn(
                "{path}: records of the earlier format, which the ledger has replaced, cannot be removed: {error}; "
                "they are not used, and the next start tries again",
                path=self._root,
                error=error,
            )

    def _is_earlier(self, found: _Found) -> bool:
        """Whether an earlier version may have gone on after the ledger was filled, if it ever was."""
        marker = read_marker(self._root)
        return (self._root / _LOCK).is_file() or (bool(found.values) and marker is not None and marker.format == 0)

    def _remove(self, name: str) -> None:
        """Remove a directory; of one that is elsewhere (a symbolic link) what is in it.  Raises OSError."""
        place = self._root / name
        if place.is_symlink():
            for each in list(place.iterdir()) if place.is_dir() else ():
                each.unlink()
        elif place.is_dir():
            shutil.rmtree(place)

    def _undo(self, made: Sequence[str]) -> None:
        """Remove what a failure left of what was *made*, as far as that is possible."""
        for name in (_UNFINISHED, *made):
            with suppress(OSError):
                self._remove(name)

    def _read(self) -> _Found:
        databases = [self._database(self._root / name) for name in self.SOURCES if (self._root / name).exists()]
        found = _Found()
        try:
            keys = sorted({key for each in databases for key in (*completed(each.keys(_FOLDER)), *completed(each.keys(_KEPT)))})
            for key in keys:
                values = [_decoded(key, data) for each in databases if (data := completed(each.get(key))) is not None]
                if values:
                    _take(found, key, values)
                else:
                    found.unread.append(key)
        finally:
            for each in databases:
                completed(each.close())
        return found

    def _back_up(self, found: _Found) -> None:
        """Write what the earlier version needs to go on: its second database, complete, and its marker."""
        backup, made = self._root / BACKUP, self._root / _UNFINISHED
        for old in (made, backup):  # of a migration that did not come to its end
            shutil.rmtree(old, ignore_errors=True)
        made.mkdir(mode=0o700)
        copy = self._database(made / _PINS)
        try:
            for key, value in found.values.items():
                completed(copy.set(key, value))
        finally:
            completed(copy.close())
        for file in [each for each in made.rglob("*") if each.is_file()]:
            sync(file)
        sync(made / _PINS)
        sync(made)
        os.rename(made, backup)
        sync(self._root)

    def _enter(self, found: _Found) -> None:
        offload = Inline()
        records: IVersionedRecords = MirroredRecords(self._root / LEDGER, self._root / LEDGER_COPY, offload)
        try:
            ledger = Ledger(records, 0, offload)
            for (index, project), entries in found.entries.items():
                completed(ledger.add_all(index, project, entries))
            completed(PinnedBook(records, ledger, LocalFiles(self._root, offload)).add(found.pinned))
        finally:
            completed(records.close())
        for name in (LEDGER, LEDGER_COPY):
            for file in (self._root / name).iterdir():
                sync(file)

    def _database(self, directory: Path) -> DiskRecords:
        return DiskRecords(directory, Inline(), clock=time.time)


def _decoded(key: str, data: bytes) -> _Value:
    value = _Value(data)
    try:
        if key == _KEPT:
            for number, raw in enumerate(_raw_pinned.decode(data)):
                try:
                    value.pinned.append(_pinned.decode(raw))
                except msgspec.MsgspecError:
                    value.lost.append(f"number {number}")
        else:
            _, _index, _project = key.split("/")
            for name, raw in _raw_entries.decode(data).items():
                try:
                    value.entries[name] = _entry.decode(raw)
                except msgspec.MsgspecError:
                    value.lost.append(name)
    except (msgspec.MsgspecError, ValueError):
        return _Value(data, lost=["all"], whole=False)
    return value


def _take(found: _Found, key: str, values: list[_Value]) -> None:
    """Enter into *found* the first of *values* that can be read best, with what it lacks out of the other one."""
    best, *others = sorted(values, key=lambda value: (not value.whole, bool(value.lost)))
    for other in others:
        if best.lost and other.data != best.data:
            found.values[_OTHER + key] = other.data
            mended = {name: other.entries[name] for name in best.lost if name in other.entries}
            best.entries |= mended
            best.lost = [name for name in best.lost if name not in mended]
    found.values[key] = best.data
    if best.lost:
        found.lost[key] = best.lost
    if key == _KEPT:
        found.pinned = best.pinned
    elif best.whole:
        _, index, project = key.split("/")
        found.entries[index, project] = best.entries

"""Restoring a backup into an empty directory.  All of it blocks: for a process with nothing else to do.

Everything is made in a folder inside that directory and verified; then its parts are moved into place, the marker last.
Whatever is wrong with the backup, the directory is left as it was.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from proxy.bundle.backup import MANIFEST, BackupKind, backup_entry_of, read_backup_end, read_backup_manifest, read_records
from proxy.bundle.hosted_tree import HOSTED, put_file, put_texts, read_hosted
from proxy.bundle.members import MemberReader
from proxy.errors import BadBundle, StorageFailed
from proxy.mechanism.offload import Inline, completed
from proxy.storage import table
from proxy.storage.database import Damaged, plain_errors
from proxy.storage.marker import FORMAT, LOCK, MARKER, Marker, new_name, write_marker
from proxy.storage.records import DiskRecords
from proxy.storage.syncing import sync
from proxy.upstream.index.pages import LARGEST

#: The most that a member with records has (bytes): a page may be the last of many small records.
_LARGEST_PART = 2 * LARGEST
#: Where everything is made; what an interruption left there is removed by the next attempt.
_UNFINISHED = ".restoring"


class Restored(Struct):
    """What was restored so far; ``read`` are bytes, ``damaged`` files are left out, as the backup itself calls them so."""

    records: int = 0
    files: int = 0
    read: int = 0
    damaged: int = 0


def restore_backup(source: BinaryIO, directory: Path, on_the_way: Callable[[Restored], None]) -> Restored:
    """Make the data directory that *source* is a backup of in *directory*, which is missing or empty.

    The caller has claimed it.  *on_the_way* is told how far it is.  Raises BadBundle for what is no whole backup, StorageFailed
    where the directory cannot take it; nothing is left then.
    """
    made = not directory.exists()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_filled(directory)
        unfinished = directory / _UNFINISHED
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        try:
            unfinished.mkdir(mode=0o700)
            restored = _Restoring(source, unfinished, on_the_way).run()
            write_marker(unfinished, Marker(new_name(), FORMAT))
            os.sync()
            _move(unfinished, directory)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except BaseException as error:
        _leave(directory, made=made)
        if not isinstance(error, OSError):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise StorageFailed(f"cannot be written: {error.strerror or error}{where}") from error
    return restored


def refuse_filled(directory: Path) -> None:
    """Raise StorageFailed if something is in *directory* that no restore has left there."""
    try:
        found = {each.name for each in directory.iterdir() if not (each.name in (_UNFINISHED, LOCK) and each.is_dir())}
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageFailed(f"{error.strerror}; name a directory that is empty or missing") from error
    if found:
        raise StorageFailed("it is not empty; name a new directory, or move away what is in it")


def _move(unfinished: Path, directory: Path) -> None:
    """Move what was made to where it belongs, the marker last."""
    for each in sorted(unfinished.iterdir(), key=lambda path: path.name == MARKER):
        each.rename(directory / each.name)
    unfinished.rmdir()
    directory.chmod(0o700)
    sync(directory)


def _leave(directory: Path, *, made: bool) -> None:
    """Remove *directory* if it was *made* for a restore that failed."""
    if made:
        with suppress(OSError):
            directory.rmdir()


class _Restoring:
    """One backup on its way into *place*."""

    def __init__(self, source: BinaryIO, place: Path, on_the_way: Callable[[Restored], None]) -> None:
        self._members = MemberReader(source, "pypiproxy backup", "backup")
        self._place = place
        self._on_the_way = on_the_way
        self._restored = Restored()
        self._batches = 0
        self._damaged: set[str] = set()
        #: The distributions of hosted indexes: where each is, its sha256, and its time.
        self._hosted: dict[str, tuple[str, int]] = {}
        self._parts = 0

    def run(self) -> Restored:
        """Take all of it.  Raises BadBundle, StorageFailed, OSError."""
        if self._members.name != MANIFEST:
            raise BadBundle("it is no backup: expected a file that pypiproxy backup made")
        read_backup_manifest(self._members.whole())
        records = DiskRecords(self._place / "records", Inline())
        try:
            while (entry := backup_entry_of(self._members.advance()))[0] is not BackupKind.END:
                self._take(*entry, records)
                self._on_the_way(self._restored)
            self._end(entry[1])
        finally:
            completed(records.close())
        return self._restored

    def _take(self, kind: BackupKind, sha256: str, records: DiskRecords) -> None:
        match kind:
            case BackupKind.LEDGER:
                self._ledger(sha256)
            case BackupKind.RECORDS:
                pairs = read_records(self._verified(kind, sha256))
                for key, value in pairs:
                    completed(records.set(key, value))
                self._batches += 1
                self._restored.records += len(pairs)
            case BackupKind.HOSTED:
                part = read_hosted(self._verified(kind, sha256))
                put_texts(self._place / HOSTED, part)
                self._hosted.update(part.files)
                self._parts += 1
            case _:
                self._file(sha256)

    def _verified(self, kind: BackupKind, sha256: str) -> bytes:
        """The present member, in memory: it has records or the end."""
        data = self._members.whole(_LARGEST_PART)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(kind, sha256)
        self._restored.read += len(data)
        return data

    def _ledger(self, sha256: str) -> None:
        folder = self._place / "ledger"
        folder.mkdir(mode=0o700)
        if self._written(folder / table.FILE) != sha256:
            raise _damaged(BackupKind.LEDGER, sha256)
        try:
            with plain_errors():
                opened = table.opened(folder)
        except (Damaged, sqlite3.Error) as error:
            raise BadBundle(f"its ledger is no ledger ({error}): it was not made by pypiproxy backup") from error
        if opened is None:
            raise BadBundle("its ledger is empty: it was not made by pypiproxy backup")
        opened.close()

    def _file(self, sha256: str) -> None:
        path = self._stored(sha256)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._written(path) != sha256:
            self._damaged.add(sha256)  # the end tells whether that was so before
            path.unlink()
        else:
            os.utime(path, (self._members.modified, self._members.modified))
        self._restored.files += 1

    def _stored(self, sha256: str) -> Path:
        return self._place / "files" / sha256[:2] / sha256

    def _written(self, path: Path) -> str:
        """Write the present member to *path*; its digest."""
        digest = hashlib.sha256()
        with path.open("xb") as file:
            path.chmod(0o600)
            for chunk in self._members.chunks():
                digest.update(chunk)
                file.write(chunk)
                self._restored.read += len(chunk)
                self._on_the_way(self._restored)
        return digest.hexdigest()

    def _end(self, sha256: str) -> None:
        end = read_backup_end(self._verified(BackupKind.END, sha256))
        counted = self._batches, self._restored.files, self._parts
        if not (self._place / "ledger").is_dir() or (end.records, end.files, end.hosted) != counted:
            raise BadBundle(
                f"it lacks its ledger, or some of its {end.records} parts of records and {end.files} files: copy it again"
            )
        for each in self._damaged.difference(end.damaged):
            raise _damaged(BackupKind.FILE, each)
        for place, (digest, mtime_ns) in self._hosted.items():
            if digest not in self._damaged:
                put_file(self._place / HOSTED, place, self._stored(digest), mtime_ns)
        self._restored.damaged = len(self._damaged)
        self._restored.files -= len(self._damaged)


def _damaged(kind: BackupKind, sha256: str) -> BadBundle:
    return BadBundle(f"its {kind.value}/{sha256} has other bytes than those it is named by: copy it again")

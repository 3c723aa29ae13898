"""The operation ``backup``: a consistent copy of a data directory, made by the process that works on it.

The ledger is copied as it is at one moment, by SQLite itself and in the thread of its database.  Records are read one by one;
what is replaced meanwhile is read again, so that each page in the backup is whole.  Stored files never change.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from msgspec import Struct, field
from msgspec.structs import asdict

from proxy.bundle.backup import (
    FORMAT,
    MANIFEST,
    VERSION,
    WITHOUT_HOSTED,
    BackupEnd,
    BackupKind,
    BackupManifest,
    encode_part,
    encode_records,
)
from proxy.bundle.handed import Handed, saying, until_cancelled
from proxy.bundle.hosted_tree import encode_hosted, parts_of
from proxy.bundle.members import Hashing, MemberWriter
from proxy.cache.usage import UsageBook
from proxy.errors import StorageFailed, to_make_room
from proxy.interfaces import Clock, IFileStore, IOffload, IRecordStore, Report
from proxy.settings import MIB
from proxy.storage import marker
from proxy.storage.table import FILE

#: Bytes of records in one member, unless one of them has more.
_TOGETHER = 4 * MIB
#: How often records are listed again, for those that took the place of others meanwhile.
_ROUNDS = 5


class ILedgerCopies(Protocol):
    """What can be copied while it is in use."""

    async def copy_to(self, directory: Path) -> None:
        """Copy it as it is now into *directory*, which is made.  Raises StorageFailed."""


class Saved(Struct):
    """What is in the backup so far; ``damaged`` are the sha256 of stored files that are not what they should be."""

    records: int = 0
    files: int = 0
    read: int = 0
    damaged: list[str] = field(default_factory=list)


class Saving(Struct, frozen=True, kw_only=True):
    """Makes backups.  *offload* is where they are written, *scratch* makes an empty directory for a copy of the ledger.

    *hosted* is the directory of hosted indexes.
    """

    ledger: ILedgerCopies
    records: IRecordStore
    files: IFileStore
    usage: UsageBook
    hosted: Path
    scratch: Callable[[], Path]
    offload: IOffload
    clock: Clock
    reactor: Any

    async def backup(self, report: Report, descriptor: int, with_files: bool = False) -> dict[str, Any]:
        """Write a backup to *descriptor*, *with_files* or without; what is in it (`Saved`).  Raises StorageFailed.

        *report* is told the same once a second.
        """
        out = Handed(descriptor, writing=True)
        return await until_cancelled(out, self._written(report, out, with_files))

    async def _written(self, report: Report, out: Handed, with_files: bool) -> dict[str, Any]:
        saved = Saved()
        try:
            with saying(lambda: report(asdict(saved)), self.reactor), out:
                await _Backup(self, cast("BinaryIO", out), saved).run(with_files=with_files)
        except OSError as error:
            raise StorageFailed(f"the backup cannot be written: {error.strerror or error}{to_make_room(error)}") from error
        return asdict(saved)


class _Backup:
    """One backup on its way to *out*."""

    def __init__(self, parts: Saving, out: BinaryIO, saved: Saved) -> None:
        self._parts = parts
        self._run = parts.offload.run
        self._out = out
        self._saved = saved
        self._batches = 0
        #: The sha256 of the files that are in it.
        self._written: set[str] = set()

    async def run(self, *, with_files: bool) -> None:
        """Write all of it.  Raises StorageFailed, OSError."""
        made = self._parts.clock()
        writer = await self._run(MemberWriter, self._out, made)
        hosted = self._parts.hosted
        version = VERSION if await self._run(hosted.is_dir) else WITHOUT_HOSTED
        manifest = encode_part(BackupManifest(FORMAT, version, marker.FORMAT, made))
        await self._run(writer.add, MANIFEST, io.BytesIO(manifest), len(manifest))
        await self._ledger(writer)
        await self._records(writer)
        if with_files:
            for file in await self._parts.usage.files():
                await self._file(writer, file.sha256, file.used)
        parts = await self._hosted(writer, hosted, with_files=with_files) if version == VERSION else 0
        end = encode_part(BackupEnd(self._batches, self._saved.files, self._saved.damaged, parts))
        await self._run(writer.add_bytes, BackupKind.END.value, end)
        await self._run(writer.close)

    async def _hosted(self, writer: MemberWriter, root: Path, *, with_files: bool) -> int:
        """Write what is below *root*; how many parts that is.  Bytes that are not stored are taken from there."""
        parts, number = parts_of(root, with_files=with_files), 0
        while (part := await self._run(next, parts, None)) is not None:
            for place, (sha256, _) in part.files.items():
                if sha256 not in self._written:
                    await self._standing(writer, root / place, sha256)
            await self._run(writer.add_bytes, BackupKind.HOSTED.value, encode_hosted(part))
            number += 1
        return number

    async def _standing(self, writer: MemberWriter, path: Path, sha256: str) -> None:
        with path.open("rb") as file:
            reader, facts = Hashing(file.fileno()), os.fstat(file.fileno())
            await self._run(writer.add, f"{BackupKind.FILE.value}/{sha256}", reader, facts.st_size, facts.st_mtime)
        self._added(sha256, reader, facts.st_size)

    async def _ledger(self, writer: MemberWriter) -> None:
        scratch = await self._run(self._parts.scratch)
        try:
            await self._parts.ledger.copy_to(scratch / "ledger")
            await self._run(_add_file, writer, BackupKind.LEDGER, scratch / "ledger" / FILE)
        finally:
            await self._run(shutil.rmtree, scratch, True)

    async def _records(self, writer: MemberWriter) -> None:
        seen: set[str] = set()
        for _ in range(_ROUNDS):
            keys = await self._parts.records.keys("")
            # A body that is new belongs to a head that was there before.
            new = {each for key in keys if key not in seen for each in ((key, key.rpartition("/")[0]) if seen else (key,))}
            if not new:
                return
            await self._batched(writer, sorted(new.intersection(keys)))
            seen.update(keys)

    async def _batched(self, writer: MemberWriter, keys: list[str]) -> None:
        batch: list[tuple[str, bytes]] = []
        weight = 0
        for key in keys:
            value = await self._parts.records.get(key)
            if value is None:
                continue  # it has just been replaced
            batch.append((key, value))
            weight += len(value)
            if weight >= _TOGETHER:
                await self._batch(writer, batch)
                batch, weight = [], 0
        if batch:
            await self._batch(writer, batch)

    async def _batch(self, writer: MemberWriter, batch: list[tuple[str, bytes]]) -> None:
        data = await self._run(encode_records, batch)
        await self._run(writer.add_bytes, BackupKind.RECORDS.value, data)
        self._batches += 1
        self._saved.records += len(batch)
        self._saved.read += len(data)

    async def _file(self, writer: MemberWriter, sha256: str, used: float) -> None:
        source = await self._parts.files.unchecked(sha256)
        if source is None or source.size is None:
            return  # it was evicted meanwhile
        reader = Hashing(source.fileno())
        try:
            await self._run(writer.add, f"{BackupKind.FILE.value}/{sha256}", reader, source.size, used)
        finally:
            source.close()
        self._added(sha256, reader, source.size)

    def _added(self, sha256: str, reader: Hashing, size: int) -> None:
        self._written.add(sha256)
        self._saved.files += 1
        self._saved.read += size
        if reader.digest.hexdigest() != sha256:
            self._saved.damaged.append(sha256)


def _add_file(writer: MemberWriter, kind: BackupKind, path: Path) -> None:
    """Add the file at *path*, which nobody writes to.  Blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        writer.add(f"{kind.value}/{digest}", Hashing(file.fileno()), os.fstat(file.fileno()).st_size)

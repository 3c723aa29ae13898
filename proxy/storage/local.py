"""Files on the local disk: ``files/<aa>/<sha256>``, content-addressed.

What is arriving stands under ``partial/``, what was found damaged under ``quarantine/``.

Commit is fsync, rename, fsync of the directory: after a crash a file is there whole or not at all.  The time of a committed
file (mtime) is its last use: its bytes never change, so nothing else needs that field, and it is lost with no record.
Everything here that touches the disk runs in a worker thread.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from zope.interface import implementer

from proxy.interfaces import IFileStore, IOffload, IPartialFile
from proxy.model import StoredFile
from proxy.settings import MIB
from proxy.storage.memory import resumable
from proxy.storage.whole import WholeFile

_SHA256 = re.compile(r"[0-9a-f]{64}")


@implementer(IPartialFile)
class LocalPartial:
    """A file under ``partial/``, written at its end."""

    def __init__(self, store: LocalFiles, path: Path, *, resume: bool) -> None:
        self._store = store
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if resume else os.O_TRUNC)
        self._descriptor = os.open(path, flags, 0o600)
        self.size = os.fstat(self._descriptor).st_size

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self.size)
            self.size += written
            rest = rest[written:]

    def truncate(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self.size = 0

    def read_all(self) -> Iterator[bytes]:
        for offset in range(0, self.size, MIB):
            yield os.pread(self._descriptor, min(MIB, self.size - offset), offset)

    def commit(self, sha256: str) -> None:
        os.fsync(self._descriptor)
        target = self._store.path(sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        os.rename(self._path, target)
        self._store.changed()
        _sync_directory(target.parent)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    def suspend(self) -> None:
        pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._store.written(self._path)


@implementer(IFileStore)
class LocalFiles:
    """The tree under *root* (created with mode 0700)."""

    def __init__(self, root: Path, offload: IOffload) -> None:
        self._files = root / "files"
        self._partial = root / "partial"
        self._quarantine = root / "quarantine"
        self._offload = offload
        self._being_written: set[Path] = set()
        self._extra = itertools.count()
        self._changes = itertools.count(1)
        self.changes = 0
        for directory in (root, self._files, self._partial):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the committed file *sha256* stands.  ValueError for what is no digest."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a sha256: {sha256!r}")
        return self._files / sha256[:2] / sha256

    async def open(self, sha256: str) -> WholeFile | None:
        return await self._offload.run(self._open, self.path(sha256))

    def _open(self, path: Path) -> WholeFile | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return WholeFile(descriptor, os.fstat(descriptor).st_size, path.name)

    async def present(self, digests: Collection[str]) -> frozenset[str]:
        return await self._offload.run(self._present, digests)

    def _present(self, digests: Collection[str]) -> frozenset[str]:
        return frozenset(sha256 for sha256 in digests if self.path(sha256).is_file())

    def changed(self) -> None:
        """Told by whoever committed or removed a file, after that."""
        self.changes = next(self._changes)

    async def begin(self, key: str, *, resume: bool) -> LocalPartial:
        path = self._partial / key
        if path in self._being_written:
            path, resume = self._partial / f"extra.{next(self._extra)}", False
        self._being_written.add(path)
        try:
            return await self._offload.run(self._begin, path, resume)
        except BaseException:
            self.written(path)
            raise

    def written(self, path: Path) -> None:
        """Told by the partial file at *path* that it is closed."""
        self._being_written.discard(path)

    def _begin(self, path: Path, resume: bool) -> LocalPartial:
        return LocalPartial(self, path, resume=resume)

    async def delete(self, sha256: str) -> bool:
        try:
            return await self._offload.run(_remove, self.path(sha256))
        finally:
            self.changed()

    async def set_aside(self, sha256: str) -> None:
        await self._offload.run(self._set_aside, self.path(sha256))

    def _set_aside(self, path: Path) -> None:
        self._quarantine.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            os.rename(path, self._quarantine / path.name)
            self.changed()

    async def walk(self) -> list[tuple[str, int]]:
        return await self._offload.run(self._walk)

    def _walk(self) -> list[tuple[str, int]]:
        return sorted((file.sha256, file.size) for file in self._inventory())

    async def inventory(self) -> list[StoredFile]:
        return await self._offload.run(self._inventory)

    def _inventory(self) -> list[StoredFile]:
        found = []
        for directory in os.scandir(self._files):
            if directory.is_dir():
                there = [(entry.name, _facts(entry)) for entry in os.scandir(directory.path) if _SHA256.fullmatch(entry.name)]
                found += [StoredFile(name, facts.st_size, facts.st_mtime) for name, facts in there if facts is not None]
        return found

    async def touch(self, times: Mapping[str, float]) -> None:
        await self._offload.run(self._touch, times)

    def _touch(self, times: Mapping[str, float]) -> None:
        for sha256, used in times.items():
            with suppress(FileNotFoundError):
                os.utime(self.path(sha256), (used, used))

    async def sweep(self) -> int:
        return await self._offload.run(self._sweep)

    def _sweep(self) -> int:
        doomed = [entry.path for entry in os.scandir(self._partial) if not resumable(entry.name)]
        for path in doomed:
            os.unlink(path)
        return len(doomed)

    def capacity(self) -> int:
        """Bytes that the file system has in all.  Blocks."""
        facts = os.statvfs(self._files)
        return facts.f_blocks * facts.f_frsize

    async def free(self) -> int:
        facts = await self._offload.run(os.statvfs, self._files)
        return facts.f_bavail * facts.f_frsize

    async def abandon(self, before: float) -> int:
        left = await self._offload.run(self._left, before)
        doomed = {path: size for path, size in left if path not in self._being_written}
        # Whoever begins one of them now gets a file of its own.
        self._being_written |= doomed.keys()
        try:
            await self._offload.run(_remove_all, doomed)
        finally:
            self._being_written -= doomed.keys()
        return sum(doomed.values())

    def _left(self, before: float) -> list[tuple[Path, int]]:
        found = [(Path(entry.path), _facts(entry)) for entry in os.scandir(self._partial)]
        return [(path, facts.st_size) for path, facts in found if facts is not None and facts.st_mtime < before]

    async def close(self) -> None:
        pass


def _facts(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What stands in the directory about a file; ``None`` when it has just gone."""
    try:
        return entry.stat()
    except FileNotFoundError:
        return None


def _remove_all(paths: Iterable[Path]) -> None:
    for path in paths:
        _remove(path)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

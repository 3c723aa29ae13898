"""Files that are made here and can be made again: the list of an index's projects and its renderings, under ``lists/``.

Beside each stands its digest (``<name>.sum``).  A file is held against it when it is opened for the first time since the start,
and again whenever inode, size or time of change are not what they were then.  What cannot be read, and what is damaged, counts
as missing; what cannot be written raises OSError.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from twisted.logger import Logger

from proxy.flight import owned
from proxy.interfaces import IOffload
from proxy.settings import MIB
from proxy.storage.checked import Proofs, mark_of
from proxy.storage.whole import WholeFile

T = TypeVar("T")


class ListFiles:
    """The files of one index below *folder*, which *prepare* makes where it is missing, or raises OSError."""

    log = Logger()

    def __init__(self, folder: Path, offload: IOffload, prepare: Callable[[Path], None]) -> None:
        self._folder = folder
        self._offload = offload
        self._prepare = prepare
        self._proofs = Proofs()

    async def open(self, name: str) -> WholeFile | None:
        """The file *name*, open for reading, or ``None``."""
        return await owned(self._offload.run(self._open, name))

    def _open(self, name: str) -> WholeFile | None:
        path = self._folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            if not self._is_whole(path, descriptor):
                self.log.error("{path} is damaged and is made again", path=path)
                os.close(descriptor)
                return None
            return WholeFile(descriptor, os.fstat(descriptor).st_size, None)
        except OSError:
            os.close(descriptor)
            return None

    def _is_whole(self, path: Path, descriptor: int) -> bool:
        """Whether the bytes of the open file are those that were written.  Raises OSError."""
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return False
        mark = mark_of(facts)
        if self._proofs.hold(path.name, mark):
            return True
        digest, position = hashlib.sha256(), 0
        while data := os.pread(descriptor, MIB, position):
            digest.update(data)
            position += len(data)
        with suppress(FileNotFoundError):  # earlier versions wrote none
            if _sum_of(path).read_text("ascii", "replace").strip() != digest.hexdigest():
                return False
        self._proofs.proven(path.name, descriptor, mark)
        return True

    async def temporary(self) -> BinaryIO:
        """A file without a name, for reading and writing in worker threads."""
        return await owned(self._offload.run(self._temporary))

    def _temporary(self) -> BinaryIO:
        self._prepare(self._folder)
        return tempfile.TemporaryFile(dir=self._folder)

    async def write(self, name: str, produce: Callable[[BinaryIO], T]) -> T:
        """Make the file *name* out of what *produce* writes, in a worker thread; what it returns.  It is there whole or not."""
        return await self._offload.run(self._write, name, produce)

    def _write(self, name: str, produce: Callable[[BinaryIO], T]) -> T:
        self._prepare(self._folder)
        path = self._folder / name
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            try:
                made = produce(file)  # type: ignore[arg-type]  # a wrapper with all its methods
                file.flush()
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
                for there in (path, _sum_of(path)):
                    if there.is_dir() and not there.is_symlink():
                        shutil.rmtree(there)
                _sum_of(path).unlink(missing_ok=True)
                os.rename(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        _sum_of(path).write_text(digest, "ascii")
        return made

    async def keep_only(self, start: str) -> None:
        """Remove all files whose names do not begin with *start*, as far as possible; open readers keep what they have."""
        await self._offload.run(self._keep_only, start)

    def _keep_only(self, start: str) -> None:
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                if not entry.name.startswith(start):
                    with suppress(OSError):
                        os.unlink(entry.path)


def _sum_of(path: Path) -> Path:
    """Where the digest of *path* is."""
    return path.with_name(path.name + ".sum")

"""Files that are made here and can be made again: the list of an index's projects and its renderings, under ``lists/``.

Beside each is its digest (``<name>.sum``), which is written first: a file without one was not made by this version, or not to
its end.  A file is held against its digest when it is opened: a small one always, others for the first time since the start and
whenever inode, size or times are not what they were then.  What cannot be read, what is damaged and what has no digest
counts as missing.

What the disk does not take is held in memory, up to :data:`IN_MEMORY` bytes of each index; above that, writing raises OSError.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from twisted.logger import Logger

from proxy.errors import is_of_the_disk
from proxy.interfaces import IOffload
from proxy.mechanism.flight import owned
from proxy.settings import MIB
from proxy.storage.checked import SMALL, Proofs, mark_of
from proxy.storage.inmemory import Allowance, MemoryFile, MovingFile
from proxy.storage.whole import WholeFile, open_regular

T = TypeVar("T")

#: What one index may hold in memory of what its disk does not take (bytes): a list of the public index, and one rendering.
IN_MEMORY = 128 * MIB
#: Bytes of a digest file that are read: a digest, and enough to see that there is more.
_LONGEST_SUM = 100


class ListFiles:
    """The files of one index below *folder*, which *prepare* makes where it is missing, or raises OSError."""

    log = Logger()

    def __init__(self, folder: Path, offload: IOffload, prepare: Callable[[Path], None]) -> None:
        self._folder = folder
        self._offload = offload
        self._prepare = prepare
        self._proofs = Proofs()
        #: What the disk did not take, by name.
        self._held: dict[str, MemoryFile] = {}
        self._allowance = Allowance(IN_MEMORY)
        #: Held while the table above is looked into or changed, in any thread.
        self._holding = threading.Lock()

    async def open(self, name: str) -> WholeFile | None:
        """The file *name*, open for reading, or ``None``."""
        return await owned(self._offload.run(self._open, name))

    def _open(self, name: str) -> WholeFile | None:
        with self._holding:
            if (held := self._held.get(name)) is not None:
                return held.reader()
        path = self._folder / name
        file = open_regular(path)
        if file is None:
            return None
        try:
            if not self._is_whole(path, file.fileno()):
                self.log.error("{path} is damaged and is made again", path=path)
                file.close()
                return None
            return file
        except OSError:
            file.close()
            return None

    async def open_earlier(self, name: str) -> WholeFile | None:
        """The file *name* of a version that may have written no digests, open for reading, or ``None``.

        Where it has no digest nothing vouches for its bytes.
        """
        return await owned(self._offload.run(self._open_earlier, name))

    def _open_earlier(self, name: str) -> WholeFile | None:
        path = self._folder / name
        return self._open(name) if os.path.lexists(_sum_of(path)) else open_regular(path)

    def _is_whole(self, path: Path, descriptor: int) -> bool:
        """Whether the bytes of the open file are those that were written.  Raises OSError."""
        mark = mark_of(os.fstat(descriptor))
        if mark[1] > SMALL and self._proofs.hold(path.name, mark):
            return True
        digest, position = hashlib.sha256(), 0
        while data := os.pread(descriptor, MIB, position):
            digest.update(data)
            position += len(data)
        if _read_sum(path) != digest.hexdigest().encode():
            return False
        self._proofs.proven(path.name, descriptor, mark)
        return True

    async def temporary(self) -> BinaryIO:
        """A file without a name, for reading and writing in worker threads.  What the disk does not take is in memory."""
        return await owned(self._offload.run(self._temporary))

    def _temporary(self) -> BinaryIO:
        return cast("BinaryIO", MovingFile(self._temporary_on_disk, self._allowance))

    def _temporary_on_disk(self) -> BinaryIO:
        self._prepare(self._folder)
        return tempfile.TemporaryFile(dir=self._folder, buffering=0)

    async def write(self, name: str, produce: Callable[[BinaryIO], T]) -> T:
        """Make the file *name* out of what *produce* writes, in a worker thread; what it returns.  It is there whole or not.

        Where the disk takes nothing it is held in memory; *produce* is then called once more.
        """
        return await self._offload.run(self._write, name, produce)

    def _write(self, name: str, produce: Callable[[BinaryIO], T]) -> T:
        try:
            made = self._write_to_disk(name, produce)
        except OSError as error:
            if not is_of_the_disk(error):
                raise
            return self._hold(name, produce, error)
        self._let_go(lambda held: held == name)
        return made

    def _hold(self, name: str, produce: Callable[[BinaryIO], T], why: OSError) -> T:
        file = MemoryFile(self._allowance)
        try:
            made = produce(file)
        except OSError:
            file.close()
            raise why from None
        except BaseException:
            file.close()
            raise
        with self._holding:
            before, self._held[name] = self._held.get(name), file
        if before is not None:
            before.close()
        self.log.error("{path} cannot be written and is held in memory: {why}", path=self._folder / name, why=why.strerror)
        return made

    def _let_go(self, unwanted: Callable[[str], bool]) -> None:
        """Close what is in memory under names that are *unwanted*; open readers keep what they have."""
        with self._holding:
            for name in list(filter(unwanted, self._held)):
                self._held.pop(name).close()

    def _write_to_disk(self, name: str, produce: Callable[[BinaryIO], T]) -> T:
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
                _write_sum(path, digest)
                os.rename(file.name, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
        return made

    def close(self) -> None:
        """Let go of what is in memory."""
        self._let_go(lambda name: True)

    async def keep_only(self, start: str) -> None:
        """Remove all files whose names do not begin with *start*, as far as possible; open readers keep what they have."""
        await self._offload.run(self._remove, lambda name: not name.startswith(start))

    async def remove(self, start: str) -> None:
        """Remove all files whose names begin with *start*, as far as possible; open readers keep what they have."""
        await self._offload.run(self._remove, lambda name: name.startswith(start))

    def _remove(self, unwanted: Callable[[str], bool]) -> None:
        self._let_go(unwanted)
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                if unwanted(entry.name):
                    with suppress(OSError):
                        os.unlink(entry.path)


def _sum_of(path: Path) -> Path:
    """Where the digest of *path* is."""
    return path.with_name(path.name + ".sum")


def _read_sum(path: Path) -> bytes | None:
    """The digest that is noted for *path*, ``None`` without one.  Raises OSError."""
    file = open_regular(_sum_of(path))
    if file is None:
        return None
    try:
        return os.pread(file.fileno(), _LONGEST_SUM, 0).strip()
    finally:
        file.close()


def _write_sum(path: Path, digest: str) -> None:
    """Note the digest of *path*, in a new file: nothing is written into what another process may have put there."""
    _sum_of(path).unlink(missing_ok=True)
    descriptor = os.open(_sum_of(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, digest.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

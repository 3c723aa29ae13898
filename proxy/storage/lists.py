"""Files that are made here and can be made again: the list of an index's projects and its renderings, under ``lists/``.

What cannot be read counts as missing; what cannot be written raises OSError.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from proxy.flight import owned
from proxy.interfaces import IOffload
from proxy.storage.whole import WholeFile

T = TypeVar("T")


class ListFiles:
    """The files of one index below *folder*, which *prepare* makes where it is missing, or raises OSError."""

    def __init__(self, folder: Path, offload: IOffload, prepare: Callable[[Path], None]) -> None:
        self._folder = folder
        self._offload = offload
        self._prepare = prepare

    async def open(self, name: str) -> WholeFile | None:
        """The file *name*, open for reading, or ``None``."""
        return await owned(self._offload.run(self._open, name))

    def _open(self, name: str) -> WholeFile | None:
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        return WholeFile(descriptor, os.fstat(descriptor).st_size, None)

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
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            try:
                made = produce(file)  # type: ignore[arg-type]  # a wrapper with all its methods
                file.flush()
                os.fsync(file.fileno())
                os.rename(file.name, self._folder / name)
            except BaseException:
                os.unlink(file.name)
                raise
        return made

    async def keep_only(self, start: str) -> None:
        """Remove all files whose names do not begin with *start*, as far as possible; open readers keep what they have."""
        await self._offload.run(self._keep_only, start)

    def _keep_only(self, start: str) -> None:
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                if not entry.name.startswith(start):
                    os.unlink(entry.path)

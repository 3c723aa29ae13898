"""Files in memory (``memfd``), for what the disk does not take: of a bounded size, read by as many as want to."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from proxy.errors import is_of_the_disk
from proxy.settings import MIB
from proxy.storage.whole import WholeFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class BoundedMemory(io.FileIO):
    """A file in memory of at most *limit* bytes, open for reading and writing; what is too much raises OSError (ENOSPC)."""

    def __init__(self, limit: int) -> None:
        super().__init__(os.memfd_create("held"), "r+b")
        self._limit = limit

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self.fileno()).st_size

    def write(self, data: ReadableBuffer, /) -> int:
        if self.tell() + memoryview(data).nbytes > self._limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)

    def reader(self) -> WholeFile:
        """The file as it is, with a position of its own."""
        return WholeFile(os.open(f"/proc/self/fd/{self.fileno()}", os.O_RDONLY | os.O_CLOEXEC), self.size, None)


class MovingFile(io.RawIOBase):
    """A file without a name, for reading and writing: the one that *on_disk* makes or, when the disk refuses, one in memory.

    *left* tells how many bytes that one may have.  Everything here blocks.
    """

    def __init__(self, on_disk: Callable[[], BinaryIO], left: Callable[[], int]) -> None:
        self._left = left
        self._file: BinaryIO | BoundedMemory
        try:
            self._file = on_disk()
        except OSError as error:
            if not is_of_the_disk(error):
                raise
            self._file = BoundedMemory(left())

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        data = self._file.read(memoryview(buffer).nbytes)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of *data*, at the end.  Raises OSError when neither disk nor memory takes it."""
        position = self._file.tell()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if not is_of_the_disk(error) or isinstance(self._file, BoundedMemory):
                raise
            self._move(position)
            self._file.write(data)
        return memoryview(data).nbytes

    def _move(self, size: int) -> None:
        """Have the first *size* bytes, and what follows, in memory."""
        disk, memory = self._file, BoundedMemory(self._left())
        try:
            disk.seek(0)
            while memory.tell() < size:
                memory.write(disk.read(min(MIB, size - memory.tell())))
        except BaseException:
            memory.close()
            raise
        self._file = memory
        disk.close()

    def close(self) -> None:
        self._file.close()
        super().close()

"""Files in memory (``memfd``), for what the disk does not take: of a bounded size in all, read by as many as want to.

Everything here blocks, and may be used from any thread: who is not waited for any more may be closed while a worker thread
writes, and the number of its descriptor belongs to another file then.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from proxy.errors import is_of_the_disk
from proxy.settings import MIB
from proxy.storage.whole import WholeFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Allowance:
    """What several files may have in memory together: *total* bytes."""

    def __init__(self, total: int) -> None:
        self._left = total
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Have *size* bytes more in memory.  Raises OSError (ENOSPC) when that is too much."""
        with self._lock:
            if size > self._left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._left -= size

    def give_back(self, size: int) -> None:
        """Have *size* bytes less."""
        with self._lock:
            self._left += size


class MemoryFile(io.FileIO):
    """A file in memory, open for reading and for writing at its end.  Its size is taken from *allowance* until it is closed."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(os.memfd_create("held"), "r+b")
        self._allowance = allowance
        self.size = 0

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of *data*.  Raises OSError when that is more than is allowed."""
        more = self.tell() + memoryview(data).nbytes - self.size
        if more > 0:
            self._allowance.take(more)
            self.size += more
        return super().write(data)

    def reader(self) -> WholeFile:
        """The file as it is, with a position of its own."""
        return WholeFile(os.open(f"/proc/self/fd/{self.fileno()}", os.O_RDONLY | os.O_CLOEXEC), self.size, None)

    def close(self) -> None:
        if not self.closed:
            self._allowance.give_back(self.size)
        super().close()


class MovingFile(io.RawIOBase):
    """A file without a name, for reading and writing: the one that *on_disk* makes or, when the disk refuses, one in memory."""

    def __init__(self, on_disk: Callable[[], BinaryIO], allowance: Allowance) -> None:
        self._allowance = allowance
        self._lock = threading.Lock()
        self._file: BinaryIO | MemoryFile
        try:
            self._file = on_disk()
        except OSError as error:
            if not is_of_the_disk(error):
                raise
            self._file = MemoryFile(allowance)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with self._lock:
            data = self._file.read(memoryview(buffer).nbytes)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with self._lock:
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        with self._lock:
            return self._file.tell()

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of *data*, at the end.  Raises OSError when neither disk nor memory takes it."""
        with self._lock:
            position = self._file.tell()
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                if not is_of_the_disk(error) or isinstance(self._file, MemoryFile):
                    raise
                self._move(position)
                self._file.write(data)
        return memoryview(data).nbytes

    def _move(self, size: int) -> None:
        """Have the first *size* bytes, and what follows, in memory."""
        disk, memory = self._file, MemoryFile(self._allowance)
        try:
            disk.seek(0)
            while memory.size < size:
                memory.write(disk.read(min(MIB, size - memory.size)))
        except BaseException:
            memory.close()
            raise
        self._file = memory
        disk.close()

    def close(self) -> None:
        """Close it when nobody reads or writes any more."""
        with self._lock:
            self._file.close()
        super().close()

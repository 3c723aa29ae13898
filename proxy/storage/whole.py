"""A whole file that is open for reading."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from zope.interface import implementer

from proxy.interfaces import IBytesSource


def anonymous(data: bytes, sha256: str) -> WholeFile:
    """*data* as a file without a name, in memory."""
    descriptor = os.memfd_create(sha256)
    os.pwrite(descriptor, data, 0)
    return WholeFile(descriptor, len(data), sha256, data)


def open_regular(path: Path) -> WholeFile | None:
    """The regular file at *path*; ``None`` for anything else, which must not keep a thread waiting."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        return None
    return WholeFile(descriptor, facts.st_size, None)


@implementer(IBytesSource)
class WholeFile:
    """All its bytes are there: there is nothing to wait for.  *data* are these bytes, if they have been read."""

    def __init__(self, descriptor: int, size: int, sha256: str | None, data: bytes | None = None) -> None:
        self._descriptor = descriptor
        self._data = data
        self.size = size
        self.sha256 = sha256

    def fileno(self) -> int:
        return self._descriptor

    def take_read(self) -> bytes | None:
        data, self._data = self._data, None
        return data

    def confine(self, start: int, stop: int) -> None:
        pass

    def extent(self) -> int:
        return self.size

    def from_memory(self, position: int, limit: int) -> bytes:
        return b""

    def ended(self) -> bool:
        return True

    def advanced(self, position: int) -> None:
        pass

    def confirm(self) -> None:
        pass

    def on_change(self, listener: Callable[[], None]) -> None:
        listener()

    def another(self) -> IBytesSource | None:
        return None if self._descriptor < 0 else WholeFile(os.dup(self._descriptor), self.size, self.sha256)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

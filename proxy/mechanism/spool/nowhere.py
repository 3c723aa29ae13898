"""An arriving file that could not be begun on the disk: it takes no byte, so that all of them go to the clients only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

from zope.interface import implementer

from proxy.errors import FULL
from proxy.interfaces import IPartialFile


@implementer(IPartialFile)
class Nowhere:
    """Every write fails with the *error* of the beginning; for want of room with ``EFBIG``: making some now would not help."""

    def __init__(self, error: OSError) -> None:
        number = errno.EFBIG if error.errno in FULL else error.errno
        self._error = number, error.strerror or str(error)
        self._descriptor = os.memfd_create("nowhere")
        self.size = 0
        self.marks: Mapping[int, str] = {}
        self.whole = None

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> None:
        raise OSError(*self._error)

    def copy(self, descriptor: int, size: int) -> None:
        raise OSError(*self._error)

    def truncate(self, size: int = 0) -> None:
        pass

    def mark(self, sha256: str, whole: int | None) -> None:
        pass

    def unchanged(self, descriptor: int) -> bool:
        return True

    def read_all(self) -> Iterator[bytes]:
        return iter(())

    def commit(self, sha256: str) -> None:
        raise OSError(*self._error)

    def discard(self) -> None:
        pass

    def suspend(self) -> None:
        pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

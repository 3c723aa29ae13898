"""An arriving file that the disk had no room to begin: it takes no byte, so that all of them go to the clients only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

from zope.interface import implementer

from proxy.interfaces import IPartialFile


@implementer(IPartialFile)
class Nowhere:
    """Every write fails for the *reason* given, with ``EFBIG``: no room that is made now would help."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._descriptor = os.memfd_create("nowhere")
        self.size = 0
        self.marks: Mapping[int, str] = {}
        self.whole = None

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> None:
        raise OSError(errno.EFBIG, self._reason)

    def truncate(self, size: int = 0) -> None:
        pass

    def mark(self, sha256: str, whole: int | None) -> None:
        pass

    def read_all(self) -> Iterator[bytes]:
        return iter(())

    def commit(self, sha256: str) -> None:
        raise OSError(errno.EFBIG, self._reason)

    def discard(self) -> None:
        pass

    def suspend(self) -> None:
        pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

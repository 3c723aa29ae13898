"""Stored files for those who only read, beside a proxy that works on them."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from zope.interface import implementer

from proxy.errors import StorageFailed
from proxy.interfaces import IBytesSource, IFileStore, IOffload
from proxy.storage.local import LocalFiles


def _refuse(folder: Path) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))


@implementer(IFileStore)
class ReadFiles(LocalFiles):
    """The tree under *root*, in which nothing is created, changed or removed: what would be stored finds a read-only disk."""

    def __init__(self, root: Path, offload: IOffload) -> None:
        super().__init__(root, offload, prepare=_refuse)

    async def delete(self, sha256: str) -> bool:
        raise StorageFailed(f"{self.path(sha256)} is not removed: another process works on it")

    async def set_aside(self, sha256: str, source: IBytesSource | None = None) -> None:
        _refuse(self.path(sha256))

    async def touch(self, times: Mapping[str, float]) -> None:
        pass

    async def sweep(self) -> int:
        return 0

    async def abandon(self, before: float) -> int:
        return 0

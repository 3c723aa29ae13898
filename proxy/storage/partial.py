"""A file that arrives on the local disk, under ``partial/``.

Beside one that may be gone on with, ``<key>.marks`` notes the digest of its bytes as it grows, so that the next download can
tell what an interruption, a power failure or a faulty disk left of it.  Everything here runs in a worker thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import implementer

from proxy.expressions import expression
from proxy.interfaces import IPartialFile
from proxy.settings import MIB
from proxy.storage.checked import mark_of, same_bytes, settled
from proxy.storage.copying import copy_bytes
from proxy.storage.syncing import sync

if TYPE_CHECKING:
    from proxy.storage.local import LocalFiles

#: Bytes so far, their sha256, bytes in all if that is known.
_MARK = expression(r"([0-9]{1,19}) ([0-9a-f]{64}) ([0-9]{1,19}|-)")
#: What is noted beside a partial file has its name and this.
MARKS = ".marks"


@implementer(IPartialFile)
class LocalPartial:
    """A file under ``partial/``, written at its end."""

    def __init__(self, store: LocalFiles, path: Path, *, resume: bool) -> None:
        self._store = store
        self._path = path
        self._marks_path = path.with_name(path.name + MARKS)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if resume else os.O_TRUNC)
        self._descriptor = os.open(path, flags, 0o600)
        self.size = os.fstat(self._descriptor).st_size
        # To an empty file nothing can be added behind our back without another size.
        self._mark = settled(self._descriptor) if self.size else mark_of(os.fstat(self._descriptor))
        self._committed_as: str | None = None
        #: Others have written to it.
        self._foreign = False
        self.marks, self.whole = _read_marks(self._marks_path) if resume and self.size else ({}, None)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes) -> None:
        self._foreign = self._foreign or not same_bytes(mark_of(os.fstat(self._descriptor)), self._mark)
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, self.size)
                self.size += written
                rest = rest[written:]
        except OSError as error:
            self._store.failed(error, self._path, self.size + len(rest))
            raise
        finally:
            # A disk that is full may have taken a part of it: that was not written by others.
            self._mark = settled(self._descriptor)

    def copy(self, descriptor: int, size: int) -> None:
        self._foreign = self._foreign or not same_bytes(mark_of(os.fstat(self._descriptor)), self._mark)
        try:
            self.size += copy_bytes(descriptor, self._descriptor, self.size, size)
        except OSError as error:
            self._store.failed(error, self._path, self.size + size)
            raise
        finally:
            self._mark = settled(self._descriptor)

    def truncate(self, size: int = 0) -> None:
        os.ftruncate(self._descriptor, size)
        self.size = size
        self._mark = settled(self._descriptor)
        self._foreign = self._foreign and size > 0

    def unchanged(self, descriptor: int) -> bool:
        mark = mark_of(os.fstat(descriptor))
        if self._foreign:
            return False
        return same_bytes(mark, self._mark) or (self._committed_as is not None and self._store.proven(self._committed_as, mark))

    def mark(self, sha256: str, whole: int | None) -> None:
        with suppress(OSError):  # without it the next download begins a little earlier
            descriptor = os.open(self._marks_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, f"{self.size} {sha256} {'-' if whole is None else whole}\n".encode())
            finally:
                os.close(descriptor)

    def read_all(self) -> Iterator[bytes]:
        for offset in range(0, self.size, MIB):
            yield os.pread(self._descriptor, min(MIB, self.size - offset), offset)

    def commit(self, sha256: str) -> None:
        if self._foreign:
            raise self._written_by_others()
        target = self._store.path(sha256)
        try:
            os.fsync(self._descriptor)
            self._store.prepare(target.parent)
            if not self._store.place(self._path, target, self._descriptor, self._mark):
                raise self._written_by_others()
            self._committed_as = sha256
            with suppress(OSError):  # nobody needs them any more
                self._marks_path.unlink(missing_ok=True)
            sync(target.parent)
        except OSError as error:
            self._store.failed(error, target)
            raise

    def _written_by_others(self) -> OSError:
        return OSError(errno.EIO, "others have written to the file while it arrived", str(self._path))

    def discard(self) -> None:
        for path in (self._path, self._marks_path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._store.failed(error, path)

    def suspend(self) -> None:
        pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._store.written(self._path)


def _read_marks(path: Path) -> tuple[dict[int, str], int | None]:
    """The digests (sha256) of the beginnings of a partial file, by their lengths, and the size of the whole if it is known.

    Lines that make no sense are passed over.
    """
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        lines = []
    found = [match for line in lines if (match := _MARK.fullmatch(line)) is not None]
    whole = int(found[-1][3]) if found and found[-1][3] != "-" else None
    return {int(match[1]): match[2] for match in found}, whole

"""METADATA out of a wheel of which only parts are at hand (PEP 427, PEP 658): what is missing is asked for by its position."""

from __future__ import annotations

import bisect
import io
import lzma
import os
import re
import struct
import zipfile
import zlib

from proxy.names import normalize, project_of
from proxy.settings import MIB

_METADATA = re.compile(r"([^/]+)-[^/-]+\.dist-info/METADATA")
#: What unpacking fails with when the archive is damaged, or packed as nobody can undo here.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
#: The largest METADATA, and the largest piece of a wheel that is read to find it (bytes).
_LARGEST = 16 * MIB
_LARGEST_PIECE = 32 * MIB


class Unreadable(Exception):
    """The file is no wheel with a METADATA that can be read; ``str()`` says why."""


class Absent(Exception):
    """Bytes *start* to *stop* (exclusive) are needed and not at hand."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"bytes {start} to {stop}")
        self.start = start
        self.stop = stop


class _Positioned(io.RawIOBase):
    """A file of *size* bytes that is read at any position."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._position = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise OSError("seek before the beginning")
        self._position = origin + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size < 0 else min(self.size, self._position + size)
        data = self._bytes(self._position, stop) if stop > self._position else b""
        self._position += len(data)
        return data

    def _bytes(self, start: int, stop: int) -> bytes:
        raise NotImplementedError


class OpenFile(_Positioned):
    """The file behind *descriptor*, which others may be reading at other positions."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(size)
        self._descriptor = descriptor

    def _bytes(self, start: int, stop: int) -> bytes:
        return os.pread(self._descriptor, stop - start, start)


class SparseFile(_Positioned):
    """A file as far as it is at hand.  Reading what is not raises Absent."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._starts: list[int] = []
        self._pieces: list[bytes] = []

    def add(self, start: int, data: bytes) -> None:
        """Have *data* at *start*."""
        at = bisect.bisect(self._starts, start)
        self._starts.insert(at, start)
        self._pieces.insert(at, data)

    def _bytes(self, start: int, stop: int) -> bytes:
        found = bytearray()
        while start + len(found) < stop:
            position = start + len(found)
            at = bisect.bisect(self._starts, position) - 1
            inside = position - self._starts[at] if at >= 0 else 0
            if at < 0 or inside >= len(self._pieces[at]):
                raise Absent(position, stop)
            found += self._pieces[at][inside : inside + stop - position]
        return bytes(found)


def read_metadata(file: io.RawIOBase, filename: str) -> bytes:
    """The METADATA of the wheel *filename* in *file*.  Blocks.  Raises Unreadable; Absent when more of it is needed."""
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.getinfo(_entry(archive.namelist(), filename))
            if entry.file_size > _LARGEST:
                raise Unreadable(f"its METADATA has {entry.file_size:,} bytes")
            data = archive.read(entry)
    except Absent as absent:
        if absent.stop - absent.start > _LARGEST_PIECE:
            raise Unreadable(f"{absent.stop - absent.start:,} bytes of it are needed at once") from absent
        raise
    except _DAMAGED as error:
        raise Unreadable(f"it cannot be unpacked: {error}") from error
    return data


def _entry(names: list[str], filename: str) -> str:
    """The name of the METADATA of the project that *filename* names, if others are packed with it."""
    found = [match for name in names if (match := _METADATA.fullmatch(name)) is not None]
    if len(found) > 1:
        project = project_of(filename)
        found = [match for match in found if normalize(match[1]) == project]
    if len(found) != 1:
        raise Unreadable(f"it has {'no' if not found else 'more than one'} .dist-info/METADATA")
    return found[0][0]

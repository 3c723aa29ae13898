"""PKG-INFO out of a source archive (PEP 625, PEP 643)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from proxy.core.wheels import Unreadable
from proxy.names import kind_of, packing_of
from proxy.settings import MIB

_PKG_INFO = re.compile(r"(?:\./)?[^/]+/PKG-INFO")
#: The largest PKG-INFO, and what an archive may unpack to on the way to it (bytes).
_LARGEST = 16 * MIB
_MOST_UNPACKED = 256 * MIB
#: From this version of the format on, what is not called dynamic holds for every wheel that is built of the archive (PEP 643).
_RELIABLE = "2.2"

#: By :func:`proxy.names.packing_of`; a zip file is no stream.
_OPENERS: Mapping[str, Callable[[Any], Any]] = {
    "tar.gz": gzip.open,
    "tar.bz2": bz2.open,
    "tar.xz": lzma.open,
    "tar": lambda file: file,
}


def is_sdist(filename: str) -> bool:
    """Whether *filename* is that of an archive which :func:`read_pkg_info` can look into."""
    return kind_of(filename) == "sdist" and packing_of(filename) is not None


def read_pkg_info(file: io.RawIOBase, filename: str) -> bytes:
    """The PKG-INFO of the source archive *filename* in *file*.  Blocks.  Raises Unreadable."""
    try:
        return _from_zip(file) if packing_of(filename) == "zip" else _from_tar(file, filename)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        OSError,
        EOFError,
        ValueError,
    ) as error:
        raise Unreadable(f"it cannot be unpacked: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        raise Unreadable(f"it is packed in a way that is not known here: {error}") from error


def is_reliable(pkg_info: bytes) -> bool:
    """Whether *pkg_info* holds for what is built of its archive: nothing in it is left to the build (PEP 643)."""
    # Loaded with the first one.
    from packaging.metadata import parse_email
    from packaging.version import Version

    raw, _ = parse_email(pkg_info)
    try:
        version = Version(raw.get("metadata_version", "0"))
    except ValueError:
        return False
    return version >= Version(_RELIABLE) and not raw.get("dynamic")


def _from_zip(file: io.RawIOBase) -> bytes:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if _PKG_INFO.fullmatch(entry.filename):
                _check_size(entry.file_size)
                return archive.read(entry)
    raise Unreadable("it has no PKG-INFO")


def _from_tar(file: io.RawIOBase, filename: str) -> bytes:
    opener = _OPENERS[packing_of(filename) or "tar"]
    file.seek(0)
    with tarfile.open(fileobj=_Bounded(opener(file)), mode="r|") as archive:
        for member in archive:
            if member.isfile() and _PKG_INFO.fullmatch(member.name):
                _check_size(member.size)
                found = archive.extractfile(member)
                assert found is not None
                return found.read()
    raise Unreadable("it has no PKG-INFO")


def _check_size(size: int) -> None:
    if size > _LARGEST:
        raise Unreadable(f"its PKG-INFO has {size:,} bytes")


class _Bounded(io.RawIOBase):
    """Reads *stream* and refuses to go on for ever: little can unpack to very much."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = _MOST_UNPACKED

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable(f"it unpacks to more than {_MOST_UNPACKED:,} bytes")
        return data

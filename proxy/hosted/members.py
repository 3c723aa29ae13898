"""What holds for the members of every archive: names that stay inside, and limits that no sound archive comes near."""

from __future__ import annotations

import re

from msgspec import Struct

from proxy.errors import BadUpload
from proxy.settings import KIB, MIB

#: Control characters and what other systems take for a separator or a drive.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")
#: Characters of a client's text that an error repeats.
_SHOWN = 100
#: The largest METADATA, WHEEL, RECORD and PKG-INFO that is looked at (bytes).
LONGEST_TEXT = 16 * MIB


class ArchiveLimits(Struct, frozen=True):
    """What an archive may have: *entries*, bytes that these unpack to, and *names*, the bytes of all their names.

    An archive that unpacks to more than *harmless* bytes may unpack to *ratio* times its size.
    """

    entries: int = 200_000
    unpacked: int = 16 * 1024 * MIB
    names: int = 16 * MIB
    ratio: int = 50
    harmless: int = 64 * MIB


STANDARD_LIMITS = ArchiveLimits()
#: Bytes that are unpacked at a time, and bytes that are read for it.
UNPACKED_PIECE, PACKED_PIECE = 256 * KIB, 64 * KIB


class Bounds:
    """Counts what an archive of *packed* bytes unpacks to, and its entries.  Raises BadUpload when it is too much."""

    def __init__(self, packed: int, limits: ArchiveLimits) -> None:
        self._packed = packed
        self._limits = limits
        self._unpacked = 0
        self._entries = 0
        self._names = 0

    def entry(self, name: str | bytes) -> None:
        """Count an entry."""
        self._entries += 1
        self._names += len(name)
        if self._entries > self._limits.entries:
            raise BadUpload(f"it has more than {self._limits.entries:,} entries")
        if self._names > self._limits.names:
            raise BadUpload(f"the names of its entries have more than {self._limits.names:,} bytes")

    def unpacked(self, count: int) -> None:
        """Count bytes."""
        self._unpacked += count
        if self._unpacked > self._limits.unpacked:
            raise BadUpload(f"it unpacks to more than {self._limits.unpacked:,} bytes")
        if self._unpacked > max(self._limits.harmless, self._limits.ratio * self._packed):
            raise BadUpload(f"it unpacks to more than {self._limits.ratio} times its size")


def shown_name(name: str) -> str:
    """*name* as an error repeats it."""
    return repr(name[:_SHOWN])


def check_name(name: str) -> None:
    """Raise BadUpload unless *name* is a relative path that leads to something below the archive's root.

    A slash at its end is the mark of a folder.
    """
    segments = name.removesuffix("/").split("/")
    if _UNSAFE.search(name) or any(each in ("", ".", "..") for each in segments):
        raise BadUpload(f"its entry {shown_name(name)} is no path inside of it")

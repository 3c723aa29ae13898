"""The system's page cache: whether a part of a file is in it, and bringing it there."""

from __future__ import annotations

import os

from proxy.settings import KIB, MIB

#: Bytes that the system reads ahead at least (``read_ahead_kb``).
_RUN = 128 * KIB


def is_cached(descriptor: int, start: int, stop: int) -> bool:
    """Whether the bytes from *start* to *stop* can be read without waiting for a disk (where the file system can tell).

    Disks are read in runs of :data:`_RUN` bytes: one byte of each tells.
    """
    byte = [bytearray(1)]
    try:
        return all(
            os.preadv(descriptor, byte, position, os.RWF_NOWAIT) == 1 for position in (*range(start, stop - 1, _RUN), stop - 1)
        )
    except OSError:
        return False


def read_in(descriptor: int, start: int, stop: int) -> None:
    """Bring a part of a file into the page cache (blocks).  Closes *descriptor*."""
    try:
        for position in range(start, stop, MIB):
            os.pread(descriptor, min(MIB, stop - position), position)
    finally:
        os.close(descriptor)

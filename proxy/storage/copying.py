"""Copies of files that share blocks with the original where the file system can, and are copied by the kernel elsewhere."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from proxy.settings import MIB

#: What is copied in one call, so that a thread that is told to stop need not wait for gigabytes (bytes).
_PIECE = 64 * MIB
#: What the kernel says where it cannot copy between two files: other file systems, or an old one.
_NOT_BETWEEN_THESE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY, errno.EPERM)


def copy_bytes(source: int, target: int, position: int, size: int) -> int:
    """Copy the first *size* bytes behind the descriptor *source* to *position* of *target*; how many it had.

    Blocks.  Raises OSError.
    """
    copied = 0
    with suppress(_Unsupported):
        while copied < size:
            count = _copied_by_kernel(source, target, copied, position + copied, min(_PIECE, size - copied))
            if not count:
                return copied
            copied += count
    while copied < size and (data := os.pread(source, min(MIB, size - copied), copied)):
        rest = memoryview(data)
        while rest:
            written = os.pwrite(target, rest, position + copied)
            copied += written
            rest = rest[written:]
    return copied


class _Unsupported(Exception):
    """The kernel cannot copy between these."""


def _copied_by_kernel(source: int, target: int, start: int, position: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, start, position)
    except OSError as error:
        if error.errno in _NOT_BETWEEN_THESE:
            raise _Unsupported from error
        raise

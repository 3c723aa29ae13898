"""Whether somebody is still writing to a file: Linux tells, on a local file system, by refusing a lease (fcntl(2))."""

from __future__ import annotations

import errno
import fcntl
import signal
from contextlib import suppress


def is_being_written(descriptor: int) -> bool | None:
    """Whether anybody has the file behind *descriptor*, which is open for reading only, open for writing.

    ``None`` where that is not to be known: a file of another user, a file system without leases.
    """
    try:
        # Who opens it at this very moment makes the kernel send a signal: one that is ignored unless somebody wants it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno in (errno.EAGAIN, errno.EBUSY) else None
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False

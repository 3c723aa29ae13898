"""Telling the service manager that the proxy serves, so that what is ordered after it finds it there, that it reads its
configuration again, and that it stops.  See sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time

from twisted.logger import Logger

_log = Logger()


#: Seconds that a stop takes beyond what may be drained: writing down what is in memory, closing the databases.
_CLOSES_WITHIN = 20.0


def tell_ready() -> None:
    """Send ``READY=1``: the proxy serves.

    A manager that cannot be told is logged: it may end the process, which serves nevertheless.
    """
    error = _sent("READY=1")
    if error is not None:
        _log.warn(
            'the service manager at NOTIFY_SOCKET="{name}" cannot be told that the proxy serves: {reason}; it serves anyway',
            name=os.environ["NOTIFY_SOCKET"],
            reason=error.strerror or error,
        )


def tell_reloading() -> None:
    """Send ``RELOADING=1``: the proxy reads its configuration again, which `tell_ready` ends."""
    error = _sent(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    if error is not None:
        _log.debug("the service manager cannot be told of a reload: {reason}", reason=error.strerror or error)


def tell_stopping(within: float) -> None:
    """Send ``STOPPING=1``: the proxy stops, and its last responses may take *within* seconds.

    The manager waits for that, whatever its own limit is.
    """
    microseconds = int((within + _CLOSES_WITHIN) * 1_000_000)
    error = _sent(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}")
    if error is not None:
        _log.debug("the service manager cannot be told that the proxy stops: {reason}", reason=error.strerror or error)


def _sent(words: str) -> OSError | None:
    """Send *words* to the socket that ``NOTIFY_SOCKET`` names; why that fails.

    Does nothing where there is no service manager that asks.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return None
    # "@" stands for the zero byte that begins names outside the file system.
    address = f"\0{name[1:]}" if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            manager.sendto(words.encode(), address)
    except OSError as error:
        return error
    return None

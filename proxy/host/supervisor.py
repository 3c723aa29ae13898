"""Telling the service manager that the proxy serves (sd_notify(3)), so that what is ordered after it finds it there."""

from __future__ import annotations

import os
import socket

from twisted.logger import Logger

_log = Logger()


def tell_ready() -> None:
    """Send ``READY=1`` to the socket that ``NOTIFY_SOCKET`` names.  Does nothing where there is no service manager that asks.

    A manager that cannot be told is logged: it may end the process, which serves nevertheless.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    # "@" stands for the zero byte that begins names outside the file system.
    address = f"\0{name[1:]}" if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            manager.sendto(b"READY=1", address)
    except OSError as error:
        _log.warn(
            'the service manager at NOTIFY_SOCKET="{name}" cannot be told that the proxy serves: {reason}; it serves anyway',
            name=name,
            reason=error.strerror or error,
        )

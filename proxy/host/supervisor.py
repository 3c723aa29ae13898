"""Telling the service manager that the proxy serves, so that what is ordered after it finds it there, that it is alive, that it
reads its configuration again, and that it stops.  See sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from twisted.internet.task import LoopingCall
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


class Watchdog:
    """Tells the manager that the reactor turns (``WATCHDOG=1``), if it wants to be told: it restarts what does not.

    How often, ``WATCHDOG_USEC`` says; half of that is between two messages.  They come from the reactor itself: one that is
    stuck sends none, whatever other threads do.
    """

    def __init__(self, reactor: Any) -> None:
        self._within = _watched_within()
        self._loop = LoopingCall(self._tell)
        self._loop.clock = reactor
        self._told_of_failure = False

    def start(self) -> None:
        """Tell it from now on, until `stop`.  Does nothing if no manager wants to know."""
        if self._within is not None:
            self._loop.start(self._within / 2)

    def stop(self) -> None:
        """Tell it no more."""
        if self._loop.running:
            self._loop.stop()

    def _tell(self) -> None:
        error = _sent("WATCHDOG=1")
        if error is not None and not self._told_of_failure:
            _log.warn(
                "the service manager cannot be told that the proxy is alive: {reason}; it may end the process for that",
                reason=error.strerror or error,
            )
        self._told_of_failure = error is not None


def _watched_within() -> float | None:
    """Seconds within which the manager wants to hear of this process; ``None`` if it does not."""
    wanted, of = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted or not os.environ.get("NOTIFY_SOCKET") or (of and of != str(os.getpid())):
        return None
    if not (wanted.isascii() and wanted.isdecimal() and int(wanted)):
        _log.warn('WATCHDOG_USEC="{wanted}" is no number of microseconds, and is ignored', wanted=wanted)
        return None
    return int(wanted) / 1_000_000


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

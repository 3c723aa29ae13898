"""Accepting connections: a port pauses for a moment while the process has no file descriptor for another connection.

Without a descriptor ``accept`` fails, and the connection that waits makes the port readable again at once, so that the process
would do nothing else.  The reactor watches :class:`Accepting` in place of the port, which tests for a descriptor before it lets
the port accept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: Pause until descriptors are looked for again (seconds), and between two log lines about it.
_PAUSE = 0.1
_TELL_EVERY = 60.0
#: Connections that are accepted in one turn of the reactor: whoever counts them can stop in time.
_AT_ONCE = 16

_log = Logger(namespace="proxy.host.listening")


@implementer(IReadDescriptor)
class Accepting:
    """Accepts for *port*, which listens already, until `stop`.

    *short* is called when there is no descriptor for the connection that waits: it may close another one.
    """

    def __init__(self, port: Any, reactor: Any, short: Callable[[], None]) -> None:
        self._port = port
        self._reactor = reactor
        self._short = short
        self._held = False
        self._pause: IDelayedCall | None = None
        self._told: float | None = None
        port.stopReading()
        reactor.addReader(self)

    def hold(self) -> None:
        """Let connections wait in the kernel."""
        self._held = True
        self._reactor.removeReader(self)

    def go_on(self) -> None:
        """Accept again."""
        self._held = False
        if self._pause is None:
            self._reactor.addReader(self)

    def stop(self) -> None:
        """Accept no more; the port is still to be closed."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._reactor.removeReader(self)

    # -- what the reactor asks for

    def fileno(self) -> int:
        number: int = self._port.fileno()
        return number

    def logPrefix(self) -> str:
        prefix: str = self._port.logPrefix()
        return prefix

    def doRead(self) -> Any:
        try:
            os.close(os.dup(self.fileno()))
        except OSError as error:
            self._wait(error)
            return None
        self._port.numberAccepts = _AT_ONCE
        return self._port.doRead()

    def connectionLost(self, reason: Failure) -> None:
        self._port.connectionLost(reason)

    def _wait(self, error: OSError) -> None:
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(_PAUSE, self._waited)
        now = self._reactor.seconds()
        if self._told is None or now - self._told >= _TELL_EVERY:
            self._told = now
            _log.warn(
                "no connection can be accepted: {reason}; raise the limit of open files (LimitNOFILE)", reason=error.strerror
            )
        self._short()

    def _waited(self) -> None:
        self._pause = None
        if not self._held:
            self._reactor.addReader(self)

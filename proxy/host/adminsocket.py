"""Where the admin interface is: a Unix socket in the data directory, for the user who runs the proxy and nobody else.

Whoever listens holds the lock of the data directory, so a socket that is there already is that of a proxy that was killed.  A
directory that takes no socket now (the disk is full, or read-only) is tried again at each look: commands have to wait, builds
have not.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.tcp import Port as TCPPort
from twisted.internet.unix import Port
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.troubles import Reason, Trouble
from proxy.errors import FOR_NOW, ConfigError
from proxy.host.adminaddress import NAME, address

#: What a directory may refuse a socket for that was fit for one before.
_FOR_NOW = (*FOR_NOW, errno.EACCES, errno.EPERM, errno.ENOENT)


class _Port(Port):
    """Twisted's port, which stays open for ever when its path cannot be removed, as on a disk that was taken away."""

    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)
        except OSError:
            TCPPort.connectionLost(self, reason)


class AdminSocket(Service):
    """Serves *factory* at the socket in *data_dir*, from `open` (or the start of the service) until it is stopped.

    *ours* says whether that is the right directory; in another one no socket is made.
    """

    log = Logger()

    def __init__(self, data_dir: Path, factory: Any, reactor: Any, ours: Callable[[], bool]) -> None:
        self._ours = ours
        self.path = data_dir / NAME
        self._factory = factory
        self._reactor = reactor
        self._port: _Port | None = None
        self._held = ExitStack()

    def open(self) -> None:
        """Bind now, unless that is done.  Raises ConfigError for a directory that can never have a socket in it."""
        try:
            self._open()
        except OSError as error:
            if error.errno not in _FOR_NOW:
                raise ConfigError(
                    f'"{self.path}": the admin socket cannot be made: {error}; expected a directory of a local file system'
                ) from error
            self.log.error("commands cannot reach this proxy: {path} cannot be made: {error}", path=self.path, error=error)

    def _open(self) -> None:
        if self._port is not None:
            return
        if not self._ours():
            raise OSError(errno.ENOENT, "the data directory is not there")
        self._factory.noisy = False
        try:
            _remove_stale(self.path)
            name = self._held.enter_context(address(self.path.parent))
            # Twisted sets the mode between bind and listen: nobody can have connected before.
            port = _Port(os.fsencode(name), self._factory, mode=0o600, reactor=self._reactor)
            port.startListening()
        except CannotListenError as error:
            self._held.close()
            raise OSError(error.socketError.errno, error.socketError.strerror) from error
        except OSError:
            self._held.close()
            raise
        self._port = port

    async def look(self) -> Trouble | None:
        """Bind again if the socket is missing; what is wrong if that is not possible."""
        if not self.running:
            return None
        try:
            if self._port is not None and not self.path.is_socket():
                await self._closed()
            self._open()
        except OSError as error:
            return Trouble(Reason.COMMANDS, f"pypiproxy commands cannot reach this proxy ({error.strerror}): check the disk")
        return None

    def privilegedStartService(self) -> None:
        self.open()

    def startService(self) -> None:
        self.open()
        super().startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self._closed()

    def _closed(self) -> Deferred[None]:
        """Close the port, if it is open."""
        port, self._port = self._port, None
        closing = maybeDeferred(port.stopListening) if port is not None else succeed(None)
        return closing.addBoth(lambda _: self._held.close())


def _remove_stale(path: Path) -> None:
    """Remove the socket of an earlier process.  Raises OSError, also for what is no socket."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EADDRINUSE, f"{path.name} in the data directory is no socket: remove it")
        path.unlink()

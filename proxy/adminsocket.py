"""Where the admin interface is: a Unix socket in the data directory, for the user who runs the proxy and nobody else.

Whoever listens holds the lock of the data directory, so a socket that is there already is that of a proxy that was killed.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from proxy.accepting import Accepting
from proxy.errors import ConfigError

NAME = "admin.sock"
#: The longest path that the kernel takes as the address of a Unix socket (bytes, on Linux).
LONGEST = 107


@contextmanager
def address(data_dir: Path) -> Iterator[str]:
    """A name of the socket in *data_dir* that ``bind`` and ``connect`` take, good while the context lasts.

    A path that is too long for them is given by way of an open directory.  Raises OSError.
    """
    path = os.fspath(data_dir / NAME)
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def connect(data_dir: Path) -> socket.socket:
    """A connection to the proxy that runs on *data_dir*.

    Raises FileNotFoundError or ConnectionRefusedError when none does, and other OSErrors.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(data_dir) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


class AdminSocket(Service):
    """Serves *factory* at the socket in *data_dir*, from `open` (or the start of the service) until it is stopped."""

    def __init__(self, data_dir: Path, factory: Any, reactor: Any) -> None:
        self.path = data_dir / NAME
        self._factory = factory
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self._accepting: Accepting | None = None
        self._held = ExitStack()

    def open(self) -> None:
        """Bind now, unless that is done.  Raises ConfigError."""
        if self._port is not None:
            return
        self._factory.noisy = False
        try:
            _remove_stale(self.path)
            name = self._held.enter_context(address(self.path.parent))
            # Twisted sets the mode between bind and listen: nobody can have connected before.
            self._port = self._reactor.listenUNIX(name, self._factory, mode=0o600)
            self._accepting = Accepting(self._port, self._reactor, lambda: None)
        except (OSError, CannotListenError) as error:
            self._held.close()
            reason = error.socketError if isinstance(error, CannotListenError) else error
            raise ConfigError(
                f'"{self.path}": the admin socket cannot be made: {reason}; expected a directory of a local file system'
            ) from error

    def privilegedStartService(self) -> None:
        self.open()

    def startService(self) -> None:
        self.open()
        super().startService()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        port, self._port = self._port, None
        if self._accepting is not None:
            self._accepting.stop()
            self._accepting = None
        closing = maybeDeferred(port.stopListening) if port is not None else maybeDeferred(lambda: None)
        return closing.addBoth(self._closed)

    def _closed(self, _: object) -> None:
        self._held.close()


def _remove_stale(path: Path) -> None:
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass

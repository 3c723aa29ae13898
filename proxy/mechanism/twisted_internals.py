"""Everything of Twisted that has a private name: whoever needs it takes it from here, under a public one.

What belongs to its HTTP client is in :mod:`proxy.mechanism.twisted_client`.

``tests/test_twisted_internals.py`` says which of these a new version of Twisted lacks, or gives another meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.endpoints import _parse
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.filepath import FilePath
from twisted.web.http import _DataLoss

#: A body that ended before its coding or its length did (RFC 9112, section 8).
BodyCutOff = _DataLoss


def parsed_endpoint(description: str) -> tuple[list[str], dict[str, str]]:
    """The kind and the positional arguments of an endpoint, and its named ones.  Raises StopIteration for a last backslash."""
    positional, named = _parse(description)
    return positional, named


def unsent(connection: Connection) -> int:
    """How many bytes that were written to *connection* the kernel has not taken yet."""
    return len(connection.dataBuffer) - connection.offset + connection._tempDataLen


def encrypted_later(connection: TLSMemoryBIOProtocol) -> int:
    """How many bytes that were written to *connection* TLS has not encrypted yet."""
    return sum(map(len, connection._appSendBuffer))


class DirectoryEvents(Protocol):
    """An inotify descriptor (inotify(7)), as :mod:`twisted.internet.inotify` has it."""

    def startReading(self) -> None:
        """Tell of what happens from now on."""

    def watch(
        self, path: FilePath[str], mask: int, *, callbacks: Sequence[Callable[[object, FilePath[bytes], int], None]]
    ) -> object:
        """Tell *callbacks* of what happens in the directory *path*.  Raises INotifyError."""

    def ignore(self, path: FilePath[str]) -> None:
        """Tell of that no more.  Raises KeyError."""

    def end(self) -> None:
        """Close it."""


def directory_events(reactor: IReactorFDSet, forgotten: Callable[[], None]) -> DirectoryEvents:
    """A descriptor that goes on when one of its directories is removed, and calls *forgotten* when the kernel forgets events.

    Twisted's own ends with the first of its directories, and passes over what it is told of none.  Raises INotifyError, and
    ImportError where the system has nothing of the kind.
    """
    from twisted.internet.inotify import IN_Q_OVERFLOW, INotify

    overflow = struct.pack("=LLLL", 0xFFFFFFFF, IN_Q_OVERFLOW, 0, 0)

    class Lasting(INotify):
        def loseConnection(self) -> None:
            pass

        def end(self) -> None:
            super().loseConnection()

        def _doRead(self, data: bytes) -> None:
            # Where the same bytes are something else, one look too many is taken.
            if overflow in data:
                forgotten()
            super()._doRead(data)

    return Lasting(reactor)

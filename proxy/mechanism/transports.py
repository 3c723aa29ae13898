"""What is asked of Twisted's transports beyond their interfaces."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import TypeGuard

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol

from proxy.mechanism.twisted_internals import encrypted_later, unsent


def is_plain_socket(transport: ITransport) -> TypeGuard[Connection]:
    """Whether *transport* is a socket without TLS, which takes ``sendfile`` and can be closed in one direction."""
    return isinstance(transport, Connection) and not transport.TLS


def send_now(transport: ITransport, data: bytes) -> bytes:
    """Hand the kernel what it takes of *data* at once, which spares a turn of the reactor; return the rest.

    That is all of it when bytes are waiting that go before it, or when *transport* is not a plain socket.  A connection that
    turns out to be broken is aborted, and there is no rest.
    """
    if not isinstance(transport, Connection) or transport.TLS or unsent(transport):
        return data
    sent = transport.writeSomeData(data)
    if isinstance(sent, int) and sent >= 0:
        return data[sent:]
    transport.abortConnection()
    return b""


def send_file_now(transport: Connection, descriptor: int, position: int, count: int) -> int | None:
    """Hand the kernel what it takes of *count* bytes of the file *descriptor* at *position*; how many it took.

    ``None`` when it takes none now, or bytes are waiting that go before them; 0 at the end of the file.  A connection that
    turns out to be broken is aborted, and takes none.  Raises OSError when the file cannot be read.
    """
    if unsent(transport):
        return None
    try:
        return os.sendfile(transport.fileno(), descriptor, position, count)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
            raise
        transport.abortConnection()
        return None


def undelivered(transport: ITransport) -> int:
    """Bytes that were written to *transport* and have not reached the other system yet; 0 where nobody can tell."""
    held = 0
    lowest: object = transport
    while isinstance(lowest, TLSMemoryBIOProtocol):
        held += encrypted_later(lowest)
        lowest = lowest.transport
    if isinstance(lowest, Connection):
        held += unsent(lowest)
        with suppress(OSError, ValueError):  # it has just been closed
            held += struct.unpack("i", ioctl(lowest.fileno(), TIOCOUTQ, bytes(4)))[0]  # SIOCOUTQ, by its older name
    return held

"""What is asked of Twisted's transports beyond their interfaces."""

from __future__ import annotations

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection

from proxy.twisted_internals import unsent


def is_plain(transport: ITransport) -> bool:
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

"""What is taken from Twisted's transports beyond their interfaces: it has to be there, and mean what it did."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet import reactor
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport

from proxy.mechanism.transports import is_plain_socket, send_now, undelivered


class Pair:
    """A transport of Twisted on one end of a pair of sockets, and the other end."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.setblocking(False)
        self.transport = Connection(ours, None, reactor)  # type: ignore[arg-type]  # nobody is told anything
        self.transport.connected = True
        self.transport.startWriting = lambda: None  # type: ignore[method-assign]  # the reactor has no part in this
        self.transport.abortConnection = self._abort  # type: ignore[method-assign]
        self.aborted = False

    def _abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.transport.socket.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_what_the_socket_takes_leaves_at_once(pair: Pair) -> None:
    assert is_plain_socket(pair.transport)
    assert send_now(pair.transport, b"answer") == b""
    assert pair.peer.recv(100) == b"answer"


def test_what_it_does_not_take_is_returned(pair: Pair) -> None:
    data = bytes(8 << 20)
    rest = send_now(pair.transport, data)
    assert 0 < len(rest) < len(data)


def test_nothing_overtakes_what_is_waiting(pair: Pair) -> None:
    pair.transport.write(b"first")
    assert send_now(pair.transport, b"second") == b"second"
    pair.transport.doWrite()
    assert send_now(pair.transport, b"third") == b""
    assert pair.peer.recv(100) == b"firstthird"


def test_a_broken_connection_is_aborted(pair: Pair) -> None:
    pair.peer.close()
    assert send_now(pair.transport, b"answer") == b""
    assert pair.aborted


def test_what_was_written_is_unsent_until_the_other_side_has_it(pair: Pair) -> None:
    assert undelivered(pair.transport) == 0
    pair.transport.write(b"answer")
    assert undelivered(pair.transport) == 6
    pair.transport.doWrite()
    assert undelivered(pair.transport) > 0
    pair.peer.recv(100)
    assert undelivered(pair.transport) == 0
    pair.transport.socket.close()
    assert undelivered(pair.transport) == 0


def test_another_transport_is_left_to_itself() -> None:
    transport = StringTransport()
    assert not is_plain_socket(transport)
    assert send_now(transport, b"answer") == b"answer"
    assert transport.value() == b""
    assert undelivered(transport) == 0

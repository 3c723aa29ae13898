"""Cold load: many clients ask for one URL at the same moment, and each compares every byte it gets."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from bench.reply import Reply

_PIECE = 1 << 20
#: Seconds after which a client that is not done counts as failed.
_DEADLINE = 120.0


class Outcome(Struct, frozen=True):
    """What one client saw; times in seconds since it asked, ``None`` for what did not happen."""

    status: int
    first_byte: float | None
    done: float | None
    size: int
    right: bool


class _Client(Struct):
    connection: socket.socket
    reply: Reply
    first_byte: float | None = None
    done: float | None = None


def request(url: str, headers: Mapping[str, str]) -> bytes:
    """What a client that wants *url* sends (HTTP/1.1)."""
    parts = urlsplit(url)
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def herd(url: str, headers: Mapping[str, str], clients: int, expected: bytes | None) -> list[Outcome]:
    """Ask for *url* *clients* times at once over connections that are open already.

    The body must be *expected*, and state its length then; with ``None`` all bodies must be the same once they are decoded: the
    longest counts as right.
    """
    parts = urlsplit(url)
    address = (parts.hostname, parts.port)
    herded = [_Client(socket.create_connection(address, _DEADLINE), Reply(expected)) for _ in range(clients)]
    piece = bytearray(_PIECE)
    view = memoryview(piece)
    with selectors.DefaultSelector() as selector:
        for each in herded:
            each.connection.setblocking(False)
            selector.register(each.connection, selectors.EVENT_READ, each)
        began = time.perf_counter()
        for each in herded:
            each.connection.send(request(url, headers))
        left = clients
        while left and time.perf_counter() - began < _DEADLINE:
            for key, _ in selector.select(1.0):
                client: _Client = key.data
                try:
                    count = client.connection.recv_into(piece)
                except ConnectionError:
                    count = 0
                if count:
                    _take(client, view[:count], began)
                if not count or client.done is not None:
                    selector.unregister(client.connection)
                    left -= 1
    for each in herded:
        each.connection.close()
    if expected is None:
        # gzip notes the time: equal bodies may look different before they are decoded.
        decoded = [each.reply.decoded() for each in herded]
        right = max(decoded, key=len)
        for each, body in zip(herded, decoded, strict=True):
            each.reply.right = body == right
    return [
        Outcome(each.reply.status, each.first_byte, each.done, each.reply.position, each.reply.is_right()) for each in herded
    ]


def _take(client: _Client, data: memoryview, began: float) -> None:
    client.reply.take(data)
    if client.reply.position and client.first_byte is None:
        client.first_byte = time.perf_counter() - began
    if client.reply.done:
        client.done = time.perf_counter() - began

"""Cold load: many clients ask for one URL at the same moment, and each compares every byte it gets."""

from __future__ import annotations

import gzip
import selectors
import socket
import time
import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from attrs import define, field, frozen

_PIECE = 1 << 20
#: Seconds after which a client that is not done counts as failed.
_DEADLINE = 120.0


@frozen
class Outcome:
    """What one client saw; times in seconds since it asked, ``None`` for what did not happen."""

    status: int
    first_byte: float | None
    done: float | None
    size: int
    right: bool


@define
class _Client:
    connection: socket.socket
    head: bytes = b""
    status: int = 0
    #: Bytes in all; ``None`` for a chunked body, which ends with an empty chunk.
    length: int | None = None
    position: int = 0
    first_byte: float | None = None
    done: float | None = None
    right: bool = True
    #: The body, kept only when there is nothing to compare it with.
    body: bytearray = field(factory=bytearray)


def herd(url: str, headers: Mapping[str, str], clients: int, expected: bytes | None) -> list[Outcome]:
    """Ask for *url* *clients* times at once over connections that are open already.

    The body must be *expected*, and state its length then; with ``None`` all bodies must be the same once they are decoded: the
    longest counts as right.
    """
    parts = urlsplit(url)
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode()
    address = (parts.hostname, parts.port)
    herded = [_Client(socket.create_connection(address, _DEADLINE)) for _ in range(clients)]
    piece = bytearray(_PIECE)
    view = memoryview(piece)
    with selectors.DefaultSelector() as selector:
        for each in herded:
            each.connection.setblocking(False)
            selector.register(each.connection, selectors.EVENT_READ, each)
        began = time.perf_counter()
        for each in herded:
            each.connection.send(request)
        left = clients
        while left and time.perf_counter() - began < _DEADLINE:
            for key, _ in selector.select(1.0):
                client: _Client = key.data
                try:
                    count = client.connection.recv_into(piece)
                except ConnectionError:
                    count = 0
                if count:
                    _take(client, view[:count], expected, began)
                if not count or client.done is not None:
                    selector.unregister(client.connection)
                    left -= 1
    for each in herded:
        each.connection.close()
    if expected is None:
        decoded = [_decoded(each) for each in herded]
        right = max(decoded, key=len)
        for each, body in zip(herded, decoded, strict=True):
            each.right = body == right
    return [Outcome(each.status, each.first_byte, each.done, each.position, _is_right(each, expected)) for each in herded]


def _take(client: _Client, data: memoryview, expected: bytes | None, began: float) -> None:
    if not client.status:
        client.head += data
        head, end, rest = client.head.partition(b"\r\n\r\n")
        if not end:
            return
        client.status = int(head.split(b" ", 2)[1])
        client.length = _length(head)
        data = memoryview(rest)
    if data and client.first_byte is None:
        client.first_byte = time.perf_counter() - began
    if expected is None:
        client.body += data
    # Cheaper than a digest, and as strict.
    elif client.right and not expected.startswith(data, client.position):
        client.right = False
    client.position += len(data)
    if client.body.endswith(b"\r\n0\r\n\r\n") if client.length is None else client.position >= client.length:
        client.done = time.perf_counter() - began


def _length(head: bytes) -> int | None:
    value = _header(head, b"content-length")
    return int(value) if value else None


def _header(head: bytes, wanted: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip()
    return b""


def _decoded(client: _Client) -> bytes:
    """The body without its coding, empty if it is broken.  gzip notes the time: equal bodies may look different before."""
    try:
        body = _joined(client)
        head = client.head.partition(b"\r\n\r\n")[0]
        return gzip.decompress(body) if _header(head, b"content-encoding") == b"gzip" else body
    except (ValueError, OSError, EOFError, zlib.error):
        return b""


def _joined(client: _Client) -> bytes:
    """The body without its chunks' frames (RFC 9112 section 7.1)."""
    if client.length is not None:
        return bytes(client.body)
    joined, rest = [], bytes(client.body)
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        joined.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(joined)


def _is_right(client: _Client, expected: bytes | None) -> bool:
    whole = expected is None or client.position == len(expected)
    return client.right and client.status == 200 and client.done is not None and whole

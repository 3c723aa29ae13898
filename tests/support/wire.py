"""HTTP as it stands on the wire: a client that keeps every byte, and the response that the bytes amount to."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from proxy.representing import repr_without

reactor: Any = default_reactor


class Reply(Struct, frozen=True):
    """A response as it stood on the wire; ``complete`` is whether as many bytes came as were promised."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    complete: bool

    __repr__ = repr_without("body")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


def parse(raw: bytes, *, head: bool = False) -> Reply:
    """A response out of the bytes of a connection that ended after it.  Header names are in lower case."""
    top, _, body = raw.partition(b"\r\n\r\n")
    line, *fields = top.decode("latin-1").split("\r\n")
    _, status, reason = [*line.split(" ", 2), "", ""][:3]
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    complete = bool(top)
    if headers.get("transfer-encoding") == "chunked":
        body, complete = _dechunked(body)
    elif not head and "content-length" in headers:
        complete = len(body) == int(headers["content-length"])
    return Reply(int(status or 0), reason, headers, body, complete)


def _dechunked(raw: bytes) -> tuple[bytes, bool]:
    pieces: list[bytes] = []
    place = 0
    while (end := raw.find(b"\r\n", place)) >= 0:
        length = int(raw[place:end], 16)
        if length == 0:
            return b"".join(pieces), True
        pieces.append(raw[end + 2 : end + 2 + length])
        place = end + 2 + length + 2
    return b"".join(pieces), False


class Client(Protocol):
    """One connection: what was received on it since the last question, and why it ended."""

    transport: Any

    def __init__(self, connected: Deferred[Client] | None = None) -> None:
        self._connected = connected
        self.received = bytearray()
        self.reason: Failure | None = None
        self.ended: Deferred[None] = Deferred()
        self._head = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        #: How many bytes the response has by its head, once that has come, and whether it is in chunks instead.
        self._length: int | None = None
        self._chunked = False
        #: How many bytes the last reply had.
        self._replied: int | None = None

    def ask(self, path: str, method: str = "GET", **headers: str) -> None:
        """Send a request; underscores in names of *headers* stand for hyphens."""
        self.check()
        self._replied = self._length = None
        self._chunked = False
        self.received.clear()
        self._head = method == "HEAD"
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "proxy.example", **headers}.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())

    def connectionMade(self) -> None:
        if self._connected is not None:
            self._connected.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self._look()
        waiting, self._waiting = self._waiting, []
        for _, waiter in waiting:
            waiter.errback(EOFError(f"ended after {len(self.received)} bytes"))
        self.ended.callback(None)

    def _look(self) -> None:
        for entry in [each for each in self._waiting if each[0]()]:
            self._waiting.remove(entry)
            entry[1].callback(None)

    @property
    def body(self) -> bytes:
        """What has come of the body."""
        return bytes(self.received).partition(b"\r\n\r\n")[2]

    def until(self, condition: Callable[[], bool], timeout: float = 60.0) -> Deferred[None]:
        """Fires when *condition* holds; EOFError if the connection ends before, TimeoutError after *timeout* seconds."""
        waiter: Deferred[None] = Deferred()
        entry = (condition, waiter)
        self._waiting.append(entry)
        waiter.addTimeout(timeout, reactor)
        self._look()
        return waiter.addBoth(self._waited, entry)

    def _waited(self, result: Any, entry: Any) -> Any:
        if entry in self._waiting:
            self._waiting.remove(entry)
        return result

    def got(self, count: int) -> Deferred[None]:
        """Fires when *count* bytes (head included) have come."""
        return self.until(lambda: len(self.received) >= count)

    def got_body(self, count: int) -> Deferred[None]:
        """Fires when the head and *count* bytes of the body have come."""
        return self.until(lambda: 0 <= self.received.find(b"\r\n\r\n") <= len(self.received) - 4 - count)

    async def reply(self) -> Reply:
        """The response, once it is whole by its Content-Length or the connection has ended."""
        await self.until(lambda: self.reason is not None or self._whole())
        self._replied = len(self.received)
        return parse(bytes(self.received), head=self._head)

    def check(self) -> None:
        """Raise AssertionError if more has come than the last reply."""
        assert self._replied in (None, len(self.received)), f"behind a response: {bytes(self.received)[self._replied :]!r}"

    def _whole(self) -> bool:
        """Whether as much has come as the head of the response says; the head is looked at once."""
        if self._length is None:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[:end])
            self._length = end + 4
            if not self._head and not re.match(rb"HTTP/1.1 (?:204|304) ", head):
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                self._length += int(length[1]) if length else sys.maxsize
                self._chunked = re.search(rb"(?i)\r\ntransfer-encoding: chunked", head) is not None
        if self._chunked:
            return self.received.endswith(b"0\r\n\r\n") and _dechunked(self.body)[1]
        return len(self.received) >= self._length

    async def close(self) -> None:
        """End the connection at once."""
        if self.reason is None:
            self.transport.abortConnection()
            await self.ended


class _Connecting(ClientFactory):
    """Makes one connection; ``connected`` fires with it.  An endpoint does so too, in twice the time."""

    noisy = False

    def __init__(self) -> None:
        self.connected: Deferred[Client] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> Client:
        return Client(self.connected)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.connected.errback(reason)


async def connect(port: int, tls: Any = None, address: str = "127.0.0.1") -> Client:
    """A connection to *port* of *address*."""
    if tls is not None:
        client: Client = await connectProtocol(wrapClientTLS(tls, TCP4ClientEndpoint(reactor, address, port)), Client())
        return client
    connecting = _Connecting()
    reactor.connectTCP(address, port, connecting)
    return await connecting.connected


class KeptConnections:
    """Connections to *port* of 127.0.0.1 on which one request is sent after the other, as by most clients."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Client] = []

    async def fetch(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """The response to a request on a connection that nobody uses."""
        client = self._idle.pop() if self._idle else await connect(self._port)
        client.ask(path, method, **headers)
        reply = await client.reply()
        assert reply.complete, reply
        if reply.headers.get("connection") == "close":
            await client.ended
        else:
            self._idle.append(client)
        return reply

    async def close(self) -> None:
        """End them all."""
        for client in self._idle:
            await client.close()


async def ask(port: int, path: str, method: str = "GET", **headers: str) -> Client:
    """A connection on which *method* *path* was asked, and which ends with the response."""
    client = await connect(port)
    client.ask(path, method, Connection="close", **headers)
    return client


async def fetch_until(port: int, path: str, wanted: Callable[[Reply], bool], timeout: float = 60.0) -> Reply:
    """Ask again and again, as clients do, until the response is *wanted*.  Raises TimeoutError."""
    deadline = reactor.seconds() + timeout
    while not wanted(reply := await fetch(port, path)):
        if reactor.seconds() > deadline:
            raise TimeoutError(f"{path} still answers {reply}")
        await deferLater(reactor, 0.02)
    return reply


async def fetch(port: int, path: str, method: str = "GET", **headers: str) -> Reply:
    """The response to one request on a connection of its own, once that has ended."""
    client = await ask(port, path, method, **headers)
    await client.ended
    return parse(bytes(client.received), head=method == "HEAD")


class Persistent:
    """Requests to ports of 127.0.0.1, each on a connection that has answered another one before, where there is one."""

    def __init__(self) -> None:
        self._idle: dict[int, list[Client]] = {}

    async def fetch(self, port: int, path: str, method: str = "GET", **headers: str) -> Reply:
        """The response, once it is whole."""
        idle = self._idle.setdefault(port, [])
        while True:
            used = bool(idle)
            client = idle.pop() if used else await connect(port)
            if client.reason is None:
                client.ask(path, method, **headers)
                reply = await client.reply()
                if reply.status or not used:
                    break
        if client.reason is None and reply.complete:
            idle.append(client)
        else:
            await client.close()
        return reply

    async def close(self) -> None:
        """End the connections.  AssertionError if anything came behind a response."""
        ended = [each for idle in self._idle.values() for each in idle]
        self._idle.clear()
        for each in ended:
            await each.close()
        for each in ended:
            each.check()

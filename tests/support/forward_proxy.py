"""A forward proxy on 127.0.0.1: tunnels by ``CONNECT``, passes on requests with absolute URLs, may ask for credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

reactor: Any = default_reactor


def _same_port(authority: str) -> int:
    return int(authority.rpartition(":")[2])


class ForwardProxy:
    """Sends every connection to 127.0.0.1, whatever host was named.  *authorization* is what it wants to be told.

    *port_of* says at which port of 127.0.0.1 ``host:port`` is.
    """

    def __init__(self, authorization: str | None = None, port_of: Callable[[str], int] = _same_port) -> None:
        self.authorization = authorization
        self.port_of = port_of
        #: The first lines of all requests.
        self.asked: list[str] = []
        factory = Factory.forProtocol(_Client)
        factory.noisy = False
        factory.proxy = self  # type: ignore[attr-defined]  # how the protocols find their way back
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.address = f"127.0.0.1:{self._port.getHost().port}"

    async def close(self) -> None:
        await self._port.stopListening()


class _Client(Protocol):
    factory: Any
    transport: Any
    _buffer = b""
    _server: Any = None
    _tunnel = False

    def dataReceived(self, data: bytes) -> None:
        if self._tunnel and self._server is not None:
            self._server.transport.write(data)
            return
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        self._buffer = rest
        line, *fields = head.decode("latin-1").split("\r\n")
        proxy: ForwardProxy = self.factory.proxy
        proxy.asked.append(line)
        told = next((field.partition(": ")[2] for field in fields if field.lower().startswith("proxy-authorization:")), None)
        if told != proxy.authorization:
            self.transport.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            self.transport.loseConnection()
            return
        method, target, _ = line.split(" ")
        self._tunnel = method == "CONNECT"
        authority = target if self._tunnel else target.split("/")[2]
        request = (head + end).replace(f"http://{authority}".encode(), b"", 1)
        if self._server is not None:
            self._server.transport.write(request)
            return
        server = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.port_of(authority))
        connectProtocol(server, _Server(self)).addCallback(self._connected, request)

    def _connected(self, server: Any, request: bytes) -> None:
        self._server = server
        if self._tunnel:
            self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.transport.write(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._server is not None:
            self._server.transport.loseConnection()


class _Server(Protocol):
    transport: Any

    def __init__(self, client: _Client) -> None:
        self._client = client

    def dataReceived(self, data: bytes) -> None:
        self._client.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.transport.loseConnection()

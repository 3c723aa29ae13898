"""Connections through an HTTP proxy by ``CONNECT`` (RFC 9110 section 9.3.6)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.settings import KIB

#: The longest answer of the proxy that is read (bytes).
_LONGEST_HEAD = 64 * KIB


@implementer(IStreamClientEndpoint)
class Tunnel:
    """*authority* (``host:port``) as it is reached through the proxy at the endpoint *proxy*."""

    def __init__(self, proxy: Any, authority: str, authorization: str | None) -> None:
        self._proxy = proxy
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if authorization is not None:
            lines.append(f"Proxy-Authorization: {authorization}")
        self._request = "\r\n".join([*lines, "", ""]).encode("ascii")

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> Any:
        opening = _Opening(self._request)
        quiet = Factory.forProtocol(lambda: opening)
        quiet.noisy = False
        await self._proxy.connect(quiet)
        try:
            await opening.opened
        except BaseException:
            opening.transport.abortConnection()
            raise
        protocol = factory.buildProtocol(opening.transport.getPeer())
        opening.hand_over(protocol)
        return protocol


class _Opening(Protocol):
    """Asks the proxy for the tunnel, then passes everything to the protocol that is to live in it."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._answer = b""
        self._inner: Any = None
        self.opened: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if self.opened.called:
            return
        if not end:
            if len(self._answer) > _LONGEST_HEAD:
                self.opened.errback(ConnectError(string="the outbound proxy answered with something that is not HTTP"))
            return
        self._answer = rest
        line = head.split(b"\r\n")[0].decode("latin-1")
        status = line.split(" ")[1:2]
        if line.startswith("HTTP/") and status and status[0].startswith("2"):
            self.opened.callback(None)
        else:
            self.opened.errback(ConnectError(string=f"the outbound proxy refused the tunnel: {line[:200]}"))

    def hand_over(self, inner: Any) -> None:
        self._inner = inner
        inner.makeConnection(self.transport)
        if self._answer:
            inner.dataReceived(self._answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(ConnectError(string="the outbound proxy closed the connection"))

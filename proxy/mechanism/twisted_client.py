"""Everything of Twisted's HTTP client that has a private name: as in :mod:`proxy.mechanism.twisted_internals`.

It is used by the command ``warm``, which asks the proxy as any other client does; upstreams are asked by
:mod:`proxy.upstream.http.connection`.  It is a module of its own because that client takes a while to load, which no start
waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.web._newclient import HTTP11ClientProtocol, ParseError
from twisted.web.client import HTTPConnectionPool

#: One connection of an HTTP/1.1 client; made with what it calls when it is free for another request.
ClientConnection = HTTP11ClientProtocol
#: An answer that is not HTTP (RFC 9112, section 2.2).
Unparsable = ParseError


class _Factory(Factory):
    """Makes connections of class *made*, without a log line for each."""

    noisy = False

    def __init__(self, made: type[ClientConnection], free: Callable[[ClientConnection], None], endpoint: str) -> None:
        self._made = made
        self._free = free
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return f"<connection to {self._endpoint}>"

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:
        return self._made(self._free)


class PoolOf(HTTPConnectionPool):
    """Connections of class *made* that stay open for the next request if *persistent*, without a log line for each."""

    def __init__(self, made: type[ClientConnection], reactor: IReactorTime, *, persistent: bool = True) -> None:
        super().__init__(reactor, persistent)
        self._factory = partial(_Factory, made)  # type: ignore[assignment]  # twisted.web calls it and no more

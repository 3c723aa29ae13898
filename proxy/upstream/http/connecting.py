"""How one upstream's hosts are reached: straight or through a proxy, with TLS and guarded names, and with timers on the way.

Theory of operation. A request goes out on a :class:`Line`, which knows the addresses to connect to and then the one that it is
connected to.  It has two timers up to its headers: one while a connection is being made (name resolution and a
tunnel included), one from then on until the first byte.  A connection from the pool starts with the second.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from proxy.settings import KIB, UpstreamSettings
from proxy.upstream.http.addresses import ATTEMPT_DELAY, Addresses, FirstOf
from proxy.upstream.http.guard import Forbidden, Guard, is_address
from proxy.upstream.http.trust import Trust
from proxy.upstream.http.tunnel import Tunnel

#: Stands for the addresses of a host that is asked through an outbound proxy: there is one.
THE_PROXY = "the outbound proxy"
#: Bytes to receive at once.  What has arrived by then comes in few pieces, each of which has a cost of its own.
_RECEIVE = 256 * KIB
#: An outbound proxy's port when its URL names none.
_PROXY_PORT = 3128


class RequestTimers:
    """The timers of one request up to its headers: one while a connection is made, one of *first_byte_timeout* from then on."""

    def __init__(self, reactor: IReactorTime, first_byte_timeout: float) -> None:
        self._reactor = reactor
        self._timeout = first_byte_timeout
        self._timer: IDelayedCall | None = None
        self._request: Deferred[Any] | None = None
        self._connecting = False
        #: Whether a connection has been made for the request, instead of one that was idle.
        self.is_new = False
        #: Whether the first byte took too long, which has cancelled the request.
        self.late = False
        #: Whether nobody waits for the request any more, which has cancelled it.  What it fails with then says nothing.
        self.left = False

    def begin(self, request: Deferred[Any]) -> Deferred[Any]:
        """Wait for *request*, and cancel it when it takes too long."""
        self._request = request
        waiter: Deferred[Any] = Deferred(self._leave)
        request.addBoth(waiter.callback)
        # On a connection from the pool the request is under way already.  (Its `called` says nothing: it is chained.)
        if not self._connecting:
            self._start()
        return waiter

    def _leave(self, waiter: Deferred[Any]) -> None:
        self.left = True
        if self._request is not None:
            self._request.cancel()

    def connecting(self) -> None:
        """A connection is being made, which has a timeout of its own."""
        self.end()
        self._connecting = True

    def connected(self) -> None:
        self._connecting = False
        self.is_new = True
        if self._request is not None:
            self._start()

    def end(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _start(self) -> None:
        self.end()
        self._timer = self._reactor.callLater(self._timeout, self._expire)

    def _expire(self) -> None:
        self.late = True
        if self._request is not None:
            self._request.cancel()


class Endpoints:
    """How the hosts of the upstream of *settings* are connected to, with TLS by *trust*."""

    def __init__(self, settings: UpstreamSettings, reactor: Any, trust: Trust) -> None:
        self._reactor = reactor
        self._timeout = settings.connect_timeout
        self._trust = trust
        self._proxy = None if settings.outbound_proxy is None else urlsplit(settings.outbound_proxy)
        self._guard = Guard(settings)
        self._addresses = Addresses(reactor, self._guard)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses that *host* may be asked at; through an outbound proxy, that alone.

        Raises DNSLookupError, TimeoutError, Forbidden.
        """
        if self._proxy is None:
            looking: Deferred[tuple[str, ...]] = Deferred.fromCoroutine(self._addresses.of(host))
            return await looking.addTimeout(self._timeout, self._reactor, _too_late)
        # Names are resolved by that proxy; the address of a literal is known here too.
        if is_address(host) and not self._guard.allows(host, host):
            raise Forbidden(string=f"{host} is a private address, which this upstream's pages may not lead to")
        return (THE_PROXY,)

    def headers(self, url: str) -> dict[str, str]:
        """What a request for *url* bears for the outbound proxy, if it is one that the proxy reads."""
        authorization = self._proxy_authorization() if url.startswith("http:") else None
        return {} if authorization is None else {"Proxy-Authorization": authorization}

    def agent(self, url: str, line: Line, pool: HTTPConnectionPool) -> IAgent:
        """An agent for one request, which goes out on *line*."""
        line.use(pool)
        if self._proxy is not None and url.startswith("http:"):
            # It sends the absolute URL, which is how a proxy is told where to go (RFC 9112 section 3.2.2).
            endpoint = _Watched(self._limited(self._proxy_endpoint()), line.watch, "the outbound proxy")
            return ProxyAgent(endpoint, self._reactor, line)
        direct: IAgent = Agent.usingEndpointFactory(self._reactor, _ForOneRequest(self, line), line)
        return direct

    def endpoint(self, uri: URI, line: Line) -> IStreamClientEndpoint:
        endpoint = self.plain(_host(uri), uri.port, line)
        if uri.scheme != b"https":
            return endpoint
        return wrapClientTLS(self._trust.creatorForNetloc(uri.host, uri.port), endpoint)

    def plain(self, host: str, port: int, line: Line) -> IStreamClientEndpoint:
        """Where a connection to *port* of *host* is made, straight or through a tunnel, without TLS."""
        endpoint: Any
        if self._proxy is None:
            endpoint = FirstOf(self._reactor, line.addresses, port, self._timeout, line.unreachable)
        else:
            shown = f"[{host}]" if ":" in host else host
            endpoint = Tunnel(self._proxy_endpoint(), f"{shown}:{port}", self._proxy_authorization())
        return _Watched(self._limited(endpoint), line.watch, host)

    def _limited(self, endpoint: Any) -> Any:
        return _Limited(endpoint, self._reactor, self._timeout)

    def _proxy_endpoint(self) -> HostnameEndpoint:
        assert self._proxy is not None
        return HostnameEndpoint(
            self._reactor,
            self._proxy.hostname or "",
            self._proxy.port or _PROXY_PORT,
            timeout=self._timeout,
            attemptDelay=ATTEMPT_DELAY,
        )

    def _proxy_authorization(self) -> str | None:
        """The value of ``Proxy-Authorization``, ``None`` without credentials."""
        if self._proxy is None or self._proxy.username is None:
            return None
        secret = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return "Basic " + base64.b64encode(secret.encode()).decode("ascii")


class Line:
    """What one request goes out on: a connection from the pool to the first of *addresses*, or a new one to any of them.

    Agents take it for their pool.  *unreachable* is told (address, error) of each that accepts no
    connection, *reached* the address that the connection is to.
    """

    #: Agents ask their pool whether connections stay open.
    persistent = True

    def __init__(
        self,
        addresses: Sequence[str],
        watch: RequestTimers,
        unreachable: Callable[[str, BaseException], None],
        reached: Callable[[str], None],
    ) -> None:
        self._reached = reached
        self.addresses = tuple(addresses)
        self.watch = watch
        self.unreachable = unreachable
        #: The address that the connection is to, once there is one.
        self.address: str | None = None
        self._pool: HTTPConnectionPool | None = None

    def use(self, pool: HTTPConnectionPool) -> None:
        """Take connections from *pool*, and give them back to it."""
        self._pool = pool

    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """As that of the pool, whose connections to several addresses of one host are not the same."""
        assert self._pool is not None
        connection: Deferred[Any] = self._pool.getConnection((*key, self.addresses[0]), endpoint)
        return connection.addCallback(self._got)

    def _got(self, connection: Any) -> Any:
        if self.addresses != (THE_PROXY,):
            address: str = connection.transport.getPeer().host
            self.address = address
            self._reached(address)
        return connection


def _too_late(result: Any, timeout: float) -> Any:
    raise TimeoutError


def _host(uri: URI) -> str:
    host: bytes = uri.host
    return host.decode("ascii").lower().strip("[]")


@implementer(IAgentEndpointFactory)
class _ForOneRequest:
    def __init__(self, endpoints: Endpoints, line: Line) -> None:
        self._endpoints = endpoints
        self._line = line

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoints.endpoint(uri, self._line)


@implementer(IStreamClientEndpoint)
class _Limited:
    """An endpoint whose whole way, a tunnel included, takes at most so many seconds."""

    def __init__(self, endpoint: Any, reactor: IReactorTime, timeout: float) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._timeout = timeout

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addTimeout(self._timeout, self._reactor, _too_late)


@implementer(IStreamClientEndpoint)
class _Watched:
    """An endpoint that tells *watch* when a connection is being made.  Those of one *name* are the same to a pool."""

    def __init__(self, endpoint: Any, watch: RequestTimers, name: str) -> None:
        self._endpoint = endpoint
        self._watch = watch
        self._name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Watched) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self._watch.connecting()
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(self._made)

    def _made(self, protocol: Any) -> Any:
        self._watch.connected()
        protocol.transport.bufferSize = _RECEIVE
        return protocol

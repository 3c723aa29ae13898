"""How one upstream's hosts are reached: straight or through a proxy, with TLS and guarded names, and with timers on the way.

Theory of operation. A request has two timers up to its headers: one while a connection is being made (name resolution and a
tunnel included), one from then on until the first byte.  A connection from the pool starts with the second.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from proxy.settings import UpstreamSettings
from proxy.upstream.guard import Forbidden, Guard, GuardedReactor, is_address
from proxy.upstream.origin import origin_of
from proxy.upstream.trust import Trust
from proxy.upstream.tunnel import Tunnel

#: Seconds between attempts at a name's addresses (RFC 8305); also what a refused connection costs before it is reported.
_ATTEMPT_DELAY = 0.1
#: An outbound proxy's port when its URL names none.
_PROXY_PORT = 3128


class Watch:
    """The timers of one request up to its headers: one while a connection is made, one of *first_byte_timeout* from then on."""

    def __init__(self, reactor: IReactorTime, first_byte_timeout: float) -> None:
        self._reactor = reactor
        self._timeout = first_byte_timeout
        self._timer: IDelayedCall | None = None
        self._request: Deferred[Any] | None = None
        self._connecting = False
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
    """Where the hosts of the upstream of *settings* are."""

    def __init__(self, settings: UpstreamSettings, reactor: Any) -> None:
        self._reactor = reactor
        self._timeout = settings.connect_timeout
        self._trust = Trust(settings)
        self._proxy = None if settings.outbound_proxy is None else urlsplit(settings.outbound_proxy)
        self.guard = Guard(settings, reactor.nameResolver)

    def headers(self, url: str) -> dict[str, str]:
        """What a request for *url* bears for the outbound proxy, if it is one that the proxy reads."""
        authorization = self._proxy_authorization() if url.startswith("http:") else None
        return {} if authorization is None else {"Proxy-Authorization": authorization}

    def agent(self, url: str, watch: Watch, pool: HTTPConnectionPool) -> IAgent:
        """An agent for one request, with its timers."""
        if self._proxy is not None and url.startswith("http:"):
            # It sends the absolute URL, which is how a proxy is told where to go (RFC 9112 section 3.2.2).
            endpoint = _Watched(self._limited(self._proxy_endpoint()), watch, "the outbound proxy")
            return ProxyAgent(endpoint, self._reactor, pool)
        direct: IAgent = Agent.usingEndpointFactory(self._reactor, _ForOneRequest(self, watch), pool)
        return direct

    def _limited(self, endpoint: Any) -> Any:
        return _Limited(endpoint, self._reactor, self._timeout)

    async def permit(self, url: str) -> None:
        """Make sure that the host of *url* may be asked as far as that can be known before connecting.  Raises Forbidden."""
        host = origin_of(url).host
        if self._proxy is None:
            await self.guard.learn(host)
        # The address of a literal is known; that of a name is checked when it is.
        if is_address(host) and not self.guard.allows(host, host):
            raise Forbidden(string=f"{host} is a private address, which this upstream's pages may not lead to")

    def endpoint(self, uri: URI, watch: Watch) -> IStreamClientEndpoint:
        host = _host(uri)
        endpoint: Any
        if self._proxy is None:
            endpoint = _Guarded(self._reactor, self.guard, host, uri.port, self._timeout)
        else:
            shown = f"[{host}]" if ":" in host else host
            endpoint = Tunnel(self._proxy_endpoint(), f"{shown}:{uri.port}", self._proxy_authorization())
        endpoint = _Watched(self._limited(endpoint), watch, host)
        if uri.scheme != b"https":
            return endpoint  # type: ignore[no-any-return]  # _Watched is one
        return wrapClientTLS(self._trust.creatorForNetloc(uri.host, uri.port), endpoint)

    def _proxy_endpoint(self) -> HostnameEndpoint:
        assert self._proxy is not None
        return HostnameEndpoint(
            self._reactor, self._proxy.hostname or "", self._proxy.port or _PROXY_PORT, timeout=self._timeout
        )

    def _proxy_authorization(self) -> str | None:
        """The value of ``Proxy-Authorization``, ``None`` without credentials."""
        if self._proxy is None or self._proxy.username is None:
            return None
        secret = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return "Basic " + base64.b64encode(secret.encode()).decode("ascii")


def _host(uri: URI) -> str:
    host: bytes = uri.host
    return host.decode("ascii").lower().strip("[]")


@implementer(IAgentEndpointFactory)
@define
class _ForOneRequest:
    _endpoints: Endpoints
    _watch: Watch

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoints.endpoint(uri, self._watch)


@implementer(IStreamClientEndpoint)
@define
class _Limited:
    """An endpoint whose whole way, name resolution and tunnel included, takes at most so many seconds."""

    _endpoint: Any
    _reactor: IReactorTime
    _timeout: float

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addTimeout(self._timeout, self._reactor, self._too_late)

    def _too_late(self, result: Any, timeout: float) -> Any:
        raise TimeoutError


@implementer(IStreamClientEndpoint)
class _Guarded:
    """A host whose addresses are checked when they are resolved."""

    def __init__(self, reactor: Any, guard: Guard, host: str, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._guard = guard
        self._host = host
        self._port = port
        self._timeout = timeout

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        # Made now: most requests have a connection already, and only ask for the endpoint.
        reactor = GuardedReactor(self._reactor, self._guard)
        endpoint = HostnameEndpoint(reactor, self._host, self._port, timeout=self._timeout, attemptDelay=_ATTEMPT_DELAY)
        return endpoint.connect(protocolFactory).addErrback(self._failed, reactor.refused)

    def _failed(self, failure: Failure, refused: Collection[str]) -> Failure:
        if refused and failure.check(DNSLookupError):
            names = ", ".join(refused)
            return Failure(Forbidden(string=f"{self._host} is at {names}, a private address that its pages may not lead to"))
        return failure


@implementer(IStreamClientEndpoint)
@define
class _Watched:
    """An endpoint that tells *watch* when a connection is being made.  Those of one *name* are the same to a pool."""

    _endpoint: Any = field(eq=False)
    _watch: Watch = field(eq=False)
    _name: str

    def __hash__(self) -> int:
        return hash(self._name)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self._watch.connecting()
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(self._made)

    def _made(self, protocol: Any) -> Any:
        self._watch.connected()
        return protocol

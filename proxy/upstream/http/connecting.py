"""How one upstream's hosts are reached: straight or through a proxy, with TLS and guarded names, within a time."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from proxy.settings import UpstreamSettings
from proxy.upstream.http.addresses import ATTEMPT_DELAY, Addresses, FirstOf
from proxy.upstream.http.guard import Forbidden, Guard, is_address
from proxy.upstream.http.origin import Origin, RequestTarget
from proxy.upstream.http.transport import THE_PROXY
from proxy.upstream.http.trust import Trust
from proxy.upstream.http.tunnel import Tunnel

#: An outbound proxy's port when its URL names none.
_PROXY_PORT = 3128


class Endpoints:
    """How the hosts of the upstream of *settings* are connected to, with TLS by *trust*."""

    def __init__(self, settings: UpstreamSettings, reactor: Any, trust: Trust) -> None:
        self._reactor = reactor
        self._timeout = settings.connect_timeout
        self._trust = trust
        self._proxy = None if settings.outbound_proxy is None else urlsplit(settings.outbound_proxy)
        self._guard = Guard(settings)
        self._addresses = Addresses(reactor, self._guard)

    def known_addresses(self, host: str) -> tuple[str, ...] | None:
        """What :meth:`addresses` gives, if it is known without looking anything up."""
        if self._proxy is None:
            return self._addresses.known(host)
        return None if is_address(host) else (THE_PROXY,)

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

    def form(self, target: RequestTarget) -> str:
        """What a request for *target* has after its method (RFC 9112 section 3.2)."""
        return target.absolute if self._asks_the_proxy(target.origin) else target.form

    def authorization(self, origin: Origin) -> str | None:
        """The value of ``Proxy-Authorization`` on a request to *origin*, if it is one that the outbound proxy reads."""
        return self._proxy_authorization() if self._asks_the_proxy(origin) else None

    def _asks_the_proxy(self, origin: Origin) -> bool:
        """Whether requests to *origin* are sent to the outbound proxy, and not through a tunnel or straight."""
        return self._proxy is not None and origin.scheme == "http"

    def connect(
        self, origin: Origin, addresses: Sequence[str], failed: Callable[[str, BaseException], None], factory: IProtocolFactory
    ) -> Deferred[Any]:
        """A connection for requests to *origin* at one of its *addresses*; *failed* is told (address, error) of each other.

        Fires with what *factory* made.
        """
        if self._asks_the_proxy(origin):
            return self._limited(self._proxy_endpoint()).connect(factory)
        endpoint = self.plain(origin.host, origin.port, addresses, failed)
        if origin.scheme == "https":
            endpoint = wrapClientTLS(self._trust.creator_for(origin.host, origin.port), endpoint)
        return endpoint.connect(factory)

    def plain(
        self, host: str, port: int, addresses: Sequence[str], failed: Callable[[str, BaseException], None]
    ) -> IStreamClientEndpoint:
        """Where a connection to *port* of *host* is made, straight to one of *addresses* or through a tunnel, without TLS."""
        endpoint: Any
        if self._proxy is None:
            endpoint = FirstOf(self._reactor, addresses, port, self._timeout, failed)
        else:
            shown = f"[{host}]" if ":" in host else host
            endpoint = Tunnel(self._proxy_endpoint(), f"{shown}:{port}", self._proxy_authorization())
        return self._limited(endpoint)

    def _limited(self, endpoint: Any) -> IStreamClientEndpoint:
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


def _too_late(result: Any, timeout: float) -> Any:
    raise TimeoutError


@implementer(IStreamClientEndpoint)
class _Limited:
    """An endpoint whose whole way, a tunnel included, takes at most so many seconds."""

    def __init__(self, endpoint: Any, reactor: IReactorTime, timeout: float) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addTimeout(self._timeout, self._reactor, _too_late)

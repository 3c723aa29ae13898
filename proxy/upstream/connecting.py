"""How connections to one upstream's hosts are made: guarded name resolution, TLS, and the way out through a proxy.

Theory of operation. The names in an upstream's own URL were configured and may lead anywhere. All other names come out of its
pages and redirects; where the upstream is a public one they must not lead into this machine or its network (SSRF). What
counts is the address that is connected to, so the check sits in the resolver that the connection itself uses: there is
nothing to rebind in between.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from proxy.settings import UpstreamSettings
from proxy.upstream.origin import is_private, origin_of

#: Seconds between attempts at a name's addresses (RFC 8305); also what a refused connection costs before it is reported.
_ATTEMPT_DELAY = 0.1


class Forbidden(ConnectError):
    """A name leads to an address that this upstream's pages may not lead to."""


@implementer(IPolicyForHTTPS)
class Trust:
    """TLS towards an upstream: its own authorities if configured, else the system's; a client certificate if configured."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._authorities: Any = ssl.platformTrust()
        if settings.ca_file is not None:
            self._authorities = ssl.trustRootFromCertificates(_certificates(settings.ca_file))
        self._client: ssl.PrivateCertificate | None = None
        if settings.client_cert is not None:
            key = settings.client_key or settings.client_cert
            self._client = ssl.PrivateCertificate.loadPEM(settings.client_cert.read_bytes() + b"\n" + key.read_bytes())

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return ssl.optionsForClientTLS(hostname.decode("ascii"), trustRoot=self._authorities, clientCertificate=self._client)


def _certificates(path: Path) -> list[ssl.Certificate]:
    """Every certificate in a PEM file."""
    marker = b"-----BEGIN CERTIFICATE-----"
    blocks = path.read_bytes().split(marker)[1:]
    loaded = [crypto.load_certificate(crypto.FILETYPE_PEM, marker + block) for block in blocks]
    return [ssl.Certificate(certificate) for certificate in loaded]


class Guard:
    """Which addresses names may lead to.  *home* is the host in the upstream's own URL."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self.home = origin_of(settings.url).host
        self._setting = settings.allow_private_addresses
        self._home_is_private = False

    def allows(self, host: str, address: str) -> bool:
        """Whether a connection to *address* may be made for *host*; learns where the upstream itself is."""
        if not is_private(address):
            return True
        if host == self.home:
            self._home_is_private = True
            return True
        return self._home_is_private if self._setting is None else self._setting


@implementer(IReactorPluggableNameResolver)
class _GuardedReactor:
    """A reactor whose name resolver leaves out addresses that *guard* forbids; everything else is the real one's."""

    def __init__(self, reactor: Any, guard: Guard) -> None:
        self._reactor = reactor
        self.nameResolver = _GuardedResolver(reactor.nameResolver, guard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("the resolver of a guarded reactor is fixed")


@implementer(IHostnameResolver)
class _GuardedResolver:
    def __init__(self, resolver: IHostnameResolver, guard: Guard) -> None:
        self._resolver = resolver
        self._guard = guard

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver = _GuardedReceiver(resolutionReceiver, hostName, self._guard)
        return self._resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)


@implementer(IResolutionReceiver)
class _GuardedReceiver:
    def __init__(self, receiver: IResolutionReceiver, host: str, guard: Guard) -> None:
        self._receiver = receiver
        self._host = host.lower()
        self._guard = guard

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if self._guard.allows(self._host, address.host):  # type: ignore[attr-defined]  # resolvers give IP addresses
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Where twisted.web's Agent connects for a URL of one upstream."""

    def __init__(self, settings: UpstreamSettings, reactor: Any) -> None:
        self._reactor = reactor
        self._timeout = settings.connect_timeout
        self._guard = Guard(settings)
        self._trust = Trust(settings)
        self._proxy = None if settings.outbound_proxy is None else urlsplit(settings.outbound_proxy)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii").lower()
        endpoint: Any
        if self._proxy is None:
            # The address of a literal is known; that of a name is checked when it is.
            if is_private(host) and not self._guard.allows(host, host):
                raise Forbidden(string=f"{host} is a private address that a page may not lead to")
            endpoint = HostnameEndpoint(
                _GuardedReactor(self._reactor, self._guard), host, uri.port, timeout=self._timeout, attemptDelay=_ATTEMPT_DELAY
            )
        else:
            endpoint = HostnameEndpoint(
                self._reactor, self._proxy.hostname or "", self._proxy.port or 3128, timeout=self._timeout
            )
            # A tunnel for https; for http the request itself goes to the proxy, see `absolute`.
            if uri.scheme == b"https":
                endpoint = _Tunnel(endpoint, f"{host}:{uri.port}", self.proxy_authorization)
        if uri.scheme != b"https":
            return endpoint  # type: ignore[no-any-return]  # HostnameEndpoint is one
        return wrapClientTLS(self._trust.creatorForNetloc(uri.host, uri.port), endpoint)

    @property
    def by_proxy(self) -> bool:
        """Whether requests for http URLs go to a proxy, which must be told the absolute URL."""
        return self._proxy is not None

    @property
    def proxy_authorization(self) -> str | None:
        """The value of ``Proxy-Authorization``, ``None`` without credentials."""
        if self._proxy is None or self._proxy.username is None:
            return None
        secret = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return "Basic " + base64.b64encode(secret.encode()).decode("ascii")


@implementer(IStreamClientEndpoint)
class _Tunnel:
    """An endpoint that is reached through an HTTP proxy by ``CONNECT`` (RFC 9110 section 9.3.6)."""

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
        await self._proxy.connect(Factory.forProtocol(lambda: opening))
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
        if not end or self.opened.called:
            return
        self._answer = rest
        line = head.split(b"\r\n")[0].decode("latin-1")
        if line.split(" ")[1:2] == ["200"]:
            self.opened.callback(None)
        else:
            self.opened.errback(ConnectError(string=f"the outbound proxy refused the tunnel: {line}"))

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

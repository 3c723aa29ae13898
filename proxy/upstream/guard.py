"""Which addresses the names in an upstream's pages and redirects may lead to (SSRF).

Theory of operation. The host in an upstream's own URL was configured and may be anywhere. All other names come out of its pages
and redirects; where the upstream is a public one they must not lead into this machine or its network. What counts is the
address that is connected to, so the check sits in the resolver that the connection itself uses: there is nothing to rebind in
between. Through an outbound proxy names are resolved by that proxy; there only literal addresses can be checked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from zope.interface import implementer

from proxy.settings import UpstreamSettings
from proxy.upstream.origin import origin_of

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_address(host: str) -> bool:
    """Whether *host* is an IP address and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_private(address: str) -> bool:
    """Whether an IP address leads into this machine or this network and not to the Internet.

    That is loopback, link-local, private, carrier-grade NAT, multicast and reserved ones, also inside of IPv6 (mapped, NAT64,
    6to4, Teredo).
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(not each.is_global or each.is_multicast for each in (*_inside(ip),) or (ip,))


def _inside(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found: list[ipaddress.IPv4Address | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


class Forbidden(ConnectError):
    """A name leads to an address that this upstream's pages may not lead to."""


class Guard:
    """The rule for the upstream of *settings*; *resolver* finds out where that upstream itself is, if nothing else says so."""

    def __init__(self, settings: UpstreamSettings, resolver: IHostnameResolver) -> None:
        self._home = origin_of(settings.url).host
        self._setting = settings.allow_private_addresses
        self._resolver = resolver
        #: Whether the upstream itself is at a private address; ``None`` while that is not known.
        self._home_is_private: bool | None = is_private(self._home) if is_address(self._home) else None

    def allows(self, host: str, address: str) -> bool:
        """Whether a connection to *address* may be made for *host*; learns where the upstream itself is."""
        private = is_private(address)
        if host == self._home:
            self._home_is_private = private
            return True
        if not private or self._setting is not None:
            return not private or bool(self._setting)
        return bool(self._home_is_private)

    async def learn(self, host: str) -> None:
        """Make sure that :meth:`allows` can decide for *host*: if need be, find out where the upstream itself is."""
        if host == self._home or self._setting is not None or self._home_is_private is not None:
            return
        known = _Addresses()
        self._resolver.resolveHostName(known, self._home)
        for address in await known.complete:
            self._home_is_private = bool(self._home_is_private) or is_private(address)


@implementer(IResolutionReceiver)
class _Addresses:
    """All addresses of a name."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self.complete: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        self._found.append(address.host)  # type: ignore[attr-defined]  # resolvers give IP addresses

    def resolutionComplete(self) -> None:
        self.complete.callback(self._found)


@implementer(IReactorPluggableNameResolver)
class GuardedReactor:
    """A reactor whose name resolver leaves out addresses that *guard* forbids; everything else is the real one's."""

    def __init__(self, reactor: Any, guard: Guard) -> None:
        self._reactor = reactor
        #: Addresses that were left out.
        self.refused: list[str] = []
        self.nameResolver = _GuardedResolver(reactor.nameResolver, guard, self.refused)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("the resolver of a guarded reactor is fixed")


@implementer(IHostnameResolver)
class _GuardedResolver:
    def __init__(self, resolver: IHostnameResolver, guard: Guard, refused: list[str]) -> None:
        self._resolver = resolver
        self._guard = guard
        self._refused = refused

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver = _GuardedReceiver(resolutionReceiver, hostName.lower(), self._guard, self._refused)
        return self._resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)


@implementer(IResolutionReceiver)
class _GuardedReceiver:
    def __init__(self, receiver: IResolutionReceiver, host: str, guard: Guard, refused: list[str]) -> None:
        self._receiver = receiver
        self._host = host
        self._guard = guard
        self._refused = refused

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        found: str = address.host  # type: ignore[attr-defined]  # resolvers give IP addresses
        if self._guard.allows(self._host, found):
            self._receiver.addressResolved(address)
        else:
            self._refused.append(found)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()

"""The names of ``tests.support.hosts`` in a Twisted reactor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from tests.support.hosts import Hosts


@implementer(IHostResolution)
class _Resolution(Struct, frozen=True):
    name: str

    def cancel(self) -> None:
        """It is complete already."""


@implementer(IHostnameResolver)
class Resolver(Struct, frozen=True):
    """Resolves the names that *hosts* knows, at once, and leaves all others to *others*."""

    hosts: Hosts
    others: IHostnameResolver

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        if not self.hosts.knows(hostName):
            return self.others.resolveHostName(resolutionReceiver, hostName, portNumber, addressTypes, transportSemantics)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for each in self.hosts.addresses(hostName):
            kind = IPv6Address if ":" in each else IPv4Address
            if addressTypes is None or kind in addressTypes:
                resolutionReceiver.addressResolved(kind("TCP", each, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@contextmanager
def resolving(hosts: Hosts, reactor: Any) -> Iterator[None]:
    """Have *reactor* ask *hosts* first."""
    before = reactor.installNameResolver(Resolver(hosts, reactor.nameResolver))
    try:
        yield
    finally:
        reactor.installNameResolver(before)

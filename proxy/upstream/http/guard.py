"""Which addresses the names in an upstream's pages and redirects may lead to (SSRF).

Theory of operation. The host in an upstream's own URL was configured and may be anywhere. All other names come out of its pages
and redirects; where the upstream is a public one they must not lead into this machine or its network. What counts is the
address that is connected to, so each address is checked before it is connected to (:mod:`proxy.upstream.http.addresses`).
Through an outbound proxy names are resolved by that proxy; there only literal addresses can be checked.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from twisted.internet.error import ConnectError

from proxy.settings import UpstreamSettings
from proxy.upstream.http.origin import origin_of

#: Hosts and addresses about which it is remembered what they are: each request asks.
_REMEMBERED = 256

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@lru_cache(_REMEMBERED)
def is_address(host: str) -> bool:
    """Whether *host* is an IP address and no name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@lru_cache(_REMEMBERED)
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
    """The rule for the upstream of *settings*."""

    def __init__(self, settings: UpstreamSettings) -> None:
        #: The host of the upstream itself.
        self.home = origin_of(settings.url).host
        self._setting = settings.allow_private_addresses
        #: Whether the upstream itself is at a private address; ``None`` while that is not known.
        self._home_is_private: bool | None = is_private(self.home) if is_address(self.home) else None

    def undecided(self, host: str) -> bool:
        """Whether :meth:`allows` has to be asked about the addresses of :attr:`home` before it can decide about *host*."""
        return host != self.home and self._setting is None and self._home_is_private is None

    def allows(self, host: str, address: str) -> bool:
        """Whether a connection to *address* may be made for *host*; learns where the upstream itself is."""
        private = is_private(address)
        if host == self.home:
            self._home_is_private = private
            return True
        if not private or self._setting is not None:
            return not private or bool(self._setting)
        return bool(self._home_is_private)

"""Who sends a request: determined here alone, from its head and its connection, before any way to an answer is taken."""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import frozen

from proxy.access.forwarded import TrustedProxies
from proxy.access.principals import ANONYMOUS, Principal

_X_FORWARDED_FOR = re.compile(rb"(?i:\r\nx-forwarded-for):([^\r\n]*+)")
_FORWARDED = re.compile(rb"(?i:\r\nforwarded):([^\r\n]*+)")


@frozen(slots=True)
class Caller:
    """*address* is the client's as far as it is known; *by_proxy*: whether it is that of a proxy which may name another.

    *vouched_for*: whether a trusted proxy passed the request on, and has its say about the URL that the client used.  *local*:
    whether the connection comes from this machine.
    """

    address: str
    principal: Principal
    by_proxy: bool = False
    vouched_for: bool = False
    local: bool = False


class Callers:
    """Tells callers, behind proxies that are *trusted* by the address that these state."""

    def __init__(self, trusted: TrustedProxies) -> None:
        self._trusted = trusted

    def at(self, peer: str, own: str) -> Caller:
        """Who sends a request on a connection from the address *peer* to the address *own*, as far as the connection tells."""
        return Caller(peer, ANONYMOUS, self._trusted.trusts(peer), local=_is_local(peer, own))

    def of(self, raw: bytes, connected: Caller) -> Caller:
        """Who sends the request with the head *raw* on the connection of *connected*."""
        if not connected.by_proxy:
            return connected
        stated, forwarded = (
            [each.decode("latin-1") for each in field.findall(raw)] for field in (_X_FORWARDED_FOR, _FORWARDED)
        )
        client = self._trusted.client(connected.address, stated, forwarded)
        return Caller(client, connected.principal, vouched_for=True, local=connected.local)


def is_from_here(caller: Caller, raw: bytes) -> bool:
    """Whether a program on this machine sends the request with the head *raw* for itself, and passes on that of nobody else."""
    return caller.local and not (_X_FORWARDED_FOR.search(raw) or _FORWARDED.search(raw))


def _is_local(peer: str, own: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False  # a socket in the file system has no addresses
    mapped = getattr(address, "ipv4_mapped", None)  # as a socket for both kinds shows those of IPv4
    return peer == own or (mapped or address).is_loopback

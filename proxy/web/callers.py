"""Who sends a request: determined here alone, from its head and its connection, before any way to an answer is taken.

A head states at most a credential, or the user who has logged in at a trusted proxy.  Who stands behind a credential is found
out by :mod:`proxy.web.door`, for those requests that need one; a credential that nothing depends on is not looked at.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from msgspec import Struct

from proxy.access.forwarded import TrustedProxies
from proxy.access.principals import ANONYMOUS, Principal
from proxy.access.stated import StatedUsers

_X_FORWARDED_FOR = re.compile(rb"(?i:\r\nx-forwarded-for):([^\r\n]*+)")
_FORWARDED = re.compile(rb"(?i:\r\nforwarded):([^\r\n]*+)")


#: So many connections are told at a glance who is at the other end.
_REMEMBERED = 1024


class Caller(Struct, frozen=True):
    """*address* is the client's as far as it is known; *by_proxy*: whether it is that of a proxy which may name another.

    *vouched_for*: whether a trusted proxy passed the request on, and has its say about the URL that the client used.  *local*:
    whether the connection comes from this machine.  *confidential*: whether credentials are taken from it: nobody on the way
    could read them, or that does not matter here.
    """

    address: str
    principal: Principal
    by_proxy: bool = False
    vouched_for: bool = False
    local: bool = False
    confidential: bool = True


class Callers:
    """Tells callers, behind proxies that are *trusted* by the address that these state.

    *plaintext* is whether credentials may come unencrypted from other machines.  *stated* reads who has logged in at a proxy
    that is trusted, if these say so.
    """

    def __init__(self, trusted: TrustedProxies, *, plaintext: bool = False, stated: StatedUsers | None = None) -> None:
        self._trusted = trusted
        self._stated = stated
        self._plaintext = plaintext
        #: To read two addresses takes as long as to answer a hot request, and the same few machines connect again and again.
        self._at = lru_cache(_REMEMBERED)(self._introduced)

    def at(self, peer: str, own: str, *, secure: bool = False) -> Caller:
        """Who sends a request on a connection from the address *peer* to the address *own*, as far as the connection tells.

        *secure* is whether it is encrypted.
        """
        return self._at(peer, own, secure)

    def _introduced(self, peer: str, own: str, secure: bool) -> Caller:
        by_proxy, local = self._trusted.trusts(peer), _is_local(peer, own)
        # What has no address has come through a socket of the file system.
        confidential = secure or by_proxy or self._plaintext or local or peer == "-"
        return Caller(peer, ANONYMOUS, by_proxy, local=local, confidential=confidential)

    def of(self, raw: bytes, connected: Caller) -> Caller:
        """Who sends the request with the head *raw* on the connection of *connected*."""
        if not connected.by_proxy:
            return connected
        stated, forwarded = (
            [each.decode("latin-1") for each in field.findall(raw)] for field in (_X_FORWARDED_FOR, _FORWARDED)
        )
        client = self._trusted.client(connected.address, stated, forwarded)
        principal = connected.principal if self._stated is None else self._stated.principal(raw)
        return Caller(client, principal, vouched_for=True, local=connected.local, confidential=connected.confidential)


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

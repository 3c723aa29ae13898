"""Which addresses are those of one client, for all that is limited or counted per client.  Pure."""

from __future__ import annotations

from ipaddress import IPv6Address

#: The bits of an IPv6 address that a host chooses (RFC 4291 section 2.5.4).
_OWN_BITS = 64


def client_network(address: str) -> str:
    """What one client has addresses of: all of a /64 in IPv6, or else the *address*."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    mapped = found.ipv4_mapped
    return str(mapped) if mapped is not None else f"{IPv6Address(int(found) >> _OWN_BITS << _OWN_BITS)}/{128 - _OWN_BITS}"

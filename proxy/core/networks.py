"""Which addresses are those of one client, for all that is limited or counted per client.  Pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def client_network(address: str) -> str:
    """What one client has addresses of: all of a /64 in IPv6, or else the *address*."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    mapped = found.ipv4_mapped
    return str(mapped) if mapped is not None else str(ip_network((int(found) >> 64 << 64, 64)))

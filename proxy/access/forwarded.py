"""The address of a client behind reverse proxies (RFC 7239, and the older ``X-Forwarded-For``).

Whoever connects may write these fields.  They are believed only if the connection comes from a trusted proxy, and then from the
right: each proxy appends the address that it was called from, so the right-most address that is no trusted proxy is the first
that nobody vouches for, and the client.  What stands left of it is the client's own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from proxy.expressions import expression

_Network = IPv4Network | IPv6Network

#: One pair of a Forwarded element, and the whole field (RFC 7239 section 4), without escapes in quotes, which no address needs.
_PAIR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++|\"[^\"\\]*+\")"
_ELEMENT = rf"(?:{_PAIR})?(?:;(?:{_PAIR})?)*+"
_FORWARDED = expression(rf"[ \t]*+{_ELEMENT}[ \t]*+(?:,[ \t]*+{_ELEMENT}[ \t]*+)*+")
_QUOTED_OR_COMMA = expression(r"\"[^\"]*\"|,|[^\",]+")
_FOR = expression(r"(?:^|;)for=(?:\"([^\"]*)\"|([^;\"]*))", re.IGNORECASE)
#: An address as a proxy writes it, with or without a port.
_NODE = expression(r"\[([0-9A-Fa-f:.]{2,45})\](?::\w{1,16})?|([0-9.]{7,15})(?::\w{1,16})?|([0-9A-Fa-f:.]{2,45})")


def network_of(text: str) -> _Network:
    """The address or network *text* (``10.0.0.0/8``, ``::1``).  Raises ValueError."""
    return ip_network(text)


def network_around(text: str) -> _Network:
    """The network that the address in *text* (``10.0.0.1/8``) is in.  Raises ValueError."""
    return ip_network(text, strict=False)


class TrustedProxies:
    """Proxies whose word about their clients counts, as addresses and *networks*.  Raises ValueError for what is neither."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [network_of(each) for each in networks]

    def trusts(self, peer: str) -> bool:
        """Whether *peer* is one of them."""
        address = _address(peer)
        return address is not None and any(address in each for each in self._networks)

    def client(self, peer: str, x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> str:
        """The address of the client of a request that came from *peer* with these values of the two fields, in their order.

        If both fields are there and do not name the same client, *peer* is the client: a proxy that sets one of them passes the
        other on as it was written.
        """
        if not self.trusts(peer):
            return peer
        said = [
            self._first_unknown(peer, nodes)
            for nodes in (_of_x_forwarded_for(x_forwarded_for), _of_forwarded(forwarded))
            if nodes
        ]
        return said[0] if len(set(said)) == 1 else peer

    def _first_unknown(self, peer: str, nodes: Sequence[str | None]) -> str:
        """The right-most of *nodes* that is no trusted proxy; the last one that is, if there is no address beyond it."""
        client = peer
        for node in reversed(nodes):
            if node is None:
                break
            client = node
            if not self.trusts(node):
                break
        return client


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _node(text: str) -> str | None:
    """The address in *text*, ``None`` if it is none (``unknown``, ``_hidden``)."""
    found = _NODE.fullmatch(text.strip(" \t"))
    address = None if found is None else _address(found[1] or found[2] or found[3])
    return None if address is None else str(address)


def _of_x_forwarded_for(values: Sequence[str]) -> list[str | None]:
    return [_node(each) for value in values for each in value.split(",")]


def _of_forwarded(values: Sequence[str]) -> list[str | None]:
    nodes: list[str | None] = []
    for value in values:
        if not _FORWARDED.fullmatch(value):
            nodes.append(None)
            continue
        for element in _elements(value):
            stated = _FOR.search(element)
            nodes.append(None if stated is None else _node(stated[1] or stated[2] or ""))
    return nodes


def _elements(value: str) -> Iterator[str]:
    """What stands between the commas that are in no quotes."""
    pieces: list[str] = []
    for piece in _QUOTED_OR_COMMA.findall(value):
        if piece == ",":
            yield "".join(pieces).strip(" \t")
            pieces = []
        else:
            pieces.append(piece)
    yield "".join(pieces).strip(" \t")

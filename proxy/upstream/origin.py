"""Origins: to whom credentials may go, and which hosts and addresses may be asked at all."""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit

from attrs import frozen

from proxy.upstream.failures import Failed

#: Redirects followed for one request.
MOST_REDIRECTS = 5

_PORTS = {"http": 80, "https": 443}


@frozen(slots=True)
class Origin:
    """Scheme, host and port (RFC 6454)."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """The origin of *url*.  Raises Failed for what is no http(s) URL with a host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Failed(f"points to {url!r}, which is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise Failed(f"points to {url!r}, which is no http or https URL")
    return Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])


def redirected(url: str, location: str | None, status: int) -> str:
    """The absolute URL that a redirect from *url* leads to.  Raises Failed for one that must not be followed."""
    if not location:
        raise Failed(f"answered {status} without a Location")
    target = urljoin(url, location)
    if origin_of(url).scheme == "https" and origin_of(target).scheme != "https":
        raise Failed(f"redirects from https to {target!r}, which is not followed")
    return target.partition("#")[0]


def host_allowed(host: str, patterns: tuple[str, ...]) -> bool:
    """Whether *host* is one of *patterns* (``*.example.com`` matches everything below it)."""
    return any(host == each or (each.startswith("*.") and host.endswith(each[1:])) for each in map(str.lower, patterns))


def is_private(address: str) -> bool:
    """Whether an IP address leads into this machine or this network and not to the Internet (loopback, link-local, …)."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return not (mapped or ip).is_global or ip.is_multicast

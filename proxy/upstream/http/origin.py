"""Origins: to whom credentials may go, and which hosts and addresses may be asked at all."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from proxy.simple.links import LONGEST, shown
from proxy.upstream.http.failures import Failed

#: Redirects followed for one request.
MOST_REDIRECTS = 5

_LAST_PORT = 65_535
_PORTS = {"http": 80, "https": 443}
#: URLs whose origin is remembered: each request asks for that of its own several times.
_REMEMBERED = 256
_SAFE = "%/:=&~+!$,;'@()*[]"
#: A URL that is asked for as it is: scheme, host, port, and path with query.
_PLAIN = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::([1-9][0-9]{0,4}))?(/[\w%/:=&~+!$,;'@()*.-]*(?:\?[\w%/:=&~+!$,;'@()*?.-]+)?)",
    re.ASCII,
)
_NO_HOST = re.compile(r"[\x00-\x20\x7f\\<>\"^`{|}]")


class Origin(NamedTuple):
    """Scheme, host and port (RFC 6454).  A tuple: it is the key of several tables that each request looks into."""

    scheme: str
    host: str
    port: int


class RequestTarget(NamedTuple):
    """What a URL is asked for by (RFC 9112 section 3.2): its origin, the absolute and the origin form, and ``Host``."""

    origin: Origin
    absolute: str
    form: str
    host: str


@lru_cache(_REMEMBERED)
def origin_of(url: str) -> Origin:
    """The origin of *url*.  Raises Failed for what is no http(s) URL with a host."""
    plain = _PLAIN.fullmatch(url)
    if plain is not None:
        scheme, host, stated, _ = plain.groups()
        number = _PORTS[scheme] if stated is None else int(stated)
        if number <= _LAST_PORT:
            return Origin(scheme, host, number)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Failed(f"points to {shown(url)}, which is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise Failed(f"points to {shown(url)}, which is no http or https URL")
    return Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])


def redirected(url: str, location: str | None, status: int) -> str:
    """The absolute URL that a redirect from *url* leads to.  Raises Failed for one that must not be followed.

    Servers behind something that ends TLS for them redirect to http on their own host (Artifactory, without the slash): what
    is meant is where they were asked.
    """
    if not location:
        raise Failed(f"answered {status} without a Location")
    if len(location) > LONGEST:
        raise Failed(f"redirects to a URL of {len(location):,} characters")
    try:
        target = urljoin(url, location.strip())
    except ValueError:
        raise Failed(f"redirects to {shown(location)}, which is no URL") from None
    before, after = origin_of(url), origin_of(target)
    if before.scheme == "https" and after.scheme != "https":
        if after.host != before.host:
            raise Failed(f"redirects from https to {shown(target)}, which is not followed")
        target = urlunsplit(("https", urlsplit(url).netloc, *urlsplit(target)[2:]))
    return target.partition("#")[0]


def target_of(url: str) -> RequestTarget:
    """What *url* is asked for by: without user information, and what has no place in a URL percent-encoded.

    Raises Failed for what is no URL that can be asked for.
    """
    plain = _PLAIN.fullmatch(url)
    if plain is not None:
        origin, form, absolute = origin_of(url), plain[4], url
    else:
        origin = origin_of(url)
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        path, query = quote(parts.path, safe=_SAFE), quote(parts.query, safe=_SAFE + "?")
        if not netloc.isascii() or _NO_HOST.search(netloc):
            raise Failed(f"points to {shown(url)}, which is no URL that can be asked for")
        form = f"{path or '/'}{query and '?'}{query}"
        absolute = f"{parts.scheme}://{netloc}{form}"
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return RequestTarget(origin, absolute, form, host if origin.port == _PORTS[origin.scheme] else f"{host}:{origin.port}")


def host_allowed(host: str, patterns: tuple[str, ...]) -> bool:
    """Whether *host* is one of *patterns* (``*.example.com`` matches everything below it)."""
    return any(host == each or (each.startswith("*.") and host.endswith(each[1:])) for each in map(str.lower, patterns))

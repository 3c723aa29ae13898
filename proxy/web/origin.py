"""What the client calls this proxy: scheme, host and port as they are in the client's own URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from proxy.expressions import expression
from proxy.web.answers import Ask

_HOST = expression(r"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
#: The longest name of a host (RFC 1035), and a port.
_LONGEST_HOST = 253 + len(":65535")


def origin(ask: Ask) -> str:
    """``scheme://host`` as the client calls us; behind a trusted proxy that says so, as it calls that one.

    ``X-Forwarded-Proto`` and ``X-Forwarded-Host`` precede the connection and ``Host`` if a trusted proxy sends them; of several
    values the first is the client's.
    """
    stated = _forwarded(ask, "x-forwarded-proto").lower()
    scheme = stated if stated in ("http", "https") else "https" if ask.secure else "http"
    host = _forwarded(ask, "x-forwarded-host") or ask.header("host") or ""
    return f"{scheme}://{host if _is_host(host) else 'localhost'}"


def _forwarded(ask: Ask, name: str) -> str:
    """The first value of the header *name*, empty unless a trusted proxy sends it."""
    return (ask.header(name) or "").partition(",")[0].strip() if ask.caller.vouched_for else ""


def _is_host(host: str) -> bool:
    """Whether *host* can be that of a URL."""
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        return False
    try:
        urlsplit(f"//{host}")
    except ValueError:  # no address of IPv6
        return False
    return True

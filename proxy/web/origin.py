"""What the client calls this proxy: scheme, host and port as they are in the client's own URL."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from proxy.web.answers import Ask

_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
#: The longest name of a host (RFC 1035), and a port.
_LONGEST_HOST = 253 + len(":65535")


def origin(ask: Ask) -> str:
    """``scheme://host`` as the client calls us; behind a proxy that says so, as it calls that one.

    ``X-Forwarded-Host`` goes before ``Host`` if a trusted proxy sends it; of several values the first is the client's.
    """
    stated = (ask.header("x-forwarded-proto") or "").lower()
    scheme = stated if stated in ("http", "https") else "https" if ask.secure else "http"
    forwarded = ask.header("x-forwarded-host") if ask.caller.vouched_for else None
    host = forwarded.partition(",")[0].strip() if forwarded else ask.header("host") or ""
    return f"{scheme}://{host if _is_host(host) else 'localhost'}"


def _is_host(host: str) -> bool:
    """Whether *host* can be that of a URL."""
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        return False
    try:
        urlsplit(f"//{host}")
    except ValueError:  # no address of IPv6
        return False
    return True

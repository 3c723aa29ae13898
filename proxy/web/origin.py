"""What the client calls this proxy: scheme, host and port as they are in the client's own URL."""

from __future__ import annotations

import re

from proxy.web.answers import Ask

_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
#: The longest name of a host (RFC 1035), and a port.
_LONGEST_HOST = 253 + len(":65535")


def origin(ask: Ask) -> str:
    """``scheme://host`` as the client calls us; behind a proxy that says so, as it calls that one."""
    stated = (ask.header("x-forwarded-proto") or "").lower()
    scheme = stated if stated in ("http", "https") else "https" if ask.secure else "http"
    host = ask.header("host") or ""
    return f"{scheme}://{host if len(host) <= _LONGEST_HOST and _HOST.fullmatch(host) else 'localhost'}"

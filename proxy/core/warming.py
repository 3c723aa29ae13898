"""How requests of ``pypiproxy warm`` say what they are, so that they are not counted as those of clients.

Its own requests have a ``User-Agent`` of their own.  Those of the resolver that it runs cannot: they have a user name instead,
which comes from the URL of the index that the resolver is given, without a password.  Anybody may write both, so they count on
connections from the proxy's own machine only (:func:`proxy.web.callers.is_from_here`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

#: The ``User-Agent``, and the user name.
AGENT = "pypiproxy-warm"
#: What is counted in place of the cache status.
WORD = "warm"

_AUTHORIZATION = b"Basic " + base64.b64encode(f"{AGENT}:".encode())


def marked(url: str) -> str:
    """*url* with the user name; unchanged if it has one that somebody in front of the proxy may ask for."""
    parts = urlsplit(url)
    return url if "@" in parts.netloc else urlunsplit(parts._replace(netloc=f"{AGENT}@{parts.netloc}"))


def marks(credential: bytes) -> bool:
    """Whether *credential* (the value of ``Authorization``) says of a request that it is one of warm, with a password or none.

    The user name has a length at which base64 begins anew, so whatever follows it has no part in how that begins.
    """
    return credential.startswith(_AUTHORIZATION)


def is_mark(credential: bytes) -> bool:
    """Whether *credential* says that and nothing else: it has no password."""
    return credential == _AUTHORIZATION


def is_warming(agent: str, fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request with this ``User-Agent`` and these header fields (names in lower case) calls itself one of warm."""
    return agent == AGENT or any(name == b"authorization" and marks(value) for name, value in fields)

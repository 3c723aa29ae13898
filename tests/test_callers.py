"""Who sends a request: what the connection and the head of the request tell of it."""

from __future__ import annotations

import pytest

from proxy.access.forwarded import TrustedProxies
from proxy.web.callers import Callers, is_from_here


@pytest.mark.parametrize(
    ("peer", "own", "head", "here"),
    [
        ("127.0.0.1", "127.0.0.1", b"", True),
        ("127.8.8.8", "127.0.0.1", b"", True),
        ("::1", "::1", b"", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", b"", True),
        ("192.0.2.1", "192.0.2.1", b"", True),
        ("192.0.2.2", "192.0.2.1", b"", False),
        ("2001:db8::2", "2001:db8::1", b"", False),
        ("-", "-", b"", False),
        ("127.0.0.1", "127.0.0.1", b"\r\nX-Forwarded-For: 127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", b"\r\nforwarded: for=127.0.0.1", False),
    ],
)
@pytest.mark.parametrize("trusted", [(), ("127.0.0.1", "::1")], ids=["no proxy", "a trusted proxy"])
def test_from_here_is_who_connects_from_this_machine_for_itself(
    trusted: tuple[str, ...], peer: str, own: str, head: bytes, here: bool
) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: x" + head + b"\r\n\r\n"
    callers = Callers(TrustedProxies(trusted))
    assert is_from_here(callers.of(raw, callers.at(peer, own)), raw) is here

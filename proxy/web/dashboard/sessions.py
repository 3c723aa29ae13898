"""Who has logged in with a browser: a session is a random value in a cookie, and nothing that is stored here is of use without.

Theory of operation.  What a browser sends at a login is a credential like any other.  It is kept encrypted by a key that is
made of the cookie's value, which is not kept: whoever reads this process's memory later finds neither.  Each request of a
session has the credential examined anew, by the accounts, which remember it for a minute.  So a password that is changed, a
user that is removed or a token that is revoked ends its sessions, and rights are those of now.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import OrderedDict

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from proxy.access.principals import Principal
from proxy.representing import repr_without
from proxy.web.answers import Ask
from proxy.web.origin import origin

#: Sessions at the most, also of one principal, and for how long one lasts (seconds).
_MOST, _MOST_OF_ONE, _LASTS = 1000, 20, 12 * 3600.0
#: What the cookie is called over https, where browsers see to it that nobody else has set it, and over http.
_SECURE, _PLAIN = "__Host-pypiproxy", "pypiproxy"
_VALUE = re.compile(r"[0-9a-f]{64}")
_NONCE = b"\0" * 12  # each key encrypts one message


class _Session(Struct, frozen=True):
    sealed: bytes
    until: float
    owner: str

    __repr__ = repr_without("sealed")


class BrowserSessions:
    """All of them, in memory: they end with the process."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._key = os.urandom(32)

    def begin(self, principal: Principal, credential: bytes, ask: Ask) -> str:
        """Begin a session of *principal*, who sent *ask* with *credential*.  Returns the header that sets its cookie."""
        self.end(ask)  # who logs in again leaves none behind
        secret = os.urandom(32).hex()
        owner = str(principal)
        # Nobody ends the sessions of others by logging in again and again.
        theirs = [name for name, each in self._sessions.items() if each.owner == owner]
        if len(theirs) >= _MOST_OF_ONE:
            del self._sessions[theirs[0]]
        self._sessions[_name(secret)] = _Session(_seal(secret, credential), self._reactor.seconds() + _LASTS, owner)
        while len(self._sessions) > _MOST:
            self._sessions.popitem(last=False)
        return _cookie(ask, secret, int(_LASTS))

    def credential(self, ask: Ask) -> bytes | None:
        """The credential of the session that *ask* belongs to, as ``Authorization`` would have it; ``None`` without one."""
        secret = _secret(ask)
        if secret is None or not ask.caller.confidential:
            return None
        session = self._sessions.get(_name(secret))
        if session is None:
            return None
        if session.until <= self._reactor.seconds():
            del self._sessions[_name(secret)]
            return None
        return _unseal(secret, session.sealed)

    def end(self, ask: Ask) -> str:
        """End the session that *ask* belongs to, if any.  Returns the header that removes its cookie."""
        secret = _secret(ask)
        if secret is not None:
            self._sessions.pop(_name(secret), None)
        return _cookie(ask, "", 0)

    def form_token(self, ask: Ask, principal: Principal) -> str:
        """What forms for *principal*, who sends *ask*, have in them, and nobody else can know."""
        bound = _secret(ask) or ""
        return hmac.digest(self._key, f"{bound}\0{principal}".encode(), "sha256").hex()

    def is_ours(self, token: str, ask: Ask, principal: Principal) -> bool:
        """Whether *token* is of a form for *principal*, who sends *ask*."""
        return hmac.compare_digest(token.encode(), self.form_token(ask, principal).encode())


def _is_https(ask: Ask) -> bool:
    return origin(ask).startswith("https:")


def _cookie(ask: Ask, value: str, lasts: int) -> str:
    https = _is_https(ask)
    name = _SECURE if https else _PLAIN
    return f"{name}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{'; Secure' if https else ''}"


def _secret(ask: Ask) -> str | None:
    name = _SECURE if _is_https(ask) else _PLAIN
    for each in (ask.header("cookie") or "").split(";"):
        key, _, value = each.strip().partition("=")
        if key == name and _VALUE.fullmatch(value):
            return value
    return None


def _name(secret: str) -> str:
    return hashlib.sha256(b"name" + bytes.fromhex(secret)).hexdigest()


def _seal(secret: str, credential: bytes) -> bytes:
    # Few services have anybody who logs in.
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(_cipher_key(secret)).encrypt(_NONCE, credential, None)


def _unseal(secret: str, sealed: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(_cipher_key(secret)).decrypt(_NONCE, sealed, None)


def _cipher_key(secret: str) -> bytes:
    return hashlib.sha256(b"key" + bytes.fromhex(secret)).digest()

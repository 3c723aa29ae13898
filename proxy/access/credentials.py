"""Credentials as clients send them: Basic with a password or a token, or Bearer with a token (RFC 7617, RFC 6750)."""

from __future__ import annotations

import binascii
import re

from msgspec import Struct

from proxy.access.tokens import is_token
from proxy.representing import repr_without

#: A scheme, and what RFC 9110 section 11.2 has for a single value after it.
_VALUE = re.compile(rb"([A-Za-z]+) +([A-Za-z0-9._~+/-]+=*) *", re.ASCII)
#: The longest user name and password that are looked at (bytes).
_LONGEST = 1024


class PasswordLogin(Struct, frozen=True):
    """A *user* with a *password*, as bytes of UTF-8."""

    user: str
    password: bytes

    __repr__ = repr_without("password")


class TokenLogin(Struct, frozen=True):
    """The *text* of a token; its checksum is right."""

    text: str

    __repr__ = repr_without("text")


Login = PasswordLogin | TokenLogin


def login_of(value: bytes) -> Login | None:
    """What the field ``Authorization`` with *value* says; ``None`` if that can be no credential.

    A token is taken as the password of any user name: that is how clients without Bearer send one.
    """
    found = _VALUE.fullmatch(value)
    if found is None:
        return None
    scheme, said = found[1].lower(), found[2]
    if scheme == b"bearer":
        return _token(said)
    if scheme != b"basic":
        return None
    try:
        pair = binascii.a2b_base64(said, strict_mode=True)
    except binascii.Error:
        return None
    user, colon, password = pair.partition(b":")
    if not colon:
        return None
    token = _token(password)
    if token is not None:
        return token
    if max(len(user), len(password)) > _LONGEST:
        return None
    return PasswordLogin(_as_utf_8(user).decode("utf-8"), _as_utf_8(password))


def _token(said: bytes) -> TokenLogin | None:
    text = said.decode("ascii", "replace")
    return TokenLogin(text) if is_token(text) else None


def _as_utf_8(text: bytes) -> bytes:
    """*text* in UTF-8; what is none is Latin-1, in which pip and others encode both parts."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1").encode("utf-8")
    return text

"""Users whom a trusted reverse proxy states in headers of its requests: it has had them log in.

Whoever connects may write these fields, so only what comes from a trusted proxy is read here.  Such a proxy sets the fields or
removes them; one that adds its own to what a client sent leaves two, which name nobody.
"""

from __future__ import annotations

import re
from functools import lru_cache

from proxy.access.principals import ANONYMOUS, Principal, PrincipalKind, is_user_name

#: Groups of one user that count, and users that are kept as they were read.
_MOST_GROUPS, _USERS = 1000, 1024


class StatedUsers:
    """Reads the name of the user from *user_header*, and the groups from *groups_header* if there is one."""

    def __init__(self, user_header: str, groups_header: str | None) -> None:
        self._user = _field(user_header)
        self._groups = None if groups_header is None else _field(groups_header)

    def principal(self, raw: bytes) -> Principal:
        """Whom the head *raw* of a trusted proxy's request states."""
        users = self._user.findall(raw)
        groups = [] if self._groups is None else self._groups.findall(raw)
        if len(users) != 1 or len(groups) > 1:
            return ANONYMOUS
        return _principal(users[0], groups[0] if groups else b"")


def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n(?i:%b):([^\r\n]*+)" % re.escape(name.encode("ascii")))


@lru_cache(_USERS)
def _principal(user: bytes, groups: bytes) -> Principal:
    name = _text(user)
    if not is_user_name(name):
        return ANONYMOUS
    stated = [each.strip() for each in _text(groups).split(",")]
    return Principal(PrincipalKind.USER, name, groups=frozenset([each for each in stated if each][:_MOST_GROUPS]))


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.strip(" \t")

"""Principals: who a request comes from."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from msgspec import Struct

from proxy.access.roles import Extent, Role, Scope
from proxy.representing import repr_without

_USER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]*[A-Za-z0-9])?")
#: The longest name of a user.
_LONGEST_USER = 100

_NOBODY: frozenset[str] = frozenset()

#: What grants call everybody, and everybody whose credential is right.
EVERYBODY, AUTHENTICATED = "anonymous", "authenticated"
#: How grants begin the name of a CI job.
OF_JOB = "ci"


class PrincipalKind(enum.Enum):
    """What a principal is; the value is how its name begins in grants and in the audit log."""

    ANONYMOUS = "anonymous"
    USER = "user"
    TOKEN = "token"  # noqa: S105  # the kind, no secret
    #: A part of this proxy that asks for something by itself.
    PART = "part"


class Principal(Struct, frozen=True, cache_hash=True):
    """Someone who asks: the user called *name*, the token with that id, a part of the proxy, or a client that says nothing.

    *user* is whose token it is; *job* is the CI job that it was minted for.  *groups* are those that it brings along, besides
    those of the configuration.  *own* is what a token may do by itself, ``None`` where it may do what its user may; *narrowed*
    are the extents that its holders have confined it to: it may do only what is in each of them.
    """

    kind: PrincipalKind
    name: str
    user: str | None = None
    groups: frozenset[str] = _NOBODY
    own: tuple[Scope, ...] | None = None
    narrowed: tuple[Extent, ...] = ()
    job: str | None = None

    __repr__ = repr_without("groups")

    def __str__(self) -> str:
        """How the audit log names it."""
        if self.kind is PrincipalKind.ANONYMOUS:
            return self.name
        of = f" of {self._holder}" if self._holder is not None else ""
        return f"{subject(self.kind, self.name)}{of}"

    @property
    def _holder(self) -> str | None:
        """Whose token it is."""
        if self.user is not None:
            return subject(PrincipalKind.USER, self.user)
        return None if self.job is None else f"{OF_JOB}:{self.job}"

    @property
    def is_anonymous(self) -> bool:
        return self.kind is PrincipalKind.ANONYMOUS

    @property
    def uploads_as(self) -> str:
        """Who is noted as the uploader: a token uploads for its user, and its successor goes on for the same."""
        if self._holder is not None:
            return self._holder
        return self.name if self.is_anonymous else subject(self.kind, self.name)

    def subjects(self, groups: Mapping[str, frozenset[str]]) -> frozenset[str]:
        """Those that it is of those that grants name; *groups* are the users by group.

        A token that has rights of its own is no stand-in for its user: it is none of the groups, and not ``authenticated``.
        """
        if self.is_anonymous:
            return frozenset({EVERYBODY})
        found = {EVERYBODY, subject(self.kind, self.name)}
        if self.job is not None:
            found.add(f"{OF_JOB}:{self.job}")
        if self.kind is PrincipalKind.PART or self.own is not None:
            return frozenset(found)
        found.add(AUTHENTICATED)
        user = self.user if self.kind is PrincipalKind.TOKEN else self.name if self.kind is PrincipalKind.USER else None
        if user is not None:
            found.add(subject(PrincipalKind.USER, user))
        stated = frozenset(map(in_group, self.groups))
        found |= {in_group(name) for name, users in groups.items() if user in users or not stated.isdisjoint(users)}
        return frozenset(found)


def is_user_name(name: str) -> bool:
    """Whether *name* is one that a user may have: letters, digits and, inside, any of ``. _ @ + -``."""
    return len(name) <= _LONGEST_USER and _USER.fullmatch(name) is not None


class DirectoryUser(Struct, frozen=True):
    """A user as a directory knows it: the *name* in its spelling, and its *groups*."""

    name: str
    groups: frozenset[str] = _NOBODY


def subject(kind: PrincipalKind, name: str) -> str:
    """How a grant names the principal *name* of *kind*."""
    return f"{kind.value}:{name}"


def in_group(name: str) -> str:
    """How a grant names those in the group *name*."""
    return f"group:{name}"


#: A client that says nothing of who it is, or whose word is not needed.
ANONYMOUS = Principal(PrincipalKind.ANONYMOUS, EVERYBODY)
#: The parts of the proxy that ask for something: what [warm] names, what resolvers will ask for, operators' commands.
WARM, PREFETCH, OPERATOR = (Principal(PrincipalKind.PART, name) for name in ("warm", "prefetch", "admin"))
PARTS = (WARM, PREFETCH, OPERATOR)
#: What they may do without any grant.
OF_PARTS: Mapping[Principal, tuple[Scope, ...]] = {
    WARM: (Scope(Role.READER),),
    PREFETCH: (Scope(Role.READER),),
    OPERATOR: (Scope(Role.ADMIN),),
}

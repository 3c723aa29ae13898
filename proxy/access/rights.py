"""Who may do what: one decision, made once per request before anything is answered.

A decision depends on the index, the name of the project and the credential, never on whether the project exists.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from proxy.access.principals import ANONYMOUS, OF_PARTS, Principal
from proxy.access.roles import PERMITS, Extent, Permission, Role, Scope
from proxy.errors import RightsUnknown, StorageFailed
from proxy.model import EMPTY

__all__ = ["Access", "FirstUploader", "Grant", "GrantedRights", "OpenReading", "Permission", "Rights"]

#: Of so many principals it is remembered where they have roles.
_KNOWN = 4096
#: So many answers about reading are remembered.
_DECIDED = 50_000
#: Who uploaded first to (index, project), as :attr:`Principal.uploads_as`; ``None``: nobody.  Raises StorageFailed.
FirstUploader = Callable[[str, str], str | None]


class Access(enum.Enum):
    """What becomes of a request."""

    ALLOWED = "allowed"
    #: As if there were nothing: 404.
    HIDDEN = "hidden"
    #: A credential is wanted: 401.
    LOGIN = "login"


class Rights(Protocol):
    """What the configuration, and what is granted at run time, let each principal do."""

    def may(self, principal: Principal, permission: Permission, index: str, project: str | None) -> Access:
        """Whether *principal* may use *permission* on *project* (normalised) of *index*; ``None``: to the index as such.

        Raises RightsUnknown while that cannot be told.
        """

    def reads_all(self, principal: Principal, index: str) -> bool:
        """Whether *principal* may read every project of *index*, whatever its name."""

    def standing(self, principal: Principal) -> Hashable:
        """Another value for *principal* than for one who may read something else."""


#: In Python 3.11 a member of an enumeration takes long to find.
_READ, _ALLOWED = Permission.READ, Access.ALLOWED


class Grant(Struct, frozen=True):
    """*principals*, as grants name them (``user:alice``, ``group:web``, ``authenticated`` …), have a role in *scope*."""

    scope: Scope
    principals: tuple[str, ...]


def nobody(index: str, project: str) -> str | None:
    """The first uploader where nothing is ever uploaded."""
    return None


class GrantedRights:
    """The rights that *grants* give, and the grants that tokens carry.  *groups* are the users in each group.

    Everybody may read an index until a grant of the role ``reader`` covers it, or one of the extents *restricting*: where
    others than these grants make readers.  What everybody may do, nobody loses by a credential.
    """

    def __init__(
        self,
        grants: Iterable[Grant] = (),
        groups: Mapping[str, Collection[str]] = EMPTY,
        first_uploader: FirstUploader = nobody,
        restricting: Iterable[Extent] = (),
    ) -> None:
        self._grants = tuple(grants)
        self._groups = {name: frozenset(users) for name, users in groups.items()}
        self._first_uploader = first_uploader
        of_readers = (each.scope.extent for each in self._grants if each.scope.role is Role.READER)
        self._restricting = (*of_readers, *restricting)
        self._known: dict[Principal, tuple[Scope, ...]] = {}
        self._reads: dict[tuple[Principal, str, str | None], Access] = {}

    def may(self, principal: Principal, permission: Permission, index: str, project: str | None) -> Access:
        if permission is not _READ:
            return self._decide(principal, permission, index, project)
        if not self._restricting:
            return _ALLOWED
        # Grants never change, and who reads reads the same again and again.
        asked = (principal, index, project)
        found = self._reads.get(asked)
        if found is None:
            if len(self._reads) >= _DECIDED:
                self._reads.clear()
            found = self._reads[asked] = self._decide(principal, permission, index, project)
        return found

    def _decide(self, principal: Principal, permission: Permission, index: str, project: str | None) -> Access:
        if permission is _READ and not self._is_restricted(index):
            return Access.ALLOWED
        if self._holds(ANONYMOUS, permission, index, project):
            return Access.ALLOWED
        if principal.is_anonymous:
            return Access.LOGIN
        return Access.ALLOWED if self._holds(principal, permission, index, project) else Access.HIDDEN

    def reads_all(self, principal: Principal, index: str) -> bool:
        return not self._is_restricted(index) or any(
            any(Permission.READ in PERMITS[scope.role] and scope.extent.is_whole(index) for scope in self._scopes(each))
            and all(extent.is_whole(index) for extent in each.narrowed)
            for each in (ANONYMOUS, principal)
        )

    def standing(self, principal: Principal) -> Hashable:
        return frozenset(self._scopes(principal)), principal.narrowed

    def _is_restricted(self, index: str) -> bool:
        return any(extent.includes_index(index) for extent in self._restricting)

    def _scopes(self, principal: Principal) -> tuple[Scope, ...]:
        """Where *principal* has a role, whatever it was narrowed to."""
        found = self._known.get(principal)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            subjects = principal.subjects(self._groups)
            granted = (each.scope for each in self._grants if not subjects.isdisjoint(each.principals))
            found = self._known[principal] = (*granted, *(principal.own or ()), *OF_PARTS.get(principal, ()))
        return found

    def _holds(self, principal: Principal, permission: Permission, index: str, project: str | None) -> bool:
        """Whether *principal* has been given *permission* there."""
        if not all(_includes(extent, permission, index, project) for extent in principal.narrowed):
            return False
        return any(
            permission in PERMITS[scope.role]
            and _includes(scope.extent, permission, index, project)
            and (scope.role is not Role.MAINTAINER or project is None or self._began(principal, index, project))
            for scope in self._scopes(principal)
        )

    def _began(self, principal: Principal, index: str, project: str) -> bool:
        """Whether *principal* uploaded to *project* first."""
        try:
            return not principal.is_anonymous and self._first_uploader(index, project) == principal.uploads_as
        except StorageFailed as error:
            raise RightsUnknown(f"who uploaded {project} first cannot be read for now: {error}") from error


def _includes(extent: Extent, permission: Permission, index: str, project: str | None) -> bool:
    # All of an index is administered by who administers all of its projects.
    if project is None and permission is Permission.ADMINISTER:
        return extent.is_whole(index)
    return extent.includes(index, project)


class OpenReading(GrantedRights):
    """The rights where nothing is granted: everybody may read, and only who has a token may change anything."""

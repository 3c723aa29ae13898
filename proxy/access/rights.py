"""Who may do what: one decision, made once per request before anything is answered.

A decision depends on the index, the name of the project and the credential, never on whether the project exists.
"""

from __future__ import annotations

import enum
from typing import Protocol

from proxy.access.principals import Principal


class Permission(enum.Enum):
    """What a request wants to do."""

    #: See a page, a file or what is beside them; without a project: the list.
    READ = "read"
    #: Add a file; without a project: to some project of the index.
    UPLOAD = "upload"
    #: Yank, delete, or change the status of what is there.
    MAINTAIN = "maintain"
    #: All else that operators do.
    ADMINISTER = "administer"


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


class OpenReading:
    """The rights where nothing is granted: everybody may read, nobody may change anything."""

    def may(self, principal: Principal, permission: Permission, index: str, project: str | None) -> Access:
        return Access.ALLOWED if permission is Permission.READ else Access.LOGIN

    def reads_all(self, principal: Principal, index: str) -> bool:
        return True

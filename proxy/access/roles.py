"""Roles: what each permits, and where somebody has one.

An uploader may also read what it may upload to, and an administrator may do everything; no other role implies another.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache

from msgspec import Struct

#: A dash at an end of it is one inside of the names that it stands for.
_PATTERN = re.compile(r"[A-Za-z0-9._*?-]{1,246}", re.ASCII)
#: Stands for every index, and as a pattern for every project.
ALL = "*"


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


class Role(enum.Enum):
    """What somebody is to an index, or to some projects of it."""

    READER = "reader"
    UPLOADER = "uploader"
    #: Of those projects alone that it uploaded to first.
    MAINTAINER = "maintainer"
    ADMIN = "admin"


#: What each role permits.
PERMITS: Mapping[Role, frozenset[Permission]] = {
    Role.READER: frozenset({Permission.READ}),
    Role.UPLOADER: frozenset({Permission.READ, Permission.UPLOAD}),
    Role.MAINTAINER: frozenset({Permission.MAINTAIN}),
    Role.ADMIN: frozenset(Permission),
}


class Extent(Struct, frozen=True):
    """Some *projects* of some *indexes*: patterns of normalised names (``*`` and ``?``), and names of indexes."""

    indexes: tuple[str, ...] = (ALL,)
    projects: tuple[str, ...] = (ALL,)

    def includes_index(self, index: str) -> bool:
        """Whether anything of *index* is in it."""
        return ALL in self.indexes or index in self.indexes

    def includes(self, index: str, project: str | None) -> bool:
        """Whether *project* (normalised) of *index* is in it; ``None``: whether some project of *index* may be."""
        return self.includes_index(index) and (project is None or fits(project, self.projects))

    def is_whole(self, index: str) -> bool:
        """Whether every project of *index* is in it, whatever its name."""
        return self.includes_index(index) and ALL in self.projects


class Scope(Struct, frozen=True):
    """A *role* and where it is held."""

    role: Role
    extent: Extent = Extent()


def is_pattern(text: str) -> bool:
    """Whether *text* is a pattern of names of projects, in any spelling."""
    return _PATTERN.fullmatch(text) is not None


def fits(project: str, patterns: tuple[str, ...]) -> bool:
    """Whether the name *project* (normalised) fits one of *patterns*."""
    return ALL in patterns or _expression(patterns).match(project) is not None


@lru_cache(maxsize=1024)
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    # Names and patterns are both of a-z, 0-9 and dashes, and what translate() makes of a star never goes back.
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")

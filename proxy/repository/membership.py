"""Which members of a group are asked for a project: decided by its name and by claims, whatever the members have."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from proxy.errors import NameAbandoned
from proxy.interfaces import IClaims


@frozen
class Course:
    """The *members* that are asked for a project, in this order: the first that has it counts, or all of them *united*."""

    members: Sequence[str]
    united: bool = False


@frozen
class Membership:
    """The members of the group *name*, groups among them replaced by what they consist of: *hosted* ones and *proxies*.

    Projects in *merge* come from all of them.
    """

    name: str
    hosted: tuple[str, ...]
    proxies: tuple[str, ...]
    merge: frozenset[str]
    claims: IClaims

    @property
    def everybody(self) -> tuple[str, ...]:
        """Hosted ones first."""
        return self.hosted + self.proxies

    @property
    def rules(self) -> str:
        """What, apart from claims, decides where projects come from, in one line."""
        owns = self.claims.patterns(self.hosted) if self.hosted else ""
        return f"{self.everybody} {sorted(self.merge)} {owns}"

    def course(self, project: str) -> Course:
        """Who is asked for *project* (normalised).  Raises NameAbandoned, StorageFailed."""
        if not self.hosted:
            return Course(self.proxies, project in self.merge)
        abandoned = self.claims.abandoned(project)
        if abandoned:
            first = self.hosted[0]
            raise NameAbandoned(
                f"{project} is claimed by {', '.join(abandoned)}, which is not configured any more, so that {self.name} does "
                f"not serve it: pypiproxy claims add {first} {project} gives it to {first}, "
                f"pypiproxy claims release {abandoned[0]} {project} lets anybody have it"
            )
        if project in self.merge:
            return Course(self.everybody, united=True)
        for index in self.hosted:
            if self.claims.claimed(index, project):
                return Course((index,))
        return Course(self.proxies)

    def owner(self, project: str) -> str:
        """Whose rights count for *project*.  Raises StorageFailed."""
        for index in self.hosted:
            if self.claims.claimed(index, project) or (project in self.merge and self.claims.held(index, project) is not None):
                return index
        return self.everybody[0] if self._is_abandoned(project) else (self.proxies or self.hosted)[0]

    def _is_abandoned(self, project: str) -> bool:
        return bool(self.hosted) and bool(self.claims.abandoned(project))

    def shows(self, member: str, project: str) -> bool:
        """Whether the *project* of *member* is what clients get.  Raises StorageFailed."""
        if project in self.merge:
            return not self._is_abandoned(project)
        if member in self.proxies:
            return not self.hosted or not self.claims.reserved(self.hosted, project)
        try:
            return member in self.course(project).members
        except NameAbandoned:
            return False

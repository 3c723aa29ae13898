"""Which members of a group are asked for a project: decided by its name and by claims, whatever the members have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from proxy.core.claims import Patterns, Reservation
from proxy.errors import NameAbandoned
from proxy.interfaces import IOwnership

_NOTHING = Reservation(frozenset(), Patterns(()))


class Course(Struct, frozen=True):
    """The *members* that are asked for a project, in this order: the first that has it counts, or all of them *united*."""

    members: Sequence[str]
    united: bool = False


class Membership(Struct, frozen=True):
    """The members of the group *name*, groups among them replaced by what they consist of: *hosted* ones and *proxies*.

    Projects in *merge* come from all of them.
    """

    name: str
    hosted: tuple[str, ...]
    proxies: tuple[str, ...]
    merge: frozenset[str]
    claims: IOwnership

    @property
    def everybody(self) -> tuple[str, ...]:
        """Hosted ones first."""
        return self.hosted + self.proxies

    @property
    def generation(self) -> int:
        """What is another number when claims have changed."""
        return self.claims.generation if self.hosted else 0

    @property
    def rules(self) -> str:
        """What, apart from claims, decides where projects come from, in one line."""
        return f"{self.everybody} {sorted(self.merge)}"

    @property
    def reservation(self) -> Reservation:
        """All names that belong to hosted members, or are abandoned.  Raises StorageFailed."""
        return self.claims.reservation(self.hosted) if self.hosted else _NOTHING

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
        owner = self._owner(project)
        return Course(self.proxies if owner is None else (owner,))

    def owners(self, project: str) -> Sequence[str]:
        """The members whose rights count for *project*, all of them: any of them may be where it comes from.

        Which of several proxies has a project shows only when they are asked, and what is answered must not depend on that.
        Raises StorageFailed.
        """
        if self._is_abandoned(project):
            return self.hosted
        if project in self.merge:
            return self.everybody
        owner = self._owner(project)
        return (self.proxies or self.hosted) if owner is None else (owner,)

    def _owner(self, project: str) -> str | None:
        """The hosted member that *project* belongs to: the first that has claimed it, or did so after an index elsewhere."""
        for has in (self.claims.claimed, self.claims.second):
            for index in self.hosted:
                if has(index, project):
                    return index
        return None

    def _is_abandoned(self, project: str) -> bool:
        return bool(self.hosted) and bool(self.claims.abandoned(project))

    def shown(self, member: str, reservation: Reservation) -> Callable[[str], bool]:
        """What tells whether a project (normalised) of *member* is what clients get, as long as *reservation* holds."""
        if member in self.hosted:
            return lambda project: member in self._asked(project)
        merge, holds = self.merge, reservation.holds
        return lambda project: not holds(project) or (project in merge and not self._is_abandoned(project))

    def _asked(self, project: str) -> Sequence[str]:
        try:
            return self.course(project).members
        except NameAbandoned:
            return ()

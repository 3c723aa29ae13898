"""What operators ask of claims: which names belong to hosted indexes, and to decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from proxy.administration.parts import IndexParts, chosen, project_name
from proxy.cache.claims import ClaimBook
from proxy.core.claims import OPERATOR, ClaimState, NameClaim
from proxy.errors import BadRequest, NotFound
from proxy.interfaces import Clock, Operation, Report

#: Why a name is held that an operator has released while there are files of it.
_RELEASED = "an operator released the name, and groups do not take it from here"


class Claiming:
    """Lists the claims in *book* and changes them; *clock* tells the wall time."""

    def __init__(self, indexes: Mapping[str, IndexParts], book: ClaimBook, clock: Clock) -> None:
        self._indexes = indexes
        self._book = book
        self._clock = clock

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {"claims": self.claims, "claim_add": self.add, "claim_release": self.release}

    async def claims(self, report: Report, index: str | None = None) -> list[dict[str, Any]]:
        """The claims, of one *index* or of all, and the patterns that indexes own (state ``owned``).

        The state of a claim is ``claimed``, ``held``, ``abandoned`` where its index is not configured any more, or, whatever is
        held, ``owned`` where a pattern of its index has the name and ``merged`` where all groups with it merge the name.
        """
        await self._book.read()
        owned = [(name, pattern) for name, patterns in self._book.stated.items() for pattern in patterns]
        rows = [
            {"index": name, "project": pattern, "state": "owned", "since": None, "by": "configuration", "why": None}
            for name, pattern in sorted(owned)
        ]
        rows += [self._row(each) for each in self._book.all()]
        found = [each for each in rows if index in (None, each["index"])]
        if index is not None and not found:
            chosen(self._indexes, index)
        return found

    async def add(
        self, report: Report, index: str, projects: Sequence[str] = (), source: str | None = None
    ) -> list[dict[str, Any]]:
        """Let *projects* belong to the hosted *index*, whoever else serves them; and all names that the index *source* has
        claimed, which is not configured any more.

        Of *projects*, names that are held are not any more, and what other indexes that are not configured have claimed is
        released.  What *source* held is held for *index*: nobody has decided yet.  Returns what has changed, with the state
        before.  Raises BadRequest, NotFound.
        """
        await self._book.read()
        if index not in self._book.hosted:
            chosen(self._indexes, index)
            raise BadRequest(f"the index {index} is not hosted: names belong to hosted indexes only")
        taken = {each.project: each for each in self._of_source(source)}
        named = set(map(project_name, projects))
        held = {name for name, each in taken.items() if each.state is ClaimState.HELD} - named
        wanted = sorted(named | taken.keys())
        if not wanted:
            raise BadRequest(f"nothing to add: name projects, or an index whose claims {index} takes over")
        before = {project: self._before(index, project) for project in wanted}
        await self._book.assign(index, [each for each in wanted if each not in held], OPERATOR, self._clock())
        await self._book.hand_over((taken[each] for each in held), index)
        return [
            {"index": index, "project": each, "state": self._now(index, each), "before": was} for each, was in before.items()
        ]

    async def release(
        self, report: Report, index: str, projects: Sequence[str] = (), everything: bool = False
    ) -> list[dict[str, Any]]:
        """Let nothing of *projects*, or of *everything* that *index* has claimed, belong to *index* any more.

        A name that the index has files of is held from now on: groups serve what later members have, and a new file does not
        claim it again.  Returns the names with the state that they have now.  Raises BadRequest, NotFound.
        """
        await self._book.read()
        if everything == bool(projects):
            raise BadRequest("name the projects to release, or everything")
        of_index = {each.project: each for each in self._book.all() if each.index == index}
        wanted = sorted(of_index) if everything else sorted(map(project_name, projects))
        unknown = [each for each in wanted if each not in of_index]
        if unknown or not wanted:
            raise NotFound(f"{index} has not claimed {', '.join(unknown) or 'anything'}: pypiproxy claims list has all claims")
        held = [each for each in wanted if await self._has_files(index, each)]
        await self._book.put(replace(of_index[each], state=ClaimState.HELD, why=_RELEASED) for each in held)
        await self._book.release(of_index[each] for each in wanted if each not in held)
        return [{"index": index, "project": each, "state": self._after(index, each, each in held)} for each in wanted]

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _row(self, claim: NameClaim) -> dict[str, Any]:
        state = self._state(claim)
        return {
            "index": claim.index,
            "project": claim.project,
            "state": state,
            "since": claim.since,
            "by": claim.by,
            "why": None if state in ("owned", "merged") else claim.why or None,
        }

    def _state(self, claim: NameClaim) -> str:
        if claim.state is ClaimState.CLAIMED:
            return claim.state.value if claim.index in self._book.hosted else "abandoned"
        if self._book.owns(claim.index, claim.project):
            return "owned"
        return "merged" if self._book.unites(claim.index, claim.project) else claim.state.value

    def _of_source(self, source: str | None) -> list[NameClaim]:
        """The claims of *source*.  Raises BadRequest for an index that is configured, NotFound for one without claims."""
        if source is None:
            return []
        if source in self._book.hosted:
            raise BadRequest(f"the index {source} is configured and keeps its claims: name the projects to add")
        found = [each for each in self._book.all() if each.index == source]
        if not found:
            raise NotFound(f"an index named {source!r} has claimed nothing: pypiproxy claims list has all claims")
        return found

    def _before(self, index: str, project: str) -> str | None:
        """What the name of *project* was before it is given to *index*."""
        claims = self._book.of(project)
        if others := [name for name in claims if name not in self._book.hosted]:
            return f"{claims[others[0]].state.value} by {', '.join(others)}"
        return claims[index].state.value if index in claims else None

    def _now(self, index: str, project: str) -> str:
        """What the name of *project* is for *index*."""
        return self._book.of(project)[index].state.value

    async def _has_files(self, index: str, project: str) -> bool:
        if index not in self._book.hosted:
            return False
        try:
            page = await (await self._indexes[index].everything.page(project)).load()
        except NotFound:
            return False
        return bool(page.files)

    def _after(self, index: str, project: str, held: bool) -> str:
        return "owned" if self._book.owns(index, project) else "held" if held else "released"

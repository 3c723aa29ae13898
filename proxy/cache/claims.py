"""The book of claims: which names of projects hosted indexes have claimed, in records that nothing can bring back.

One record per claim (``claim/<index>/<project>``).  All of them are read into memory once: a claim is asked for with each
request.  While they cannot be read, nothing is known of any name, and whoever asks is told so (StorageFailed).  A record that
makes no sense counts as a claim: its key has the names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.core.claims import OPERATOR, ClaimState, NameClaim, Patterns, Reservation
from proxy.errors import StorageFailed
from proxy.interfaces import IVersionedRecords
from proxy.mechanism.flight import Flights
from proxy.model import EMPTY, Change, Versioned

#: The first part of the keys of all claims.
_FOLDER = "claim"
#: Names that are listed in one line of the log.
_NAMED = 10


class _Noted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a record says."""

    state: str
    since: float
    by: str
    why: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Noted)
#: What a record that makes no sense is taken for.
_UNREADABLE = _Noted(ClaimState.CLAIMED.value, 0.0, "unknown", "its record cannot be understood")


class ClaimBook:
    """All claims of a data directory.

    *owns* has the patterns of each hosted index that is configured, by its name, and *united* the names that every group with
    it merges.
    """

    log = Logger()

    def __init__(
        self,
        records: IVersionedRecords,
        owns: Mapping[str, Collection[str]],
        united: Mapping[str, Collection[str]] = EMPTY,
    ) -> None:
        self._records = records
        self.stated: Mapping[str, Collection[str]] = {}
        self._united: Mapping[str, Collection[str]] = EMPTY
        self._owns: dict[str, Patterns] = {}
        #: By project, then by index; ``None`` until they have been read.  What is in it is replaced and never changed.
        self._claims: dict[str, Mapping[str, NameClaim]] | None = None
        self._reads: Flights[None] = Flights()
        self._changing = DeferredLock()
        self._told = False
        self.generation = 0
        self.configure(owns, united)

    def configure(self, owns: Mapping[str, Collection[str]], united: Mapping[str, Collection[str]]) -> None:
        """From now on *owns* and *united* are what a new book is given."""
        if owns == self.stated and owns.keys() == self._owns.keys() and united == self._united:
            return
        self.stated, self._united = owns, united
        self._owns = {index: Patterns(patterns) for index, patterns in owns.items()}
        self.generation += 1
        if self._told and self._claims is not None:
            self._tell()

    # -- what there is -----------------------------------------------------------------------------------------------------

    @property
    def hosted(self) -> Collection[str]:
        """The hosted indexes that are configured."""
        return self._owns.keys()

    async def read(self) -> None:
        """Read all claims, unless that is done.  Raises StorageFailed."""
        if self._claims is None:
            await self._reads.join(_FOLDER, self._read)

    async def begin(self) -> None:
        """Read all claims, and log once what an operator has to decide.  Raises StorageFailed."""
        await self.read()
        if not self._told:
            self._told = True
            self._tell()

    def of(self, project: str) -> Mapping[str, NameClaim]:
        """The claims to *project* (normalised), by index.  Raises StorageFailed while they cannot be read."""
        return self._known().get(project, EMPTY)

    def owns(self, index: str, project: str) -> bool:
        """Whether the name of *project* matches what the hosted *index* owns."""
        patterns = self._owns.get(index)
        return patterns is not None and patterns.match(project)

    def claimed(self, index: str, project: str) -> bool:
        """Whether *project* belongs to the hosted *index*.  Raises StorageFailed while claims cannot be read."""
        if self.owns(index, project):
            return True
        claim = self.of(project).get(index)
        return claim is not None and claim.state is ClaimState.CLAIMED and index in self._owns

    def second(self, index: str, project: str) -> bool:
        """Whether the hosted *index* has claimed *project* after another hosted index.  Raises StorageFailed."""
        claim = self.of(project).get(index)
        return claim is not None and claim.is_second and index in self._owns

    def unites(self, index: str, project: str) -> bool:
        """Whether *project*, which nobody has abandoned, is merged by all groups with the hosted *index*.

        Raises StorageFailed while claims cannot be read.
        """
        return project in self._united.get(index, ()) and not self.abandoned(project)

    def undecided(self, index: str, project: str) -> NameClaim | None:
        """The claim of *index* to *project* that is held until an operator decides.  Raises StorageFailed."""
        claim = self.of(project).get(index)
        if claim is None or claim.state is not ClaimState.HELD or index not in self._owns:
            return None
        return None if self.owns(index, project) or self.unites(index, project) else claim

    def abandoned(self, project: str) -> Sequence[str]:
        """The indexes that have claimed *project* and are not configured any more.  Raises StorageFailed."""
        claims = self.of(project)
        return [each.index for each in self._outlived(claims) if each.state is ClaimState.CLAIMED] if claims else ()

    def reserved(self, indexes: Collection[str], project: str) -> bool:
        """Whether *project* belongs to one of *indexes*, or is abandoned.  Raises StorageFailed."""
        for index, claim in self.of(project).items():
            if claim.state is ClaimState.CLAIMED and (index not in self._owns or index in indexes):
                return True
            if claim.is_second and index in indexes:
                return True
        return any(self.owns(index, project) for index in indexes)

    def reservation(self, indexes: Collection[str]) -> Reservation:
        """All names for which :meth:`reserved` is true.  Raises StorageFailed."""
        names = frozenset(project for project in self._known() if self.reserved(indexes, project))
        return Reservation(names, Patterns([each for index in sorted(indexes) for each in self.stated.get(index, ())]))

    def all(self) -> list[NameClaim]:
        """Every claim, by index and project.  Raises StorageFailed while they cannot be read."""
        return sorted([claim for claims in self._known().values() for claim in claims.values()], key=_place)

    # -- changes -----------------------------------------------------------------------------------------------------------

    async def enter(
        self, claims: Iterable[NameClaim], why: Callable[[NameClaim], str | None] = lambda claim: None
    ) -> list[NameClaim]:
        """Enter *claims* for names that their indexes have not claimed yet; which these are.  Raises StorageFailed.

        One is held if *why* says so, which is asked when no other claim can be entered any more before this one: of two indexes
        that claim a name at the same moment, the second one finds the claim of the first.
        """
        await self.read()
        async with self._changing:
            new = [_held(each, why(each)) for each in claims if each.index not in self.of(each.project)]
            await self._change({_place(each): each for each in new})
        return new

    async def put(self, claims: Iterable[NameClaim]) -> None:
        """Enter *claims*, in place of what there is.  Raises StorageFailed."""
        await self.read()
        async with self._changing:
            await self._change({_place(each): each for each in claims})

    async def assign(self, index: str, projects: Iterable[str], by: str, now: float) -> None:
        """Let *projects* belong to *index* from *now* on, held or not, and to no index that is not configured any more.

        A claim that there is keeps its date and who caused it; *by* causes others.  Raises StorageFailed.
        """
        await self.read()
        changes: dict[tuple[str, str], NameClaim | None] = {}
        async with self._changing:
            for project in projects:
                claims = self.of(project)
                outlived = self._outlived(claims)
                changes |= {_place(each): None for each in outlived}
                first = next(filter(None, (claims.get(index), *outlived)), None)
                since, cause = (now, by) if first is None else (first.since, first.by)
                changes[index, project] = NameClaim(index, project, ClaimState.CLAIMED, since, cause)
            await self._change(changes)

    async def adopt(self, index: str, project: str, by: str) -> None:
        """Let *by* have caused the claim of *index* to *project*, if an operator has.  Raises StorageFailed."""
        await self.read()
        async with self._changing:
            claim = self.of(project).get(index)
            if claim is not None and claim.by == OPERATOR:
                await self._change({_place(claim): replace(claim, by=by)})

    async def hand_over(self, held: Iterable[NameClaim], index: str) -> None:
        """Let the names that are *held* be held for *index* instead, unless it has a claim to them.  Raises StorageFailed."""
        await self.read()
        changes: dict[tuple[str, str], NameClaim | None] = {}
        async with self._changing:
            for each in held:
                changes[_place(each)] = None
                if index not in self.of(each.project):
                    changes[index, each.project] = replace(each, index=index)
            await self._change(changes)

    async def release(self, claims: Iterable[NameClaim]) -> None:
        """Forget *claims*.  Raises StorageFailed."""
        await self.read()
        async with self._changing:
            await self._change(dict.fromkeys(map(_place, claims)))

    async def _change(self, changes: Mapping[tuple[str, str], NameClaim | None]) -> None:
        if not changes:
            return
        await self._records.apply([_written(place, claim) for place, claim in changes.items()])
        known = self._known()
        for (index, project), claim in changes.items():
            claims = {name: each for name, each in known.get(project, EMPTY).items() if name != index}
            if claim is not None:
                claims[index] = claim
            if claims:
                known[project] = claims
            else:
                known.pop(project, None)
        self.generation += 1

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _outlived(self, claims: Mapping[str, NameClaim]) -> list[NameClaim]:
        """Those of *claims* whose index is not configured any more."""
        return [claim for index, claim in claims.items() if index not in self._owns]

    def _known(self) -> dict[str, Mapping[str, NameClaim]]:
        if self._claims is None:
            raise StorageFailed("which names belong to hosted indexes has not been read yet: ask again in a moment")
        return self._claims

    async def _read(self) -> None:
        try:
            rows = await self._records.scan(f"{_FOLDER}/")
        except StorageFailed as error:
            raise StorageFailed(f"which names belong to hosted indexes cannot be read for now: {error}") from error
        claims: dict[str, dict[str, NameClaim]] = {}
        for row in rows:
            claim = self._decoded(row)
            if claim is not None:
                claims.setdefault(claim.project, {})[claim.index] = claim
        self._claims = dict(claims)
        self.generation += 1

    def _decoded(self, row: Versioned) -> NameClaim | None:
        _, *place = row.key.split("/")
        if len(place) != 2:
            return None
        try:
            noted = _decoder.decode(row.value)
            state = ClaimState(noted.state)
        except (msgspec.MsgspecError, ValueError) as error:
            self.log.error("the claim {key} cannot be understood and counts: {error}", key=row.key, error=error)
            noted, state = _UNREADABLE, ClaimState.CLAIMED
        return NameClaim(place[0], place[1], state, noted.since, noted.by, noted.why)

    def _tell(self) -> None:
        """Log what an operator has to decide."""
        everything = self.all()
        claimed = [each for each in everything if each.state is ClaimState.CLAIMED]
        for index in sorted({each.index for each in claimed} - self._owns.keys()):
            self.log.warn(
                "the index {index} is not a configured hosted index and has claimed {names}: no group with a hosted index "
                "serves these names.  Give them to another index with pypiproxy claims add INDEX --from {index}, or release "
                "them with pypiproxy claims release {index} --all",
                index=index,
                names=_named(each.project for each in claimed if each.index == index),
            )
        held = [each for each in everything if self.undecided(each.index, each.project) is not None]
        if held:
            self.log.warn(
                "groups do not take these names from the hosted indexes that have them, because later members serve them too: "
                "{names}.  pypiproxy claims list says more",
                names=_named(f"{each.project} ({each.index})" for each in held),
            )


def _named(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _held(claim: NameClaim, why: str | None) -> NameClaim:
    """*claim*, held if there is a reason *why*."""
    return claim if why is None else replace(claim, state=ClaimState.HELD, why=why)


def _place(claim: NameClaim) -> tuple[str, str]:
    return claim.index, claim.project


def _written(place: tuple[str, str], claim: NameClaim | None) -> Change:
    noted = None if claim is None else _encode(_Noted(claim.state.value, claim.since, claim.by, claim.why))
    return Change("/".join((_FOLDER, *place)), noted)

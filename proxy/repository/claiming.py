"""New claims of hosted indexes: a name belongs to the index that has a file of it, unless others are known to serve it too.

What hosted indexes serve is told from their claims; what others serve from what is cached of them, without asking anybody: from
their pages and their lists of projects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from twisted.logger import Logger
from zope.interface import implementer

from proxy.cache.claims import ClaimBook
from proxy.cache.listing import lines_behind
from proxy.cache.projects import kept_list
from proxy.cache.records import HeadedRecords
from proxy.core.claims import OF_ANOTHER, ClaimState, NameClaim
from proxy.interfaces import Clock, IBytesSource, IOffload, IOwnership
from proxy.mechanism.flight import closing_after
from proxy.model import EMPTY
from proxy.simple.projects import names_in
from proxy.storage.lists import ListFiles

#: So many projects are looked up one by one; for more of them, all pages that are cached are listed.
_FEW = 20


class Beside(Struct, frozen=True):
    """An index that is a member of a group beside a hosted one; *merged* are the names that each such group unites."""

    name: str
    merged: frozenset[str] = frozenset()


class Neighbourhood(Struct, frozen=True):
    """The *proxies*, and the other *hosted* indexes, beside each hosted index, by its name."""

    proxies: Mapping[str, Sequence[Beside]] = EMPTY
    hosted: Mapping[str, Sequence[Beside]] = EMPTY


class Kept(Struct, frozen=True):
    """What is kept of a proxy index: the records of its pages and of its list of projects, and the files of that list."""

    pages: HeadedRecords
    projects: HeadedRecords
    lists: ListFiles

    async def pages_of(self, projects: Collection[str]) -> set[str]:
        """Those of *projects* (normalised) of which there is a page.  Raises StorageFailed."""
        if len(projects) > _FEW:
            return set(projects).intersection(await self.pages.found())
        heads = {project: await self.pages.head(project) for project in projects}
        return {project for project, head in heads.items() if head is not None and head.found}

    async def lines(self) -> IBytesSource | None:
        """The lines of the list, if there is one, which the caller closes.  Raises StorageFailed."""
        return await kept_list(self.projects, self.lists)


class Neighbours:
    """The indexes *beside* each hosted one; *kept* gives what is kept of a proxy index."""

    def __init__(self, beside: Neighbourhood, kept: Callable[[str], Kept], offload: IOffload) -> None:
        self._beside = beside
        self._kept = kept
        self._offload = offload

    def configure(self, beside: Neighbourhood) -> None:
        """From now on the indexes in *beside* are those beside each hosted one."""
        self._beside = beside

    def hosting(self, index: str, project: str) -> Sequence[str]:
        """The hosted indexes beside *index* in a group that does not unite *project* (normalised)."""
        return [each.name for each in self._beside.hosted.get(index, ()) if project not in each.merged]

    async def serving(self, index: str, projects: Collection[str]) -> Mapping[str, str]:
        """Those of *projects* (normalised) that a proxy index in a group is known to serve, each with its name.

        Asks no upstream.  Raises StorageFailed.
        """
        found: dict[str, str] = {}
        for each in self._beside.proxies.get(index, ()):
            asked = set(projects) - each.merged - found.keys()
            if asked:
                found.update(dict.fromkeys(await self._served(self._kept(each.name), asked), each.name))
        return found

    async def _served(self, kept: Kept, asked: Collection[str]) -> Collection[str]:
        served = await kept.pages_of(asked)
        rest = frozenset(asked) - served
        lines = await kept.lines() if rest else None
        return served if lines is None else served | await self._listed(lines, rest)

    async def _listed(self, lines: IBytesSource, asked: frozenset[str]) -> frozenset[str]:
        return await closing_after(self._offload.run(_among, lines.fileno(), asked), lines)


def _among(descriptor: int, asked: frozenset[str]) -> frozenset[str]:
    """Those of *asked* that are in the lines of the list behind *descriptor*."""
    with lines_behind(descriptor) as lines:
        return asked.intersection(names_in(lines))


@implementer(IOwnership)
class Claims:
    """The claims in *book*; *neighbours* know who else serves a name, *clock* tells the wall time."""

    log = Logger()

    def __init__(self, book: ClaimBook, neighbours: Neighbours, clock: Clock) -> None:
        self._book = book
        self._neighbours = neighbours
        self._clock = clock
        self.ready = book.read
        self.adopt = book.adopt
        self.claimed = book.claimed
        self.second = book.second
        self.abandoned = book.abandoned
        self.reserved = book.reserved
        self.reservation = book.reservation

    def configure(self, beside: Neighbourhood) -> None:
        """From now on the indexes in *beside* are those beside each hosted one."""
        self._neighbours.configure(beside)

    @property
    def generation(self) -> int:
        return self._book.generation

    async def claim(self, index: str, project: str, by: str, given_by: str | None = None) -> None:
        await self._book.read()
        if index in self._book.of(project):
            return
        for each in await self._enter([NameClaim(index, project, ClaimState.CLAIMED, self._clock(), by)], given_by):
            if each.state is ClaimState.HELD:
                self.log.warn("{words}", words=self.held(index, project))

    async def enter(self, claims: Sequence[NameClaim]) -> Sequence[NameClaim]:
        return await self._enter(claims, None)

    async def _enter(self, claims: Sequence[NameClaim], given_by: str | None) -> list[NameClaim]:
        indexes = sorted({each.index for each in claims})
        found = {
            index: await self._colliding(index, [each.project for each in claims if each.index == index], given_by)
            for index in indexes
        }

        def why(claim: NameClaim) -> str | None:
            # Another index may have claimed the name while proxy indexes were asked about it.
            return found[claim.index].get(claim.project) or self._by_claims(claim.index, claim.project, given_by)

        return await self._book.enter(claims, why)

    def held(self, index: str, project: str) -> str | None:
        claim = self._book.undecided(index, project)
        if claim is None:
            return None
        return (
            f"{project} is held: {claim.why}; index {index} itself serves yours. "
            f"If the name belongs to {index}: pypiproxy claims add {index} {project}"
        )

    async def colliding(self, index: str, projects: Collection[str]) -> Mapping[str, str]:
        return await self._colliding(index, projects, None)

    async def _colliding(self, index: str, projects: Collection[str], given_by: str | None) -> Mapping[str, str]:
        await self._book.read()
        new = [each for each in projects if index not in self._book.of(each)]
        found = {each: why for each in new if (why := self._by_claims(index, each, given_by)) not in (None, OF_ANOTHER)}
        asked = [each for each in new if each not in found and not self._book.owns(index, each)]
        # What a proxy index serves it goes on serving, also where the hosted index that has the name is no member.
        served = await self._neighbours.serving(index, asked)
        found |= {each: _of_served(name) for each, name in served.items()}
        return found | {
            each: why for each in asked if each not in found and (why := self._by_claims(index, each, given_by)) is not None
        }

    def _by_claims(self, index: str, project: str, given_by: str | None) -> str | None:
        """Why *project* cannot belong to *index* by the claims that there are now; ``None`` if it can, as far as these go."""
        if by := self._book.abandoned(project):
            return _of_abandoned(by)
        of_another = not self._book.owns(index, project) and self._is_of_another(index, project, given_by)
        return OF_ANOTHER if of_another else None

    def _is_of_another(self, index: str, project: str, given_by: str | None) -> bool:
        """Whether *project* belongs to a hosted index beside *index*, other than the one that it is *given_by*."""
        others = self._neighbours.hosting(index, project)
        return any(self._book.claimed(each, project) for each in others if each != given_by)


def _of_abandoned(by: Sequence[str]) -> str:
    return f"it is claimed by {', '.join(by)}, which is not configured any more, and no group serves it"


def _of_served(name: str) -> str:
    return f"index {name} serves a project of that name, and groups go on serving that one"


def neighbourhood(groups: Iterable[tuple[Sequence[str], Collection[str]]], hosted: Collection[str]) -> Neighbourhood:
    """What is beside each of the *hosted* indexes in *groups*, each given as its leaves and merged names."""
    found: dict[str, dict[str, frozenset[str]]] = {}
    for leaves, merged in groups:
        for index in leaves:
            for other in leaves if index in hosted else ():
                if other != index:
                    those = found.setdefault(index, {})
                    those[other] = those.get(other, frozenset(merged)).intersection(merged)
    beside = {index: [Beside(*each) for each in others.items()] for index, others in found.items()}
    return Neighbourhood(
        {index: [each for each in others if each.name not in hosted] for index, others in beside.items()},
        {index: [each for each in others if each.name in hosted] for index, others in beside.items()},
    )

"""A group: several indexes behind one URL, each project out of the one that it belongs to.

Where a project comes from is decided by its name (:mod:`proxy.repository.membership`), before anybody is asked for it: a name
that belongs to a hosted member is asked of that member only, whatever it answers.  Any other name is asked of the proxy members
in their order: the first that has it counts.  Only a definite no leads to the next one; an error is an error.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from msgspec.structs import replace
from zope.interface import implementer

from proxy.core.bounded import BoundedTable
from proxy.core.cache_status import CacheStatus
from proxy.core.views import DocumentName, DocumentView, LegacyName, PageView
from proxy.errors import NotFound, ProxyError
from proxy.interfaces import IFileHandle, IOffload, IProjectsView, IRepository
from proxy.model import Page
from proxy.repository.grouplist import GroupList
from proxy.repository.membership import Course, Membership
from proxy.repository.united import United
from proxy.settings import MIB

T = TypeVar("T")

#: For so long a member that had no such project is not asked again before the next one answers at once (seconds).
_MISSING_FOR = 5.0
#: Who is noted as the one who claimed a name that an index was found to have files of.
FOUND = "files that were found"
#: What may be remembered of pages that have files, of who served a project last, and of who is asked for one (bytes); an entry
#: weighs this and its text.
_FULL, _SERVED, _COURSES, _WEIGHT = 8 * MIB, 8 * MIB, 4 * MIB, 300


@implementer(IRepository)
class GroupRepository:
    """The group that *membership* describes, of *members* by name.  Its list of projects is kept in *projects*.

    *steady* tells a time that never jumps.
    """

    def __init__(
        self,
        membership: Membership,
        members: Mapping[str, IRepository],
        projects: GroupList,
        offload: IOffload,
        steady: Callable[[], float],
    ) -> None:
        self.name = membership.name
        self.leaves = tuple(members)
        self._membership = membership
        self._members = members
        self._projects = projects
        self._offload = offload
        self._steady = steady
        self._united = United({name: members[name] for name in membership.everybody}, offload)
        #: The last page of each project that was looked into: its state, and whether it has files.
        self._full: BoundedTable[str, tuple[str, bool]] = BoundedTable(_FULL, lambda known: _WEIGHT + len(known[0]), len)
        #: Who is asked for a project, by the generation of claims.
        self._courses: BoundedTable[str, tuple[int, Course]] = BoundedTable(_COURSES, lambda known: _WEIGHT, len)
        #: Which of several proxies served a project last, and when those before it said that they have none.
        self._served: BoundedTable[str, tuple[str, float]] = BoundedTable(_SERVED, lambda served: _WEIGHT, len)

    def owners(self, project: str) -> Sequence[str]:
        return self._membership.owners(project)

    # -- pages -------------------------------------------------------------------------------------------------------------

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        return (await self._page(project, no_cache=no_cache))[1]

    async def _page(self, project: str, *, no_cache: bool = False) -> tuple[str | None, PageView]:
        """The page, and the member that it comes from: ``None`` for a united one."""
        course = await self._course(project)
        if course.united:
            return None, await self._united.page(project, no_cache=no_cache)
        try:
            member, view = await self._first(course.members, project, lambda each: each.page(project, no_cache=no_cache))
        except NotFound as error:
            if course.members != self._membership.proxies:
                raise self._without_files(course.members[0], project) from error
            raise
        view = await self._with_files(member, view)
        if len(course.members) > 1:
            self._served.put(project, (member, self._steady()))
        return member, view

    async def _with_files(self, member: str, view: PageView) -> PageView:
        """*view* as one of this index.  Raises NotFound for a page without files: installers take one for a project."""
        state = f"{member}/{view.state}"
        known = self._full.get(view.project)
        if known is None or known[0] != state:
            page = await view.load()
            known = state, bool(page.files)
            self._full.put(view.project, known)
            view = replace(view, load=partial(_given, page))
        if not known[1]:
            raise self._without_files(member, view.project)
        return _named(view, state)

    def _without_files(self, member: str, project: str) -> NotFound:
        return NotFound(f"{project} belongs to {member} in the group {self.name} and has no file there; nobody else is asked")

    def page_at_hand(self, project: str) -> PageView | None:
        course = self._course_at_hand(project)
        if course is None or course.united:
            return None
        member = course.members[0]
        view = self._members[member].page_at_hand(project)
        if view is None and len(course.members) > 1:
            member, since = self._served.get(project) or (member, -math.inf)
            if since > self._steady() - _MISSING_FOR and member in course.members:
                view = self._members[member].page_at_hand(project)
        if view is None:
            return None
        state = f"{member}/{view.state}"
        return _named(view, state) if self._full.get(project) == (state, True) else None

    # -- files and documents -----------------------------------------------------------------------------------------------

    async def file(self, project: str, digest: str, name: str) -> IFileHandle:
        asked = await self._asked_for_file(project, digest, name)
        member, handle = await self._first(asked, project, lambda each: each.file(project, digest, name))
        return GroupFile(handle, partial(self._leads_to, project, member))

    async def document(self, name: DocumentName) -> DocumentView:
        if isinstance(name, LegacyName):
            member, view = await self._page(name.project)
            if member is None:
                return self._united.legacy(view)
            document = await self._members[member].document(name)
        else:
            asked = await self._asked_for_file(name.project, name.digest, name.filename)
            member, document = await self._first(asked, name.project, lambda each: each.document(name))
        return replace(document, state=f"{document.state}/{member}")

    async def _asked_for_file(self, project: str, digest: str, name: str) -> Sequence[str]:
        """The members that are asked for a file, or for what is beside one.

        First comes who served the page lately that a URL with a *digest* was on: the digest names the bytes, whoever has them,
        so members that have no such project need not be asked each time.
        """
        course = await self._course(project)
        if course.united:
            source = await self._united.source(project, name)
            return course.members if source is None else (source,)
        served, _ = self._served.get(project) or ("", 0.0)
        if served not in course.members or "-" not in digest:
            return course.members
        return (served, *(each for each in course.members if each != served))

    def _leads_to(self, project: str, member: str) -> bool:
        """Whether *member* is still one that is asked for *project*."""
        course = self._course_at_hand(project)
        return course is not None and member in course.members

    def _course_at_hand(self, project: str) -> Course | None:
        """Who is asked for *project*, as far as that is known without waiting; every hot request asks."""
        generation = self._membership.generation
        known = self._courses.get(project)
        if known is not None and known[0] == generation:
            return known[1]
        try:
            course = self._membership.course(project)
        except ProxyError:
            return None
        self._courses.put(project, (generation, course))
        return course

    # -- lists -------------------------------------------------------------------------------------------------------------

    async def projects(self, *, no_cache: bool = False) -> IProjectsView:
        await self._ready()
        views = [(name, await self._members[name].projects(no_cache=no_cache)) for name in self._membership.everybody]
        return await self._projects.of(views, self._membership)

    async def cached(self) -> Sequence[str]:
        await self._ready()
        found = [(name, await self._members[name].cached()) for name in self._membership.everybody]
        return await self._offload.run(_shown, found, self._membership)

    async def own(self) -> Sequence[str] | None:
        if not self._membership.hosted:
            return None
        await self._ready()
        found = [(name, await self._members[name].own() or ()) for name in self._membership.hosted]
        return await self._offload.run(_shown, found, self._membership)

    def last_modified(self) -> float | None:
        moments = [self._members[name].last_modified() for name in self._membership.proxies or self._membership.hosted]
        known = [each for each in moments if each is not None]
        return min(known) if known and len(known) == len(moments) else None

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Wait for claims, if any can matter here."""
        if self._membership.hosted:
            await self._membership.claims.ready()

    async def _course(self, project: str) -> Course:
        """Who is asked for *project*.  Raises NameAbandoned, StorageFailed.

        Hosted members look whether they have a project of a name that nobody has claimed: files that were copied into a
        directory claim it when they are first looked at.
        """
        await self._ready()
        course = self._membership.course(project)
        if course.united or not self._membership.hosted or course.members != self._membership.proxies:
            return course
        for index in self._membership.hosted:
            if await self._has(index, project):
                await self._membership.claims.claim(index, project, FOUND)
        return self._membership.course(project)

    async def _has(self, index: str, project: str) -> bool:
        """Whether the hosted *index* has *project*, which nobody has claimed.

        While that cannot be told, a name that a proxy is known to serve stays with it, and any other is an error.
        """
        try:
            await self._members[index].page(project)
        except NotFound:
            return False
        except ProxyError:
            if project not in await self._membership.claims.colliding(index, (project,)):
                raise
            return False
        return True

    async def _first(self, members: Sequence[str], project: str, asked: Callable[[IRepository], Awaitable[T]]) -> tuple[str, T]:
        """What the first of *members* has that is *asked* of each, and its name.  Raises NotFound where none has it."""
        for name in members:
            try:
                return name, await asked(self._members[name])
            except NotFound:
                if len(members) == 1:
                    raise
        raise NotFound(f"no member of the group {self.name} has this of {project}: asked were {', '.join(members) or 'none'}")


@implementer(IFileHandle)
class GroupFile:
    """A *file* of a member.  *leads_here* tells whether the group still asks that member for it."""

    def __init__(self, file: IFileHandle, leads_here: Callable[[], bool]) -> None:
        self._file = file
        self._leads_here = leads_here
        self.etag = file.etag
        self.seen = file.seen
        self.stored = file.stored
        self.find_size = file.find_size
        self.open = file.open
        self.growing = file.growing
        self.open_range = file.open_range
        self.close = file.close

    @property
    def size(self) -> int | None:
        return self._file.size

    @property
    def in_progress(self) -> bool:
        return self._file.in_progress

    @property
    def status(self) -> CacheStatus:
        return self._file.status

    def is_current(self) -> bool:
        return self._file.is_current() and self._leads_here()

    def is_unchanged(self) -> bool:
        return self._file.is_unchanged() and self._leads_here()


def _named(view: PageView, state: str) -> PageView:
    """*view* with another *state*."""
    return replace(view, state=state)


async def _given(page: Page) -> Page:
    return page


def _shown(found: Sequence[tuple[str, Sequence[str]]], membership: Membership) -> list[str]:
    reservation = membership.reservation
    return sorted({each for member, names in found for each in filter(membership.shown(member, reservation), names)})

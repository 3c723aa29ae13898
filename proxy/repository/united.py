"""Projects whose files come from all members of a group that have some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace
from packaging.version import InvalidVersion, Version

from proxy.core.bounded import BoundedTable
from proxy.core.cache_status import CacheStatus
from proxy.core.views import Document, DocumentView, Moment, PageView, View
from proxy.errors import NotFound
from proxy.interfaces import IOffload, IRepository
from proxy.model import EMPTY, File, Page
from proxy.names import METADATA, companion_of, normal_version
from proxy.policy.verdicts import earliest
from proxy.settings import MIB

#: What may be remembered of united pages, and what one file on one weighs (bytes).
_MEMORY, _FILE = 8 * MIB, 1000


class _Made(Struct, frozen=True):
    """The united page of this *state*, and the member that each of its files comes from, by file name."""

    state: str
    page: Page
    sources: Mapping[str, str]


class United:
    """What *members*, by name, have together; the files of earlier ones go before files of the same name."""

    def __init__(self, members: Mapping[str, IRepository], offload: IOffload) -> None:
        self._members = members
        self._offload = offload
        self._made: BoundedTable[str, _Made] = BoundedTable(_MEMORY, lambda made: _FILE * (1 + len(made.sources)), len)

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        """The page of *project*.  Raises as :meth:`IRepository.page`, for any of the members."""
        return (await self._page(project, no_cache=no_cache))[0]

    async def _page(self, project: str, *, no_cache: bool = False) -> tuple[PageView, _Made]:
        views = {}
        for name, member in self._members.items():
            try:
                views[name] = await member.page(project, no_cache=no_cache)
            except NotFound:
                continue
        state = " + ".join(f"{name}/{view.state}" for name, view in views.items())
        made = self._made.get(project)
        if made is None or made.state != state:
            pages = {name: await view.load() for name, view in views.items()}
            made = await self._offload.run_first(_made_of, state, pages, project)
            self._made.put(project, made)
        if not made.page.files:
            raise NotFound(f"no member of the group has a file of {project}: asked were {', '.join(self._members)}")
        those = list(views.values())
        status, seen = _status([view.status for view in those]), _seen([view.seen for view in those])
        relative = any(view.relative for view in those)
        return View(project, state, status, None, seen, partial(_given, made.page), relative=relative), made

    def legacy(self, view: PageView) -> DocumentView:
        """The legacy document of the project of *view*, which is united: it is made of the page."""

        async def load() -> Document:
            return Document(None, await view.load())

        return View(view.project, view.state, view.status, view.serial, view.seen, load)

    async def source(self, project: str, name: str) -> str | None:
        """The member whose file *name*, or whose companion of that name, is on the united page; ``None`` for no such file."""
        _, made = await self._page(project)
        return made.sources.get(companion_of(name, METADATA) or name)


async def _given(page: Page) -> Page:
    return page


def _status(statuses: Sequence[CacheStatus]) -> CacheStatus:
    """How the cache came by all of it: as by what took longest, and fresh as long as all is."""
    waited = [each for each in statuses if not each.hit]
    ttls = [each.ttl for each in statuses]
    ttl = None if None in ttls else min(each for each in ttls if each is not None)
    return replace((waited or statuses)[0], ttl=ttl, own=any(each.own for each in statuses))


def _seen(moments: Sequence[Moment]) -> Moment:
    """The moment of all of them: nothing changes before the earliest at which one of them may."""
    until: float | None = None
    for each in moments:
        until = earliest(until, each.until)
    return Moment(max(each.now for each in moments), until, " + ".join(each.mark for each in moments))


def _made_of(state: str, pages: Mapping[str, Page], project: str) -> _Made:
    """*pages*, by member, as one."""
    files: dict[str, File] = {}
    sources: dict[str, str] = {}
    for name, page in pages.items():
        for file in page.files:
            if file.filename not in files:
                files[file.filename] = file
                sources[file.filename] = name
    those = list(pages.values())
    complete = bool(those) and all(page.versions is not None for page in those)
    page = Page(
        project,
        tuple(files.values()),
        api_version=min(page.api_version for page in those) if complete else (1, 0),
        versions=_versions(those) if complete else None,
        status=next((page.status for page in those if page.status is not None), None),
        extra=those[0].extra if those else EMPTY,
    )
    return _Made(state, page, sources)


def _versions(pages: Sequence[Page]) -> tuple[str, ...]:
    """The versions on *pages*, in the spelling of the first page that has them, in order as far as they can be compared."""
    spelt: dict[str, str] = {}
    for page in pages:
        for version in page.versions or ():
            spelt.setdefault(normal_version(version), version)
    return tuple(sorted(spelt.values(), key=_order))


def _order(version: str) -> tuple[bool, Version, str]:
    try:
        return True, Version(version), version
    except InvalidVersion:
        return False, Version("0"), version

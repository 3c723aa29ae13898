"""The smallest repository: an index of files in memory.  What an index of another kind needs, and no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import TypeVar

from zope.interface import implementer

from proxy.cache.listing import ProjectsView
from proxy.core.cache_status import CacheStatus
from proxy.core.views import Document, DocumentName, DocumentView, LegacyName, Moment, PageView, View
from proxy.errors import NotFound
from proxy.interfaces import IBytesSource, IFileHandle, IProjectsView, IRepository
from proxy.model import File, Page, body_digest
from proxy.repository.handles import StoredFile
from proxy.simple.media import MediaType
from proxy.simple.projects import lines_of, write_rendering
from proxy.storage.whole import anonymous
from proxy.web.renderings import encoded
from tests.support.wheels import Distribution

T = TypeVar("T")


@implementer(IRepository)
class Shelf:
    """The index *name* with *distributions*, which never change.  *clock* tells the wall time."""

    def __init__(self, name: str, *distributions: Distribution, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.leaves = (name,)
        self._clock = clock
        self._on_it: dict[str, dict[str, Distribution]] = {}
        for each in distributions:
            self._on_it.setdefault(each.project, {})[each.filename] = each

    def owner(self, project: str) -> str:
        return self.name

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        page = self._page(project)
        return View(project, f"{project} of {len(page.files)}", CacheStatus(True), None, self._now(), partial(_given, page))

    def page_at_hand(self, project: str) -> PageView | None:
        return None

    async def projects(self, *, no_cache: bool = False) -> IProjectsView:
        lines = lines_of(sorted(self._on_it))

        async def opened(media: MediaType, coding: str) -> IBytesSource:
            document = BytesIO()
            write_rendering(lines.splitlines(keepends=True), media, document.write)
            data = encoded(document.getvalue(), coding)
            return anonymous(data, body_digest(data))

        async def listed() -> IBytesSource:
            return anonymous(lines, body_digest(lines))

        return ProjectsView(f"{len(self._on_it)} projects", CacheStatus(True), None, 0, opened, listed)

    async def cached(self) -> Sequence[str]:
        return sorted(self._on_it)

    async def own(self) -> Sequence[str] | None:
        return sorted(self._on_it)

    async def document(self, name: DocumentName) -> DocumentView:
        if not isinstance(name, LegacyName):
            raise NotFound(f"there is no provenance of {name.filename} on {self.name}")
        document = Document(None, self._page(name.project))
        return View(name.project, f"legacy of {name}", CacheStatus(True), None, self._now(), partial(_given, document))

    async def file(self, project: str, digest: str, name: str) -> IFileHandle:
        filename = name.removesuffix(".metadata")
        found = self._on_it.get(project, {}).get(filename)
        if found is None or digest != f"sha256-{found.sha256}":
            raise NotFound(f"there is no {name} with {digest} on {self.name}")
        data = found.data if name == filename else found.metadata
        source = anonymous(data, body_digest(data))
        return StoredFile(source, f'"{digest}{name.removeprefix(filename)}"', self._now(), lambda: None)

    def last_modified(self) -> float | None:
        return None

    def _page(self, project: str) -> Page:
        if project not in self._on_it:
            raise NotFound(f"there is no project {project} on {self.name}")
        files = self._on_it[project].values()
        return Page(project, tuple(File(each.filename, "", {"sha256": each.sha256}, size=len(each.data)) for each in files))

    def _now(self) -> Moment:
        return Moment(self._clock(), None)


async def _given(value: T) -> T:
    return value

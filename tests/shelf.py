"""The smallest repository: an index of files in memory.  What an index of another kind needs, and no more.

It also stands for a hosted index whose files change and whose storage fails.
"""

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
from proxy.errors import NotFound, StorageFailed
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
    """The index *name* with *distributions*.  *clock* tells the wall time."""

    def __init__(self, name: str, *distributions: Distribution, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.leaves: tuple[str, ...] = (name,)
        self._clock = clock
        self._on_it: dict[str, dict[str, Distribution]] = {}
        self._changes = 0
        self.fails = False
        for each in distributions:
            self.put(each)

    def put(self, distribution: Distribution) -> None:
        """Add a file, or replace the one of its name."""
        self._on_it.setdefault(distribution.project, {})[distribution.filename] = distribution
        self._changes += 1

    def empty(self, project: str) -> None:
        """Remove the files of *project*, which stays."""
        self._on_it[project] = {}
        self._changes += 1

    def remove(self, project: str) -> None:
        """Remove *project*."""
        del self._on_it[project]
        self._changes += 1

    def owners(self, project: str) -> Sequence[str]:
        return (self.name,)

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        page = self._page(project)
        return View(project, f"{project} after {self._changes}", CacheStatus(True), None, self._now(), partial(_given, page))

    def page_at_hand(self, project: str) -> PageView | None:
        return None

    async def projects(self, *, no_cache: bool = False) -> IProjectsView:
        self._look()
        lines = lines_of(sorted(self._on_it))

        async def opened(media: MediaType, coding: str) -> IBytesSource:
            document = BytesIO()
            write_rendering(lines.splitlines(keepends=True), media, document.write)
            data = encoded(document.getvalue(), coding)
            return anonymous(data, body_digest(data))

        async def listed() -> IBytesSource:
            return anonymous(lines, body_digest(lines))

        return ProjectsView(f"after {self._changes}", CacheStatus(True), None, 0, opened, listed)

    async def cached(self) -> Sequence[str]:
        return sorted(self._on_it)

    async def own(self) -> Sequence[str] | None:
        return sorted(self._on_it)

    async def document(self, name: DocumentName) -> DocumentView:
        self._look()
        if not isinstance(name, LegacyName):
            raise NotFound(f"there is no provenance of {name.filename} on {self.name}")
        document = Document(None, self._page(name.project))
        return View(
            name.project,
            f"legacy of {name} after {self._changes}",
            CacheStatus(True),
            None,
            self._now(),
            partial(_given, document),
        )

    async def file(self, project: str, digest: str, name: str) -> IFileHandle:
        self._look()
        filename = name.removesuffix(".metadata")
        found = self._on_it.get(project, {}).get(filename)
        if found is None or digest != f"sha256-{found.sha256}":
            raise NotFound(f"there is no {name} with {digest} on {self.name}")
        data = found.data if name == filename else found.metadata
        source = anonymous(data, body_digest(data))
        return StoredFile(source, f'"{digest}{name.removeprefix(filename)}"', self._now(), lambda: None)

    def last_modified(self) -> float | None:
        return None

    def _look(self) -> None:
        if self.fails:
            raise StorageFailed(f"the files of {self.name} cannot be read for now")

    def _page(self, project: str) -> Page:
        self._look()
        if project not in self._on_it:
            raise NotFound(f"there is no project {project} on {self.name}")
        files = self._on_it[project].values()
        return Page(project, tuple(File(each.filename, "", {"sha256": each.sha256}, size=len(each.data)) for each in files))

    def _now(self) -> Moment:
        return Moment(self._clock(), None)


async def _given(value: T) -> T:
    return value

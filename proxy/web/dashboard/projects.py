"""Search, and the page of a project: its versions and files, what is cached of them, since when, and last used when."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import quote

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.web.template import Tag, tags

from proxy.core.amounts import NONE, counted, moment, size
from proxy.core.roots import index_root
from proxy.errors import ProxyError
from proxy.interfaces import IClaims, IOffload, IRepository
from proxy.model import File, Page
from proxy.names import is_project_name, normalize, version_of
from proxy.web.answers import Ask
from proxy.web.browsing import matching_names, search_form, search_text
from proxy.web.dashboard.descriptions import MOST_METADATA, summary_of
from proxy.web.dashboard.markup import nothing, table
from proxy.web.dashboard.rendering import Descriptions
from proxy.web.dashboard.stored import CachedFile, CachedFiles
from proxy.web.dashboard.viewers import Viewer
from proxy.web.hypertext import hyperlink

#: Names that a search shows, and files on the page of a project.
_SHOWN, _FILES = 200, 500


class ProjectPages:
    """Finds and shows projects of *repositories*; *cached* has what is stored of them, *claims* whose names they are.

    *apart*: their pages for installers are at another address, and not linked.
    """

    def __init__(
        self,
        repositories: Mapping[str, IRepository],
        cached: CachedFiles,
        claims: IClaims,
        offload: IOffload,
        reactor: IReactorTime,
        *,
        apart: bool,
    ) -> None:
        self._claims = claims
        self._repositories = repositories
        self._cached = cached
        self._offload = offload
        self._apart = apart
        self._descriptions = Descriptions(offload, reactor)
        # There may be some 100,000 names: searches take one thread at the most.
        self._one_search = DeferredLock()

    # -- search ----------------------------------------------------------------------------------------------------------

    async def search(self, viewer: Viewer, ask: Ask) -> list[Tag]:
        """What a search for ``q`` finds among the projects that are cached or hosted and that *viewer* may see."""
        wanted = search_text(ask)
        found: list[tuple[str, str]] = []
        total = 0
        for index, repository in self._repositories.items():
            async with self._one_search:
                cached, own = await self._there(repository)
                names = await self._offload.run(_found, viewer, index, cached, own, wanted)
            total += len(names)
            found += [(name, index) for name in names[: _SHOWN - len(found)]]
        rows: list[list[Tag | str]] = [[hyperlink(_path(index, name), name), index] for name, index in found]
        content = [search_form("Name of a project, or a part of it", wanted)]
        if rows:
            more = f" The first {len(rows)} are shown: search for others." if total > len(rows) else ""
            content.append(tags.p(f"{counted(total, 'project')} found.{more}", role="status"))
            content.append(table("Projects that are cached or hosted", ("Project", "Index"), rows))
        else:
            content.append(tags.p("No project that is cached or hosted has such a name.", role="status"))
        return [*content, *self._others(wanted, {name for name, _ in found})]

    async def _there(self, repository: IRepository) -> tuple[Sequence[str], Sequence[str]]:
        """The projects of *repository* that are cached, sorted, and those that are hosted."""
        own: Sequence[str] | None = None
        with suppress(ProxyError):
            own = await repository.own()
        return await repository.cached(), own or ()

    def _others(self, wanted: str, found: set[str]) -> list[Tag]:
        """Links to the project that is called *wanted*, which may exist upstream."""
        name = normalize(wanted)
        if not is_project_name(wanted) or name in found:
            return []
        links = [tags.li(hyperlink(_path(index, name), f"{name} in {index}")) for index in self._repositories]
        return [tags.p("It may exist all the same: its page is requested from the index when you open it."), tags.ul(links)]

    # -- one project -----------------------------------------------------------------------------------------------------

    async def project(self, repository: IRepository, project: str, viewer: Viewer, actions: Sequence[Tag] = ()) -> list[Tag]:
        """The page of *project* (normalised) of *repository*, which *viewer* may read.

        Raises NotFound, UpstreamFailed, StorageFailed.
        """
        view = await repository.page(project)
        page = await view.load()
        cached = await self._cached.of(repository.owners(project), project)
        own = await repository.own()
        metadata = await self._metadata(repository, page) if own is not None and project in own else b""
        description = await self._descriptions.of(metadata)
        remarks = [self._claims.held(leaf, project) for leaf in repository.leaves if viewer.may_name(leaf, project)]
        above = [*(tags.p(f"{each}.", class_="bad") for each in remarks if each is not None), *actions]
        where = _where(repository.name, page.project, apart=self._apart)
        return await self._offload.run(_project, where, page, cached, metadata, description, above)

    async def _metadata(self, repository: IRepository, page: Page) -> bytes:
        """The metadata of the newest wheel that has some; empty if there is none, or it cannot be read now."""
        wheels = [each for each in page.files if each.core_metadata and each.digest is not None]
        if not wheels:
            return b""
        newest = max(wheels, key=_by_version)
        digest = newest.digest
        assert digest is not None
        with suppress(ProxyError):
            handle = await repository.file(page.project, str(digest), f"{newest.filename}.metadata")
            try:
                source = await handle.open()
            finally:
                handle.close()
            try:
                length = min(source.extent(), MOST_METADATA)
                return await self._offload.run(_read, source.fileno(), length)
            finally:
                source.close()
        return b""


def _read(descriptor: int, length: int) -> bytes:
    return os.pread(descriptor, length, 0)


def _found(viewer: Viewer, index: str, cached: Sequence[str], own: Sequence[str], wanted: str) -> Sequence[str]:
    found = matching_names(sorted({*cached, *own}) if own else cached, wanted)
    return found if viewer.reads_all(index) else [name for name in found if viewer.may_name(index, name)]


def _path(index: str, project: str) -> str:
    """The page of *project*, from ``/-/search``."""
    return f"project/{quote(index, safe='')}/{project}"


def _by_version(file: File) -> tuple[bool, object]:
    version = version_of(file.filename)
    return (version is not None, version)


def _where(index: str, project: str, *, apart: bool) -> tuple[Sequence[Tag | str], Sequence[Tag | str]]:
    """What names *index*, and what leads to the page of *project* in it for installers; *apart*: that is at another address."""
    if apart:
        return (index,), ()
    root = f"../../..{index_root(index)}"
    return (hyperlink(root, index),), (" ", hyperlink(f"{root}simple/{project}/", "Page for installers"))


def _project(
    where: tuple[Sequence[Tag | str], Sequence[Tag | str]],
    page: Page,
    cached: Mapping[str, CachedFile],
    metadata: bytes,
    description: Sequence[Tag | str],
    actions: Sequence[Tag],
) -> list[Tag]:
    files = sorted(page.files, key=lambda each: each.filename)
    known = [each for each in files if version_of(each.filename) is not None]
    known.sort(key=lambda each: version_of(each.filename), reverse=True)  # type: ignore[arg-type, return-value]  # None is sorted out
    files = [*known, *(each for each in files if version_of(each.filename) is None)]
    versions = {version_of(each.filename) for each in known}
    here = [cached[each.filename] for each in files if each.filename in cached]
    cached_here = f"{len(here):,} of them cached, {size(sum(each.size for each in here))}"
    summary = summary_of(metadata) if metadata else ""
    status = page.status.get("status") if page.status else None
    reason = page.status.get("reason") if page.status else None
    content: list[Tag] = [tags.p(summary)] if summary else []
    if isinstance(status, str) and status != "active":
        content.append(tags.p(f"This project is {status}{f': {reason}' if isinstance(reason, str) else ''}.", class_="bad"))
    content.append(
        tags.p(
            f"{counted(len(versions), 'version')} with {counted(len(files), 'file')} in the index ",
            *where[0],
            f". {cached_here}.",
            *where[1],
        )
    )
    content += actions
    if files:
        heads = ("File", "Version", "Size", "Cached since", "Last used", "Notes")
        rows = [_row(each, cached.get(each.filename)) for each in files[:_FILES]]
        content.append(table("Files, the newest version first", heads, rows, (2,)))
        if len(files) > _FILES:
            content.append(nothing(f"{counted(len(files) - _FILES, 'older file')} not shown."))
    else:
        content.append(nothing("It has no files."))
    if description:
        content += [tags.h2("Description"), tags.div(*description, class_="description")]
    return content


def _row(file: File, cached: CachedFile | None) -> list[Tag | str]:
    version = version_of(file.filename)
    length = file.size if file.size is not None else None if cached is None else cached.size
    notes = []
    if file.yanked:
        notes.append("yanked" if file.yanked is True else f"yanked: {file.yanked}")
    if cached is not None and cached.pinned:
        notes.append("pinned")
    return [
        file.filename,
        NONE if version is None else str(version),
        NONE if length is None else size(length),
        tags.span("not cached", class_="dim") if cached is None else moment(cached.since),
        NONE if cached is None else moment(cached.used),
        ", ".join(notes) or NONE,
    ]

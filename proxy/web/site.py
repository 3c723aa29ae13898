"""What answers at each route: :data:`ROUTES` lists every path below an index, its methods, and the right that each needs.

Where a path leads is known by then.  The door (:mod:`proxy.web.door`) is asked before anything answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from proxy.access.principals import ANONYMOUS, Principal
from proxy.access.roles import Permission
from proxy.core.roots import INDEXES
from proxy.errors import ContentTooLarge, LoopDetected, MethodNotAllowed, NotAcceptable, NotFound
from proxy.interfaces import IRepository
from proxy.mechanism.late import Late
from proxy.names import PROVENANCE, companion_of, normalize
from proxy.upstream.http.identity import Identity, entries, passed_through
from proxy.web.answers import Answer, Ask, close_body
from proxy.web.astray import Astray
from proxy.web.changing import CHANGES, Changes
from proxy.web.dashboard.places import PLACES, POSTED
from proxy.web.documents import JsonDocuments, last_modified
from proxy.web.door import Door
from proxy.web.exchanging import Exchanging
from proxy.web.files import Files
from proxy.web.operations import Operations
from proxy.web.pages import Pages, redirect
from proxy.web.projects import ProjectLists
from proxy.web.routes import SHOWN, Below, DiscoveryRoute, ExchangeRoute, NoRoute, OperationsRoute, Route, Slashless, TopLevel
from proxy.web.upload import Uploads
from proxy.web.visitors import installer, is_browsing, wants_html

if TYPE_CHECKING:
    from proxy.web.browsing import Browsing
    from proxy.web.dashboard.home import Dashboard
    from proxy.web.links import FlatPages
    from proxy.web.local_stats import LocalStats
    from proxy.web.overview import Overview

_FORM = "multipart/form-data"


def refuse_body(ask: Ask) -> None:
    """Raise ContentTooLarge if *ask* has a body: only uploads have one."""
    if ask.body is not None:
        raise ContentTooLarge("only uploads have a body: GET and HEAD are answered here")


def no_icon() -> Answer:
    """The answer to browsers, which ask for an icon by themselves."""
    return Answer(204, [("Cache-Control", "max-age=86400")])


def is_upload(ask: Ask) -> bool:
    """Whether *ask* is to add a file, wherever it leads."""
    if ask.method != "POST":
        return False
    match ask.route:
        case Below(pattern=pattern):
            posted = pattern in UPLOADS
        case Slashless(index=index):
            posted = index is not None
        case TopLevel(path=path):
            posted = path == "/"
        case _:
            posted = False
    return posted or (ask.header("content-type") or "").lower().startswith(_FORM)


class At(Struct, frozen=True):
    """A request for something below the *root* of an index, of *principal*, who may have it."""

    repository: IRepository
    root: str
    ask: Ask
    principal: Principal = ANONYMOUS


class Routes:
    """Answers requests for the indexes in *repositories*, to whom *door* admits.

    *identity* knows the requests that this instance has sent upstream: one that comes back is refused.  *dashboard* is what
    people see, ``None`` where it is switched off, or at other listeners.
    """

    def __init__(
        self,
        repositories: Mapping[str, IRepository],
        pages: Pages,
        files: Files,
        documents: JsonDocuments,
        operations: Operations,
        overview: Late[Overview],
        browsing: Late[Browsing],
        links: Late[FlatPages],
        uploads: Uploads,
        changes: Changes,
        lists: ProjectLists,
        exchanging: Exchanging,
        local_stats: Late[LocalStats],
        identity: Identity,
        door: Door,
        dashboard: Late[Dashboard] | None = None,
    ) -> None:
        self._dashboard = dashboard
        self._repositories = repositories
        self._pages = pages
        self._files = files
        self._documents = documents
        self._operations = operations
        self._overview = overview
        self._uploads = uploads
        self._changes = changes
        self._lists = lists
        self._door = door
        self._exchanging = exchanging
        self._local_stats = local_stats
        self._identity = identity
        self._astray = Astray()
        self._browsing = browsing
        self._links = links

    async def __call__(self, ask: Ask) -> Answer:
        """The answer to *ask*.  Raises ProxyError."""
        if isinstance(ask.route, ExchangeRoute):
            return await self._exchanging.answer(ask.route, ask)
        if is_upload(ask):
            self._refuse_loop(ask)
            return await self._upload(ask)
        if ask.method == "POST" and isinstance(ask.route, Below) and ask.route.pattern in CHANGING:
            return await self._change(ask.route, ask)
        if ask.method == "POST" and self._dashboard is not None and isinstance(ask.route, OperationsRoute):
            self._refuse_loop(ask)
            if ask.route.segments in POSTED:
                return await (await self._dashboard.loaded()).posted(ask.route.segments, ask)
        refuse_body(ask)
        if ask.method not in ("GET", "HEAD"):
            allow = self._allowed(ask.route)
            raise MethodNotAllowed(f"{ask.method} {ask.path[:SHOWN]}: only {allow or 'nothing'} is answered here", allow=allow)
        self._refuse_loop(ask)
        match ask.route:
            case OperationsRoute(segments=segments):
                if self._dashboard is not None and segments[0] in PLACES:
                    return await (await self._dashboard.loaded()).answer(segments, ask)
                return await self._operations.answer(segments, ask)
            case Below() as below:
                return await self._below(below, ask)
            case TopLevel(path):
                return await self._at_top_level(path, ask)
            case DiscoveryRoute(key):
                return await self._exchanging.discovery(key, ask)
            case Slashless(location):
                return redirect(location)
            case NoRoute() as route:
                raise self._astray.nowhere(route, ask)

    async def _below(self, below: Below, ask: Ask) -> Answer:
        answer = ROUTES[below.pattern]["GET"].answer
        at = At(self._repositories[below.index], below.root, ask)
        question = self._door.question(below, "GET")
        if question is None or _is_misspelt(below):
            return await answer(self, at, *below.values)
        admission = await self._door.admit(ask, question)
        at = replace(at, ask=ask.by(admission.principal), principal=admission.principal)
        try:
            found = await answer(self, at, *below.values)
        except (NotFound, NotAcceptable) as error:
            raise await self._door.missing(ask, admission, question, error) from error
        try:
            admission = await self._door.confirmed(ask, admission, question)
        except BaseException:
            close_body(found.body)
            raise
        return self._door.presented(found, admission, question)

    async def _upload(self, ask: Ask) -> Answer:
        match ask.route:
            case Below(index, root, pattern) if pattern in UPLOADS and self._uploads.taken_by(index):
                return await ROUTES[pattern]["POST"].answer(self, At(self._repositories[index], root, ask))
            case Slashless(_, str(index)) if self._uploads.taken_by(index):
                return await self._receive(At(self._repositories[index], ask.path, ask))
            case Below(index=str(index)) | Slashless(index=str(index)):
                raise self._uploads.refusal(ask, index, self._repositories[index].leaves, self._allowed(ask.route))
            case NoRoute(why):
                raise NotFound(f"{why}; uploads: {self._uploads.whereabouts(ask)}")
        raise self._uploads.refusal(ask, None, (), self._allowed(ask.route))

    async def _change(self, below: Below, ask: Ask) -> Answer:
        repository = self._repositories[below.index]
        if not self._changes.are_made_in(below.index):
            raise self._changes.refusal(ask, repository)
        return await ROUTES[below.pattern]["POST"].answer(self, At(repository, below.root, ask), *below.values)

    def _allowed(self, route: Route) -> str:
        """The methods that are answered at *route*, as in ``Allow``."""
        match route:
            case Below(index, _, pattern) if pattern in CHANGING:
                taken, read = self._changes.are_made_in(index), False
            case Below(index, _, pattern) if pattern in UPLOADS:
                taken, read = self._uploads.taken_by(index), pattern == ""
            case Slashless(index=str(index)):
                taken, read = self._uploads.taken_by(index), True
            case _:
                taken, read = False, True
        return ", ".join([*(["GET", "HEAD"] if read else []), *(["POST"] if taken else [])])

    async def _at_top_level(self, path: str, ask: Ask) -> Answer:
        if path == "/favicon.ico":
            return no_icon()
        if path == INDEXES:
            return await self._overview().indexes(ask)
        return await self._start_page(None, "/", ask)

    # -- what answers at the routes ----------------------------------------------------------------------------------------

    async def _index(self, at: At) -> Answer:
        self._astray.refuse(at.root, at.ask)
        return await self._start_page(at.repository.name, at.root, at.ask)

    async def _start_page(self, index: str | None, root: str, ask: Ask) -> Answer:
        if self._dashboard is not None and root == "/" and wants_html(ask):
            return await (await self._dashboard.loaded()).home(ask)
        return await self._overview().of(index, root, ask)

    async def _receive(self, at: At) -> Answer:
        return await self._uploads.answer(at.repository, at.ask)

    async def _list(self, at: At) -> Answer:
        return await self._lists.answer(at.repository, at.principal, False, at.ask)

    async def _list_with_slash(self, at: At) -> Answer:
        if is_browsing(at.ask):
            reading = self._door.reading(at.principal, at.repository)
            return await self._browsing().projects(at.repository, at.root, reading, at.ask)
        return await self._lists.answer(at.repository, at.principal, True, at.ask)

    async def _page(self, at: At, project: str) -> Answer:
        return await self._pages.page(at.repository, at.root, project, False, at.ask)

    async def _page_with_slash(self, at: At, project: str) -> Answer:
        return await self._pages.page(at.repository, at.root, project, True, at.ask)

    async def _page_of_pipenv(self, at: At, project: str) -> Answer:
        """pipenv asks for ``/simple//name/``."""
        return redirect(f"../{project}/")

    async def _page_without_simple(self, at: At, project: str) -> Answer:
        return await self._astray.page(at.root, project, at.ask)

    async def _upload_url(self, at: At) -> Answer:
        """What is not an upload; an installer whose index URL lacks ``simple/`` asks for the project ``legacy`` here."""
        if installer(at.ask) is not None or not self._uploads.taken_by(at.repository.name):
            return await self._page_without_simple(at, "legacy")
        raise MethodNotAllowed(f"{at.root}legacy/ takes uploads: only POST is answered here", allow="POST")

    async def _file(self, at: At, project: str, digest: str, name: str) -> Answer:
        if (filename := companion_of(name, PROVENANCE)) is not None:
            return await self._documents.provenance(at.repository, normalize(project), digest, filename, at.ask)
        return await self._files.file(at.repository, normalize(project), digest, name, at.ask)

    async def _flat(self, at: At) -> Answer:
        return await self._links().page(at.repository, self._door.reading(at.principal, at.repository), at.ask)

    async def _flat_without_slash(self, at: At) -> Answer:
        return redirect("links/")

    async def _changed(self, operation: str, at: At, project: str) -> Answer:
        return await self._changes.answer(at.repository, normalize(project), operation, at.ask)

    async def _change_url(self, at: At, project: str) -> Answer:
        """What is not a change."""
        allow = self._allowed(at.ask.route)
        raise MethodNotAllowed(
            f"{at.ask.path[:SHOWN]} changes a project: only {allow or 'nothing'} is answered here", allow=allow
        )

    async def _age(self, at: At) -> Answer:
        return last_modified(at.repository)

    async def _downloads(self, at: At, day: str) -> Answer:
        return await self._local_stats().day(at.repository, self._door.reading(at.principal, at.repository), day)

    async def _legacy_of_pip_tools(self, at: At, project: str) -> Answer:
        """pip-tools, up to 7.6.0 and later, looks for the URLs that are on the page."""
        return await self._documents.legacy(at.repository, f"{at.root}files/", normalize(project), None, at.ask)

    async def _legacy(self, at: At, project: str, version: str | None = None) -> Answer:
        # bandersnatch takes a file only if the path of its URL begins with /packages
        return await self._documents.legacy(at.repository, f"{at.root}packages/", normalize(project), version, at.ask)

    def _refuse_loop(self, ask: Ask) -> None:
        received = entries(ask.header("via") or "")
        upstream = self._identity.came_back(received)
        if upstream is not None:
            raise LoopDetected(
                f"this request has passed through this proxy before: the setting upstream.{upstream}.url points back at it"
            )
        passed_through.set(received)


class Handling(Struct, frozen=True):
    """What gives the answer, and the permission that it needs; ``None``: everybody may have it.

    What is uploaded has a project that its form names, so whoever reads that asks the door itself.
    """

    answer: Callable[..., Awaitable[Answer]]
    permission: Permission | None


def _is_misspelt(below: Below) -> bool:
    """Whether the page of a project is asked for by another spelling: it is redirected, whether there is one or not."""
    return below.pattern == _PAGE and normalize(below.values[0]) != below.values[0]


def _open(answer: Callable[..., Awaitable[Answer]]) -> Mapping[str, Handling]:
    return dict.fromkeys(("GET", "HEAD"), Handling(answer, None))


def _read(answer: Callable[..., Awaitable[Answer]]) -> Mapping[str, Handling]:
    return dict.fromkeys(("GET", "HEAD"), Handling(answer, Permission.READ))


_RECEIVE = {"POST": Handling(Routes._receive, Permission.UPLOAD)}


def _change(operation: str) -> Mapping[str, Handling]:
    def changed(routes: Routes, at: At, project: str) -> Awaitable[Answer]:
        return routes._changed(operation, at, project)

    return {**_open(Routes._change_url), "POST": Handling(changed, Permission.MAINTAIN)}


_PAGE = "simple/{project}/"
#: Every path below an index, and what answers there by method; the first that fits.  ``{…}`` is one segment of that kind.
ROUTES: Mapping[str, Mapping[str, Handling]] = {
    "": {**_open(Routes._index), **_RECEIVE},
    "simple": _read(Routes._list),
    "simple/": _read(Routes._list_with_slash),
    _PAGE: _read(Routes._page_with_slash),
    # These are redirected, whether there is such a project or not.
    "simple/{project}": _open(Routes._page),
    "simple//{project}/": _open(Routes._page_of_pipenv),
    "simple//{project}": _open(Routes._page_of_pipenv),
    "files/{project}/{digest}/{file}": _read(Routes._file),
    "packages/{project}/{digest}/{file}": _read(Routes._file),
    "links/": _read(Routes._flat),
    "links": _open(Routes._flat_without_slash),
    "last-modified": _read(Routes._age),
    "local-stats/days/{day}": _read(Routes._downloads),
    "simple/pypi/{project}/json": _read(Routes._legacy_of_pip_tools),
    **{f"projects/{{project}}/{operation}": _change(operation) for operation in CHANGES},
    "{project}/json": _read(Routes._legacy_of_pip_tools),
    "pypi/{project}/json": _read(Routes._legacy),
    "pypi/{project}/{version}/json": _read(Routes._legacy),
    "legacy": {**_open(Routes._upload_url), **_RECEIVE},
    "legacy/": {**_open(Routes._upload_url), **_RECEIVE},
    "{project}/": _open(Routes._page_without_simple),
}


def _posted(permission: Permission) -> frozenset[str]:
    """The paths that are posted to with *permission*."""
    return frozenset(each for each, methods in ROUTES.items() if "POST" in methods and methods["POST"].permission is permission)


#: The paths below an index that uploads are posted to.
UPLOADS = _posted(Permission.UPLOAD)
#: Those at which projects are changed.
CHANGING = _posted(Permission.MAINTAIN)
#: What each method at each of them needs.
PERMISSIONS = {pattern: {method: each.permission for method, each in methods.items()} for pattern, methods in ROUTES.items()}

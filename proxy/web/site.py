"""The URL space: which path is answered by what.

Text of a client is parsed here, by :data:`ROUTES` and :data:`CLAIMS`.  A segment that is not what it stands for is a 404
before anybody is asked; what lies behind may put the values into URLs, keys and paths.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from urllib.parse import quote

from attrs import frozen

from proxy.errors import ContentTooLarge, LoopDetected, MethodNotAllowed, NotFound
from proxy.interfaces import IRepository
from proxy.names import PROVENANCE, companion_of, is_digest, is_project_name, is_served_name, is_version, normalize
from proxy.upstream.http.identity import Identity, entries, passed_through
from proxy.web.answers import Answer, Ask
from proxy.web.documents import JsonDocuments, last_modified
from proxy.web.files import Files
from proxy.web.operations import Operations
from proxy.web.pages import Pages, redirect
from proxy.web.projects import projects

#: Characters of a client's text that an answer repeats.
_SHOWN = 200
#: Paths whose index is remembered, by so many of their first characters.
_PATHS, _START = 4096, 200


#: What a segment in braces must be.
CLAIMS: Mapping[str, Callable[[str], bool]] = {
    "{project}": is_project_name,
    "{version}": is_version,
    "{digest}": is_digest,
    "{file}": is_served_name,
}


def refuse_body(ask: Ask) -> None:
    """Raise ContentTooLarge if *ask* has a body: no route here takes one."""
    if ask.body is not None:
        raise ContentTooLarge("this proxy takes no request bodies: only GET and HEAD are answered")


@frozen(slots=True)
class At:
    """A request for something below the *root* of an index."""

    repository: IRepository
    root: str
    ask: Ask


class Routes:
    """Answers requests for the indexes in *repositories*, the one named *default* also at the root.

    *identity* knows the requests that this instance has sent upstream: one that comes back is refused.
    """

    def __init__(
        self,
        repositories: Mapping[str, IRepository],
        default: str | None,
        pages: Pages,
        files: Files,
        documents: JsonDocuments,
        operations: Operations,
        identity: Identity,
    ) -> None:
        self._repositories = repositories
        self._default = default
        self._pages = pages
        self._files = files
        self._documents = documents
        self._operations = operations
        self._place = lru_cache(maxsize=_PATHS)(self._place_of)
        self._identity = identity

    def place(self, path: str) -> tuple[str, str] | None:
        """The index that answers at *path*, and whether it is asked for pages (``simple``), ``files`` or ``pypi`` documents."""
        return self._place(path[:_START])

    def _place_of(self, start: str) -> tuple[str, str] | None:
        match start.split("/", 4):
            case ["", "index", name, ("simple" | "files" | "pypi") as kind, *_] if name in self._repositories:
                return name, kind
            case ["", ("simple" | "files" | "pypi") as kind, *_] if self._default is not None:
                return self._default, kind
        return None

    async def __call__(self, ask: Ask) -> Answer:
        """The answer to *ask*.  Raises ProxyError."""
        refuse_body(ask)
        if ask.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{ask.method} {ask.path[:_SHOWN]}: only GET and HEAD are answered here")
        self._refuse_loop(ask)
        match ask.segments:
            case ("-", *rest):
                return await self._operations.answer(tuple(rest))
            case ("index", name, *rest):
                if name not in self._repositories:
                    there = ", ".join(sorted(self._repositories))
                    raise NotFound(f"there is no index named {name[:_SHOWN]!r} here; there is {there}")
                return await self._below(At(self._repositories[name], f"/index/{quote(name)}/", ask), tuple(rest))
        if self._default is None:
            raise NotFound(f"{ask.path[:_SHOWN]}: no index is served at the root; indexes are at /index/<name>/simple/")
        return await self._below(At(self._repositories[self._default], "/", ask), ask.segments)

    async def _below(self, at: At, segments: tuple[str, ...]) -> Answer:
        """The answer at a path below an index.  Raises NotFound for a path that is none of :data:`ROUTES`."""
        wrong = ""
        for pattern, answer in _PATTERNS:
            if len(pattern) == len(segments) and all(map(_fits, pattern, segments)):
                untrue = next((each for each in zip(pattern, segments, strict=True) if not _is_true(*each)), None)
                if untrue is None:
                    values = (text for place, text in zip(pattern, segments, strict=True) if place in CLAIMS)
                    return await answer(self, at, *values)
                wrong = wrong or f"{untrue[1][:_SHOWN]!r} is no {untrue[0][1:-1]}"
        raise NotFound(
            f"{at.ask.path[:_SHOWN]}: {wrong or 'there is nothing at this path'}; "
            "indexes are at /simple/ and /index/<name>/simple/"
        )

    # -- what answers at the routes ----------------------------------------------------------------------------------------

    async def _list(self, at: At) -> Answer:
        return await projects(at.repository, False, at.ask)

    async def _list_with_slash(self, at: At) -> Answer:
        return await projects(at.repository, True, at.ask)

    async def _page(self, at: At, project: str) -> Answer:
        return await self._pages.page(at.repository, project, False, at.ask)

    async def _page_with_slash(self, at: At, project: str) -> Answer:
        return await self._pages.page(at.repository, project, True, at.ask)

    async def _page_of_pipenv(self, at: At, project: str) -> Answer:
        """pipenv asks for ``/simple//name/``."""
        return redirect(f"../{project}/")

    async def _file(self, at: At, project: str, digest: str, name: str) -> Answer:
        if (filename := companion_of(name, PROVENANCE)) is not None:
            return await self._documents.provenance(at.repository, normalize(project), digest, filename, at.ask)
        return await self._files.file(at.repository, normalize(project), digest, name, at.ask)

    async def _age(self, at: At) -> Answer:
        return last_modified(at.repository)

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


#: Every path below an index, and what answers there; the first that fits.  ``{…}`` is one segment of that kind.
ROUTES: Mapping[str, Callable[..., Awaitable[Answer]]] = {
    "simple": Routes._list,
    "simple/": Routes._list_with_slash,
    "simple/{project}/": Routes._page_with_slash,
    "simple/{project}": Routes._page,
    "simple//{project}/": Routes._page_of_pipenv,
    "simple//{project}": Routes._page_of_pipenv,
    "files/{project}/{digest}/{file}": Routes._file,
    "packages/{project}/{digest}/{file}": Routes._file,
    "last-modified": Routes._age,
    "simple/pypi/{project}/json": Routes._legacy_of_pip_tools,
    "{project}/json": Routes._legacy_of_pip_tools,
    "pypi/{project}/json": Routes._legacy,
    "pypi/{project}/{version}/json": Routes._legacy,
}

_PATTERNS = [(tuple(pattern.split("/")), answer) for pattern, answer in ROUTES.items()]


def _fits(place: str, text: str) -> bool:
    return place in CLAIMS or place == text


def _is_true(place: str, text: str) -> bool:
    return place not in CLAIMS or CLAIMS[place](text)

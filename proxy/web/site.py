"""The URL space: which path is answered by what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from proxy.errors import LoopDetected, MethodNotAllowed, NotFound
from proxy.interfaces import IRepository
from proxy.repository.offered import PROVENANCE
from proxy.upstream.identity import passed_through
from proxy.web.answers import Answer, Ask
from proxy.web.documents import JsonDocuments, last_modified
from proxy.web.files import Files
from proxy.web.operations import Operations
from proxy.web.pages import Pages, redirect
from proxy.web.projects import projects


class Routes:
    """Answers requests for the indexes in *repositories*, the one named *default* also at the root.

    *via* is this instance's pseudonym: a request that bears it has been here before.
    """

    def __init__(
        self,
        repositories: Mapping[str, IRepository],
        default: str | None,
        pages: Pages,
        files: Files,
        documents: JsonDocuments,
        operations: Operations,
        via: str,
    ) -> None:
        self._repositories = repositories
        self._default = default
        self._pages = pages
        self._files = files
        self._documents = documents
        self._operations = operations
        #: See :meth:`_place`; hot paths are asked for again and again.
        self.place = lru_cache(maxsize=10_000)(self._place)
        self._been_here = re.compile(rf"[\d.]+ {re.escape(via)}(?: \(([^)]*)\))?(?:,|$)")

    def _place(self, path: str) -> tuple[str, str] | None:
        """The index that answers at *path*, and whether it is asked for pages (``simple``), ``files`` or ``pypi`` documents."""
        match path.split("/", 4):
            case ["", "index", name, ("simple" | "files" | "pypi") as kind, *_] if name in self._repositories:
                return name, kind
            case ["", ("simple" | "files" | "pypi") as kind, *_] if self._default is not None:
                return self._default, kind
        return None

    async def __call__(self, ask: Ask) -> Answer:
        """The answer to *ask*.  Raises ProxyError."""
        if ask.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{ask.method} {ask.path}: only GET and HEAD are answered here")
        self._refuse_loop(ask)
        match ask.segments:
            case ("-", *rest):
                return await self._operations.answer(tuple(rest))
            case ("index", name, *rest):
                if name not in self._repositories:
                    there = ", ".join(sorted(self._repositories))
                    raise NotFound(f"there is no index named {name!r} here; there is {there}")
                return await self._index(self._repositories[name], f"/index/{quote(name)}/", tuple(rest), ask)
            case ("simple" | "files" | "packages" | "pypi" | "last-modified", *_) | (_, "json") if self._default is not None:
                return await self._index(self._repositories[self._default], "/", ask.segments, ask)
        raise NotFound(f"{ask.path}: there is nothing at this path; indexes are at /simple/ and /index/<name>/simple/")

    async def _index(self, repository: IRepository, root: str, segments: tuple[str, ...], ask: Ask) -> Answer:
        """A path below the index at *root*."""
        match segments:
            case ("simple",):
                return await projects(repository, False, ask)
            case ("simple", ""):
                return await projects(repository, True, ask)
            case ("simple", project, "") if project:
                return await self._pages.page(repository, project, True, ask)
            case ("simple", project) if project:
                return await self._pages.page(repository, project, False, ask)
            case ("simple", "", project, *_) if project:
                # pipenv asks for /simple//name/
                return redirect(f"../{project}/")
            case ("files" | "packages", project, digest, name):
                if name.endswith(PROVENANCE):
                    filename = name.removesuffix(PROVENANCE)
                    return await self._documents.provenance(repository, project, digest, filename, ask)
                return await self._files.file(repository, project, digest, name, ask)
            case ("last-modified",):
                return last_modified(repository)
            case ("simple", "pypi", project, "json") | (project, "json"):
                # pip-tools, up to 7.6.0 and later; it looks for the URLs that are on the page
                return await self._documents.legacy(repository, f"{root}files/", project, None, ask)
            case ("pypi", project, *version, "json") if len(version) <= 1:
                # bandersnatch takes a file only if the path of its URL begins with /packages
                return await self._documents.legacy(repository, f"{root}packages/", project, next(iter(version), None), ask)
        raise NotFound(f"{ask.path}: no project page, and no file")

    def _refuse_loop(self, ask: Ask) -> None:
        via = ask.header("via")
        if via is None:
            return
        been = self._been_here.search(via)
        if been is not None:
            setting = f"{been.group(1)}.url" if been.group(1) else "an upstream's url"
            raise LoopDetected(f"this request has passed through this proxy before: the setting {setting} points back at it")
        passed_through.set(via)

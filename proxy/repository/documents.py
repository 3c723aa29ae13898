"""What an index has beside pages and files: the list of its projects, the legacy JSON API, provenance."""

from __future__ import annotations

from attrs import frozen

from proxy.cache.documents import DocumentCache
from proxy.cache.outcome import Outcome
from proxy.cache.projects import ProjectList, ProjectsSource
from proxy.errors import NotFound, UpstreamFailed
from proxy.model import Page, Wanted
from proxy.repository.located import PageView, View


@frozen(slots=True)
class LegacyDocument:
    """What a document of the legacy API is made of: upstream's own (``None``: it has none), and what the index offers."""

    body: bytes | None
    page: Page
    version: str | None


class Documents:
    """The documents of one index.  *legacy* is keyed by path, *provenance* by :func:`provenance_key`."""

    def __init__(self, legacy: DocumentCache, provenance: DocumentCache, projects: ProjectList) -> None:
        self._legacy = legacy
        self._provenance = provenance
        self._projects = projects

    def close(self) -> None:
        """Stop what is under way."""
        for each in (self._legacy, self._provenance, self._projects):
            each.close()

    async def forget(self, project: str) -> None:
        """Drop the documents of *project*."""
        await self._legacy.forget(f"pypi/{project}/")
        await self._provenance.forget(f"{project} ")

    async def projects(self, *, no_cache: bool = False) -> ProjectsSource:
        """The list of projects.  Raises UpstreamFailed."""
        return await self._projects.get(no_cache=no_cache)

    async def legacy(self, view: PageView, version: str | None) -> View[LegacyDocument]:
        """The legacy document of the project of *view*, or of one *version*.  Raises NotFound."""
        middle = "" if version is None else f"{version}/"
        key = f"pypi/{view.project}/{middle}json"
        try:
            served = await self._legacy.get(key)
        except (NotFound, UpstreamFailed):
            # Most mirrors have no such API; what the page says will do.
            return View(view.project, f"page/{view.state}", view.outcome, view.serial, lambda: self._made(view, version))

        async def load() -> LegacyDocument:
            return LegacyDocument(await self._legacy.body(key, served.head), await view.load(), version)

        state = f"{served.head.digest}/{view.state}"
        return View(view.project, state, served.outcome, served.head.serial, load)

    async def _made(self, view: PageView, version: str | None) -> LegacyDocument:
        return LegacyDocument(None, await view.load(), version)

    async def provenance(self, wanted: Wanted) -> View[bytes]:
        """The provenance at ``wanted.url``.  Raises NotFound, UpstreamFailed."""
        key = provenance_key(wanted)
        served = await self._provenance.get(key)
        outcome: Outcome = served.outcome
        return View(wanted.project, served.head.digest, outcome, None, lambda: self._provenance.body(key, served.head))


def provenance_key(wanted: Wanted) -> str:
    """All that is needed to ask for the provenance again; the parts hold no white space."""
    return " ".join((wanted.project, wanted.filename.replace(" ", "%20"), wanted.upstream, wanted.url))


def provenance_wanted(index: str, key: str) -> Wanted:
    """What :func:`provenance_key` was made of."""
    project, filename, upstream, url = key.split(" ")
    return Wanted(index, project, filename, url, upstream, companion=".provenance")

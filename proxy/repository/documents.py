"""What an index has beside pages and files: the list of its projects, the legacy JSON API, provenance."""

from __future__ import annotations

from proxy.cache.documents import DocumentCache
from proxy.cache.projects import ProjectList
from proxy.core.bounded import BoundedTable
from proxy.core.views import Document, DocumentView, Moment, PageView, View
from proxy.errors import NotFound, UpstreamFailed
from proxy.interfaces import IProjectsView
from proxy.mechanism.flight import Flights
from proxy.model import Head, Wanted
from proxy.names import PROVENANCE, normal_version
from proxy.settings import MIB
from proxy.simple.links import bare

#: What the places of provenance may take in memory, and what one weighs besides its text (bytes).
_PLACES, _PLACE = 2 * MIB, 500


class Documents:
    """The documents of one index.  *legacy* is keyed by path, *provenance* by what *places* says."""

    def __init__(
        self, legacy: DocumentCache, provenance: DocumentCache, places: ProvenancePlaces, projects: ProjectList
    ) -> None:
        self._places = places
        self._legacy = legacy
        self._provenance = provenance
        self._projects = projects

    @property
    def documents_under_way(self) -> tuple[Flights[Head], ...]:
        """The documents that upstream is asked for."""
        return self._legacy.under_way, self._provenance.under_way

    @property
    def lists_under_way(self) -> Flights[Head]:
        """The list of projects, while upstream is asked for it."""
        return self._projects.under_way

    def close(self) -> None:
        """Stop what is under way."""
        for each in (self._legacy, self._provenance, self._projects):
            each.close()

    async def forget(self, project: str) -> None:
        """Drop the documents of *project*."""
        await self._legacy.forget(f"pypi/{project}/")
        await self._provenance.forget(f"{project} ")

    async def projects(self, *, no_cache: bool = False) -> IProjectsView:
        """The list of projects.  Raises UpstreamFailed."""
        return await self._projects.get(no_cache=no_cache)

    async def legacy(self, view: PageView, version: str | None) -> DocumentView:
        """The legacy document of the project of *view*, or of one *version*.  Raises NotFound."""
        # Spellings of one version share a record.
        middle = "" if version is None else f"{normal_version(version)}/"
        key = f"pypi/{view.project}/{middle}json"
        try:
            served = await self._legacy.get(key)
        except (NotFound, UpstreamFailed):
            # Most mirrors have no such API; what the page says will do.
            return View(view.project, f"page/{view.state}", view.status, view.serial, view.seen, lambda: _made_of(view))

        async def load() -> Document:
            return Document(await self._legacy.body(key, served.head), await view.load())

        state = f"{served.head.digest}/{view.state}"
        return View(view.project, state, served.status, served.head.serial, view.seen, load)

    async def provenance(self, wanted: Wanted, seen: Moment) -> DocumentView:
        """The provenance at ``wanted.url`` of a file that was *seen*.  Raises NotFound, UpstreamFailed."""
        key = self._places.key(wanted)
        served = await self._provenance.get(key)

        async def load() -> Document:
            return Document(await self._provenance.body(key, served.head))

        return View(wanted.project, served.head.digest, served.status, None, seen, load)


async def _made_of(view: PageView) -> Document:
    return Document(None, await view.load())


class ProvenancePlaces:
    """Where the provenance of the files of *index* is.

    The URL of one may bear a signature, which is a secret and differs each time: its record is kept under what stays the same,
    and the URL in memory, where a refresh finds it.
    """

    def __init__(self, index: str) -> None:
        self._index = index
        self._known: BoundedTable[str, Wanted] = BoundedTable(_PLACES, lambda wanted: _PLACE + len(wanted.url), len)

    def key(self, wanted: Wanted) -> str:
        """What the provenance *wanted* is kept under; the parts hold no white space."""
        key = " ".join((wanted.project, wanted.filename.replace(" ", "%20"), wanted.upstream, bare(wanted.url)))
        self._known.put(key, wanted)
        return key

    def wanted(self, key: str) -> Wanted:
        """What :meth:`key` was told last, or as much of it as the key says."""
        known = self._known.get(key)
        if known is not None:
            return known
        project, filename, upstream, url = key.split(" ")
        return Wanted(self._index, project, filename, url, upstream, companion=PROVENANCE)

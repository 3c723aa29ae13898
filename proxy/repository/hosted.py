"""A hosted index: the pages and files of its directory, served from the store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from zope.interface import implementer

from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.cache.listing import ShownList
from proxy.cache.refreshed import Served
from proxy.core.cache_status import CacheStatus
from proxy.core.views import Document, DocumentName, DocumentView, LegacyName, Moment, PageView, ProvenanceName, View
from proxy.core.wheels import OpenFile, Unreadable, read_metadata
from proxy.errors import NotFound, StorageFailed
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.notes import Note
from proxy.hosted.project import HostedProject, provenance_of
from proxy.hosted.restoring import Restoring
from proxy.interfaces import Clock, IBytesSource, IFileHandle, IOffload, IProjectsView, IRepository
from proxy.mechanism.flight import closing_after
from proxy.model import Head, LedgerEntry, Page
from proxy.names import METADATA, UNSTATED, companion_of, metadata_name
from proxy.policy.policy import Policy
from proxy.repository.gate import Gate
from proxy.repository.handles import StoredFile
from proxy.storage.whole import anonymous

#: Nothing is a copy here.
_OWN = CacheStatus(True, own=True)


class HostedPages:
    """The pages of *catalogue* as the gate asks for them."""

    def __init__(self, catalogue: Catalogue, offload: IOffload) -> None:
        self._catalogue = catalogue
        self._offload = offload

    async def project(self, project: str) -> HostedProject:
        """The project.  Raises NotFound, StorageFailed."""
        found = await self._catalogue.of(project)
        if found is None:
            raise NotFound(f"there is no project {project} on {self._catalogue.name}")
        return found

    async def get(self, project: str, *, no_cache: bool = False) -> Served:
        """Its head.  Raises NotFound, StorageFailed."""
        return Served((await self.project(project)).head, _OWN)

    async def remembered(self, project: str) -> Head | None:
        """Its head, ``None`` if it does not exist.  Raises StorageFailed."""
        found = await self._catalogue.of(project)
        return None if found is None else found.head

    async def parsed(self, project: str, head: Head) -> Page:
        """Its page as it is now.  Raises NotFound, StorageFailed."""
        return await self._offload.run_first(_page_of, await self.project(project))


def _page_of(project: HostedProject) -> Page:
    return project.page


@implementer(IRepository)
class HostedRepository:
    """The hosted index of *catalogue*, as *policy* lets it be seen.

    *files* is the store, *restoring* brings back what it has lost, *shown* is the list of projects.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        files: FileCache,
        ledger: Ledger,
        restoring: Restoring,
        shown: ShownList,
        policy: Policy,
        offload: IOffload,
        clock: Clock,
    ) -> None:
        self.name = name = catalogue.name
        self.leaves = (name,)
        self._catalogue = catalogue
        self._files = files
        self._ledger = ledger
        self._restoring = restoring
        self._shown = shown
        self._offload = offload
        self._clock = clock
        self._pages = HostedPages(catalogue, offload)
        self._gate = Gate(policy, name, self._pages, ledger, offload, clock)

    def owners(self, project: str) -> Sequence[str]:
        return (self.name,)

    def close(self) -> None:
        """Stop what is under way."""
        self._gate.close()
        self._shown.close()

    # -- pages -------------------------------------------------------------------------------------------------------------

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        self._gate.require_project(project)
        found = await self._pages.project(project)
        moment = await self._gate.moment(project, found.head, await self._ledger.of(self.name, project))
        return self._view(found, moment)

    def page_at_hand(self, project: str) -> PageView | None:
        found = self._catalogue.at_hand(project)
        entries = self._ledger.at_hand(self.name, project)
        if found is None or entries is None:
            return None
        moment = self._gate.moment_at_hand(project, found.head, entries)
        return None if moment is None else self._view(found, moment)

    def _view(self, found: HostedProject, moment: Moment) -> PageView:
        return View(
            found.name,
            f"{found.state}/{moment.mark}",
            _OWN,
            None,
            moment,
            partial(self._load, found, moment),
            relative=any(note.attestations for note in found.notes.values()),
        )

    async def _load(self, found: HostedProject, moment: Moment) -> Page:
        entries = await self._ledger.of(self.name, found.name)
        return (await self._gate.seen(found.name, found.head, moment.now, entries)).page

    async def projects(self, *, no_cache: bool = False) -> IProjectsView:
        return await self._shown.of_names((await self._catalogue.names()).projects, _OWN)

    async def cached(self) -> Sequence[str]:
        return await self._gate.visible_of((await self._catalogue.names()).projects)

    def last_modified(self) -> float | None:
        return self._clock()

    async def own(self) -> Sequence[str] | None:
        return await self.cached()

    # -- documents ---------------------------------------------------------------------------------------------------------

    async def document(self, name: DocumentName) -> DocumentView:
        match name:
            case LegacyName(project):
                view = await self.page(project)
                return View(project, f"page/{view.state}", view.status, None, view.seen, partial(_made_of, view))
            case ProvenanceName(project, asked, filename):
                moment = await self._gate.require(project, filename, filename)
                _, note = await self._listed(project, asked, filename)
                if not note.attestations:
                    raise NotFound(f"there is no provenance of {filename}: it was uploaded without attestations")
                body = provenance_of(note.attestations)
                return View(project, hashlib.sha256(body).hexdigest(), _OWN, None, moment, partial(_given, Document(body)))

    # -- files -------------------------------------------------------------------------------------------------------------

    async def file(self, project: str, digest: str, name: str) -> IFileHandle:
        filename = companion_of(name, METADATA) or name
        moment = await self._gate.require(project, filename, name)
        found, note = await self._listed(project, digest, filename)
        if filename == name:
            source, made = await self._bytes_of(found, filename, note), False
        else:
            source, made = await self._metadata_of(found, filename, note, name)
        etag = f'"sha256-{note.sha256}"' if filename == name else f'"{source.sha256}"'
        return StoredFile(source, etag, moment, partial(self._current, project, digest, name), made=made)

    async def _listed(self, project: str, asked: str, filename: str) -> tuple[HostedProject, Note]:
        """The file with the digest *asked*.  Raises NotFound, StorageFailed."""
        found = await self._pages.project(project)
        note = found.notes.get(filename)
        if note is None:
            raise NotFound(f"there is no {filename} on {self.name}")
        if not _is_called(note, asked):
            raise NotFound(f"{filename} has the digest sha256-{note.sha256} on {self.name}, not {asked}")
        return found, note

    async def _bytes_of(self, found: HostedProject, filename: str, note: Note) -> IBytesSource:
        source = await self._files.stored(note.sha256, note.size)
        if source is None:
            await self._restoring.restore(found.name, filename, note)
            source = await self._files.stored(note.sha256, note.size)
        if source is None:
            raise StorageFailed(f"{filename} cannot be read from the store of {self.name} now")
        return source

    async def _metadata_of(self, found: HostedProject, filename: str, note: Note, name: str) -> tuple[IBytesSource, bool]:
        """The metadata of a wheel, and whether they had to be read from it now."""
        if note.metadata is None:
            raise NotFound(f"{name}: only wheels have metadata beside them")
        entered = metadata_name(f"sha256-{note.sha256}", filename)
        entry = (await self._ledger.of(self.name, found.name)).get(entered)
        # A note is a file that others may write: it could name any bytes in the store.
        if (
            entry is not None
            and entry.sha256 == note.metadata
            and (stored := await self._files.stored(note.metadata)) is not None
        ):
            return stored, False
        wheel = await self._bytes_of(found, filename, note)
        try:
            file = OpenFile(wheel.fileno(), wheel.size or 0)
            data = await closing_after(self._offload.run(read_metadata, file, filename), wheel)
        except Unreadable as error:
            raise StorageFailed(f"the metadata of {filename} cannot be read: {error}") from error
        self._files.keep_private(hashlib.sha256(data).hexdigest())
        sha256 = await self._files.keep(data)
        await self._ledger.add(
            self.name, found.name, entered, LedgerEntry(sha256, len(data), {"sha256": sha256}, "", self._clock())
        )
        if sha256 != note.metadata:
            raise StorageFailed(f"the metadata of {filename} are not those that its JSON file names")
        stored = await self._files.stored(sha256)
        return anonymous(data, sha256) if stored is None else stored, True  # a disk that takes nothing keeps nobody from them

    def _current(self, project: str, asked: str, name: str) -> str | None:
        """The sha256 of the stored file that :meth:`file` would find, if that is known at once, else ``None``."""
        found, entries = self._catalogue.at_hand(project), self._ledger.at_hand(self.name, project)
        filename = companion_of(name, METADATA) or name
        note = None if found is None else found.notes.get(filename)
        if found is None or entries is None or note is None or not _is_called(note, asked):
            return None
        if not self._gate.lastingly_visible(project, filename, found.head, entries):
            return None
        return note.sha256 if filename == name else note.metadata


def _is_called(note: Note, asked: str) -> bool:
    """Whether the digest segment *asked* of a URL means the bytes of *note*."""
    algorithm, _, value = asked.partition("-")
    return asked == UNSTATED or value == (note.sha256 if algorithm == "sha256" else note.digests.get(algorithm))


async def _made_of(view: PageView) -> Document:
    return Document(None, await view.load())


async def _given(document: Document) -> Document:
    return document

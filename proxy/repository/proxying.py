"""A proxy index: the pages and files of its upstreams, cached."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.logger import Logger
from zope.interface import implementer

from proxy.cache.entries import Entries
from proxy.cache.refreshed import Served
from proxy.core.events import Incident, Notice
from proxy.core.views import DocumentName, DocumentView, LegacyName, Moment, PageView, ProvenanceName, View
from proxy.errors import NotFound, NotHere
from proxy.interfaces import Clock, IBytesSource, IFileHandle, IOffload, IProjectsView, IRecorder, IRepository
from proxy.model import NO_BYTES, Head, Page, Wanted
from proxy.names import METADATA, PROVENANCE, companion_of, metadata_name
from proxy.repository.documents import Documents
from proxy.repository.gate import Gate
from proxy.repository.handles import RemoteFile, RemoteFiles, StoredFile
from proxy.repository.listed import ListedFiles, entry_for, etag_of, first_entry
from proxy.repository.metadata import Sidecars
from proxy.repository.offered import offered
from proxy.repository.prefetch import Prefetch
from proxy.repository.presence import There
from proxy.repository.sources import Offering, Sources
from proxy.simple.links import resolve
from proxy.statistics.recorders import UNRECORDED

#: Files that are looked at where they are needed, which takes a tenth of a millisecond at most; a worker thread costs as much.
_FEW = 50


@implementer(IRepository)
class ProxyRepository:
    """A proxy index with the pages and files of *sources*, as far as *offering* goes.

    *metadata* finds what is beside files, *documents* what is beside pages.  *recorder* is told what is worth counting.
    """

    log = Logger()

    def __init__(
        self,
        sources: Sources,
        offering: Offering,
        metadata: Sidecars,
        documents: Documents,
        offload: IOffload,
        clock: Clock,
        recorder: IRecorder = UNRECORDED,
    ) -> None:
        self.name = name = sources.name
        self.leaves = (name,)
        self._upstreams = upstreams = sources.upstreams
        self._pages = sources.pages
        self._files = sources.files
        self._ledger = ledger = sources.ledger
        self._hosts = offering.hosts
        self._presence = offering.presence
        self._metadata = metadata
        self._documents = documents
        self._offload = offload
        self._clock = clock
        self._recorder = recorder
        self._remote = RemoteFiles(sources.files, upstreams, self._committed)
        self._gate = gate = Gate(offering.policy, name, sources.pages, ledger, offload, clock)
        self._listed = ListedFiles(sources, gate, self._remote, offload, recorder)
        self._prefetch = (
            Prefetch(name, gate, ledger, offload, self._have_metadata, upstreams.spare, offering.reserved)
            if offering.prefetch
            else None
        )

    def owners(self, project: str) -> Sequence[str]:
        return (self.name,)

    def close(self) -> None:
        """Stop what goes on beside requests."""
        self._gate.close()
        if self._prefetch is not None:
            self._prefetch.close()

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        served = await self._gate.get(project, no_cache=no_cache)
        entries = await self._ledger.of(self.name, project)
        moment = await self._gate.moment(project, served.head, entries)
        there = None
        if self._presence is not None:
            there = await self._presence.of(
                project, f"{served.head.digest}/{moment.mark}", entries, lambda: self._seen(served, moment, entries, project)
            )
        if self._prefetch is not None and served.status.fwd == "miss":
            self._prefetch.page_is_new(project, served.head)
        return self._view(project, served, entries, moment, there)

    async def _have_metadata(self, project: str, asked: str, filename: str) -> IBytesSource:
        """The metadata that a client is about to ask for, whole."""
        return await (await self._beside(project, asked, filename)).open()

    async def _seen(self, served: Served, moment: Moment, entries: Entries, project: str) -> Page:
        return (await self._gate.seen(project, served.head, moment.now, entries)).page

    def page_at_hand(self, project: str) -> PageView | None:
        served = self._pages.ready(project)
        entries = self._ledger.at_hand(self.name, project)
        if served is None or entries is None:
            return None
        moment = self._gate.moment_at_hand(project, served.head, entries)
        if moment is None:
            return None
        there = None
        if self._presence is not None:
            there = self._presence.at_hand(project, f"{served.head.digest}/{moment.mark}", entries)
            if there is None:
                return None
        return self._view(project, served, entries, moment, there)

    def _view(self, project: str, served: Served, entries: Entries, moment: Moment, there: There | None) -> PageView:
        head = served.head
        # A page out of HTML states no sizes: they become known file by file.
        known = entries.state_of_companions if head.states_sizes else f"{entries.state_of_companions}.{len(entries)}"
        state = f"{head.digest}/{moment.mark}/{known}"
        digests = None
        if there is not None:
            state, digests = f"{state}/{there.state}", there.digests
        return View(
            project, state, served.status, head.serial, moment, lambda: self._load(project, served, entries, moment, digests)
        )

    async def _load(self, project: str, served: Served, entries: Entries, moment: Moment, there: frozenset[str] | None) -> Page:
        page = await self._seen(served, moment, entries, project)
        if there is None and self._hosts.limit(served.head.upstream):
            page = await self._on_allowed_hosts(project, page, served.head)
        few = len(page.files) <= _FEW
        offer = offered(page, entries, there) if few else await self._offload.run_first(offered, page, entries, there)
        for file, entry, digest in offer.changes:
            self._recorder.record(Notice(Incident.CHANGED_DIGEST, self.name, project, file.filename))
            self.log.error(
                "{filename} of {project} changed upstream: the ledger records sha256-{recorded}, its page now states {digest}. "
                "The committed bytes are served; purge the file to accept the new ones.",
                filename=file.filename,
                project=project,
                recorded=entry.sha256,
                digest=str(digest),
            )
        return offer.page

    async def _on_allowed_hosts(self, project: str, page: Page, head: Head) -> Page:
        found = await self._offload.run_first(self._hosts.reachable, page, head.upstream, head.url)
        if found.refused:
            self.log.warn(
                "{number} files of {project} are not offered: upstream.{upstream}.file_hosts does not list {hosts}",
                number=len(page.files) - len(found.page.files),
                project=project,
                upstream=head.upstream,
                hosts=", ".join(found.refused),
            )
        return found.page

    def last_modified(self) -> float | None:
        return self._upstreams.last_modified()

    async def projects(self, *, no_cache: bool = False) -> IProjectsView:
        return await self._documents.projects(no_cache=no_cache)

    async def cached(self) -> Sequence[str]:
        return await self._gate.visible_of(await self._pages.known())

    async def own(self) -> Sequence[str] | None:
        return None

    async def document(self, name: DocumentName) -> DocumentView:
        match name:
            case LegacyName(project, version):
                return await self._documents.legacy(await self.page(project), version)
            case ProvenanceName(project, asked, filename):
                return await self._provenance(project, asked, filename)

    async def _provenance(self, project: str, asked: str, filename: str) -> DocumentView:
        await self._gate.require(project, filename, filename)
        await self._require(project, asked, filename)
        listed = await self._listed.listed(project, asked, filename)
        place = None if listed.file.provenance is None else resolve("", listed.file.provenance)
        if place is None:
            raise NotFound(f"upstream offers no provenance for {filename}")
        wanted = Wanted(self.name, project, filename, place[0], listed.upstream, companion=PROVENANCE)
        return await self._documents.provenance(wanted, listed.seen)

    def _vouched(self, project: str, asked: str, name: str) -> str | None:
        """The sha256 of the stored file that :meth:`file` would find, if that is known at once, else ``None``.

        ``None`` too if there is a moment at which it may be hidden: an answer has to say so.
        """
        head = self._pages.at_hand(project)
        entries = self._ledger.at_hand(self.name, project)
        of_metadata = companion_of(name, METADATA)
        filename = of_metadata or name
        if head is None or entries is None or not self._gate.lastingly_visible(project, filename, head[0], entries):
            return None
        entry = entries.get(metadata_name(asked, filename)) if of_metadata else entry_for(entries, asked, filename)
        if entry is None or entry.sha256 == NO_BYTES:
            return None
        if self._presence is not None and of_metadata:
            return None  # whether its file is there takes a look at the store
        return entry.sha256

    def _is_listed_by(self, page: str, project: str, filename: str) -> bool:
        """Whether the page *page* (a digest) is the present one, and nothing is stored of its file, which may be seen for good.

        As far as that is known at once.
        """
        head = self._pages.at_hand(project)
        entries = self._ledger.at_hand(self.name, project)
        if head is None or head[0] is None or head[0].digest != page or entries is None or filename in entries:
            return False
        return self._gate.lastingly_visible(project, filename, head[0], entries)

    async def file(self, project: str, digest: str, name: str) -> IFileHandle:
        filename = companion_of(name, METADATA)
        if filename is None:
            return await self._file(project, digest, name)
        beside = await self._beside(project, digest, filename)
        if self._prefetch is not None:
            self._prefetch.metadata_asked(project, filename)
        return beside

    def _stored(
        self, source: IBytesSource, etag: str | None, seen: Moment, of: tuple[str, str, str], *, made: bool = False
    ) -> IFileHandle:
        """The stored file *of* a project, with a digest and a name in its URL."""
        return StoredFile(source, etag, seen, partial(self._vouched, *of), made=made)

    async def _file(self, project: str, asked: str, filename: str) -> IFileHandle:
        of = project, asked, filename
        moment = await self._gate.require(project, filename, filename)
        entry = entry_for(await self._ledger.of(self.name, project), asked, filename)
        if entry is not None:
            stored = await self._files.stored(entry.sha256, entry.size)
            if stored is not None:
                return self._stored(stored, etag_of(asked, entry.sha256), moment, of)
        listed = await self._listed.listed(project, asked, filename)
        wanted = self._listed.wanted(project, listed)
        if wanted.digest is not None and wanted.digest.algorithm == "sha256":
            stored = await self._files.shared(wanted.digest.hex)
            if stored is not None:
                try:
                    await self._committed(wanted, wanted.digest.hex, stored.size or 0)
                except BaseException:
                    stored.close()
                    raise
                return self._stored(stored, etag_of(asked), listed.seen, of)
        if self._presence is not None:
            raise NotHere(self.name, filename)
        unchanged = partial(self._is_listed_by, listed.page, project, filename)
        return RemoteFile(etag_of(asked), listed.seen, wanted, self._remote, unchanged)

    async def _require(self, project: str, asked: str, filename: str) -> None:
        """On an offline index companions are there with their file or not at all.  Raises NotFound."""
        if self._presence is not None:
            (await self._file(project, asked, filename)).close()

    async def _beside(self, project: str, asked: str, filename: str) -> IFileHandle:
        """The metadata of a file."""
        of = project, asked, filename + METADATA
        moment = await self._gate.require(project, filename, filename + METADATA)
        await self._require(project, asked, filename)
        stored = await self._metadata.stored(self.name, project, asked, filename)
        if stored is not None:
            return self._stored(stored, f'"{stored.sha256}"', moment, of)
        found = await self._metadata.of(self._listed, project, asked, filename)
        return self._stored(found, f'"{found.sha256}"', moment, of, made=True)

    # -- inside ----------------------------------------------------------------------------------------------------------

    async def _committed(self, wanted: Wanted, sha256: str, size: int) -> None:
        await self._ledger.add(self.name, wanted.project, wanted.filename, first_entry(wanted, sha256, size, self._clock()))

"""A proxy index: the pages and files of its upstreams, cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from proxy.bounded import BoundedTable
from proxy.cache.files import FileCache, identity
from proxy.cache.pages import PageCache
from proxy.cache.pins import METADATA, PinBook, Pins, companion_name
from proxy.cache.refreshed import Served
from proxy.errors import DigestChanged, NotFound, NotHere, UpstreamFailed
from proxy.flight import Flights
from proxy.interfaces import IBytesSource, IOffload, IRepository, IUpstreams
from proxy.model import NO_BYTES, Digest, File, FileFacts, Head, Page, Pin, Wanted, strongest
from proxy.repository.documents import Documents, LegacyDocument
from proxy.repository.located import Located, PageView, View
from proxy.repository.metadata import WheelMetadata, whole
from proxy.repository.offered import PROVENANCE, as_pinned, is_wheel, offered, pin_holds, segment
from proxy.repository.prefetch import Prefetch
from proxy.repository.presence import Presence, There
from proxy.simple.links import beside

#: Files that are not stored, and whose page states no size, of which upstream's is remembered.
_FACTS = 10_000


@implementer(IRepository)
class ProxyRepository:
    """The index *name*.  *count* is told of each thing worth counting.

    *presence* is given if the index is offline: what is not there is then not offered, neither by page nor by name.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        upstreams: IUpstreams,
        pages: PageCache,
        files: FileCache,
        pins: PinBook,
        metadata: WheelMetadata,
        documents: Documents,
        offload: IOffload,
        reactor: IReactorTime,
        count: Callable[[str], None] = lambda event: None,
        presence: Presence | None = None,
        *,
        prefetch: bool = False,
    ) -> None:
        self.name = name
        self._presence = presence
        self._metadata = metadata
        self._documents = documents
        self._offload = offload
        self._upstreams = upstreams
        self._pages = pages
        self._files = files
        self._pins = pins
        self._reactor = reactor
        self._count = count
        self._facts: BoundedTable[str, FileFacts] = BoundedTable(_FACTS, lambda facts: 1)
        self._asking: Flights[FileFacts] = Flights()
        self._prefetch = Prefetch(name, pages, pins, offload, self._have_metadata, upstreams.spare) if prefetch else None

    def close(self) -> None:
        """Stop what goes on beside requests."""
        if self._prefetch is not None:
            self._prefetch.close()

    async def page(self, project: str, *, no_cache: bool = False) -> PageView:
        served = await self._pages.get(project, no_cache=no_cache)
        pins = await self._pins.of(self.name, project)
        there = None if self._presence is None else await self._there(self._presence, project, served, pins)
        if self._prefetch is not None and served.outcome.fwd == "miss":
            self._prefetch.page_is_new(project, served.head)
        return self._view(project, served, pins, there)

    async def _have_metadata(self, project: str, asked: str, filename: str) -> IBytesSource:
        """The metadata that a client is about to ask for, whole."""
        located = await self._locate(project, asked, filename + METADATA)
        source = located.stored or await self.download(located, asked)
        try:
            await whole(source, filename)
        except BaseException:
            source.close()
            raise
        return source

    async def _there(self, presence: Presence, project: str, served: Served, pins: Pins) -> There:
        return await presence.of(project, served.head.digest, pins, lambda: self._pages.parsed(project, served.head))

    def ready(self, project: str) -> PageView | None:
        served = self._pages.ready(project)
        pins = self._pins.at_hand(self.name, project)
        if served is None or pins is None:
            return None
        there = None
        if self._presence is not None:
            there = self._presence.at_hand(project, served.head.digest, pins)
            if there is None:
                return None
        return self._view(project, served, pins, there)

    def _view(self, project: str, served: Served, pins: Pins, there: There | None) -> PageView:
        head = served.head
        # A page out of HTML states no sizes: they become known file by file.
        known = pins.companions if head.states_sizes else f"{pins.companions}.{len(pins)}"
        state = f"{head.digest}/{known}"
        digests = None
        if there is not None:
            state, digests = f"{state}/{there.state}", there.digests
        return View(project, state, served.outcome, head.serial, lambda: self._load(project, served, pins, digests))

    async def _load(self, project: str, served: Served, pins: Pins, there: frozenset[str] | None) -> Page:
        offer = await self._offload.run_first(offered, await self._pages.parsed(project, served.head), pins, there)
        for file, pin, digest in offer.changes:
            self._count("changed digest refused")
            self.log.error(
                "{filename} of {project} changed upstream: it was committed with sha256-{pinned}, its page now says {digest}. "
                "The committed bytes are served; purge the file to accept the new ones.",
                filename=file.filename,
                project=project,
                pinned=pin.sha256,
                digest=str(digest),
            )
        return offer.page

    def last_modified(self) -> float | None:
        return self._upstreams.last_modified()

    async def projects(self, *, no_cache: bool = False) -> Any:
        return await self._documents.projects(no_cache=no_cache)

    async def legacy(self, project: str, version: str | None) -> View[LegacyDocument]:
        return await self._documents.legacy(await self.page(project), version)

    async def provenance(self, project: str, asked: str, filename: str) -> View[bytes]:
        if _withheld(await self._pages.remembered(project)):
            raise _quarantined(project, filename)
        await self._require(project, asked, filename)
        file, upstream = await self._listed(project, asked, filename, await self._pins.of(self.name, project))
        if file.provenance is None:
            raise NotFound(f"upstream offers no provenance for {filename}")
        return await self._documents.provenance(
            Wanted(self.name, project, filename, file.provenance, upstream, companion=PROVENANCE)
        )

    def vouched(self, project: str, asked: str, name: str) -> str | None:
        head = self._pages.at_hand(project)
        pins = self._pins.at_hand(self.name, project)
        if head is None or pins is None or _withheld(head[0]):
            return None
        filename, companion = _companion(name)
        pin = _pinned(pins, asked, filename, companion)
        if pin is None or pin.sha256 == NO_BYTES:
            return None
        if self._presence is not None and companion:
            return None  # whether its file is there takes a look at the store
        return pin.sha256

    async def locate(self, project: str, asked: str, name: str) -> Located:
        filename, companion = _companion(name)
        if companion and self._prefetch is not None:
            self._prefetch.metadata_asked(project, filename)
        return await self._locate(project, asked, name)

    async def _locate(self, project: str, asked: str, name: str) -> Located:
        filename, companion = _companion(name)
        if _withheld(await self._pages.remembered(project)):
            raise _quarantined(project, name)
        if companion:
            await self._require(project, asked, filename)
        pins = await self._pins.of(self.name, project)
        pin = _pinned(pins, asked, filename, companion)
        if pin is not None:
            if pin.sha256 == NO_BYTES:
                raise NotFound(f"{filename} has no metadata that can be read")
            stored = await self._files.stored(pin.sha256, pin.size)
            if stored is not None:
                return Located(stored, None, _etag(asked, companion, pin.sha256))
        try:
            file, upstream = await self._listed(project, asked, filename, pins)
        except UpstreamFailed:
            if not companion:
                raise
            return await self._read_out(project, asked, filename)  # of the stored wheel, if it is
        if companion and not file.core_metadata:
            return await self._read_out(project, asked, filename)
        wanted = self._wanted(project, file, companion, upstream)
        if wanted.digest is not None and wanted.digest.algorithm == "sha256":
            stored = await self._files.stored(wanted.digest.hex)
            if stored is not None:
                try:
                    await self._committed(asked)(wanted, wanted.digest.hex, stored.size or 0)
                except BaseException:
                    stored.close()
                    raise
                return Located(stored, None, _etag(asked, companion, wanted.digest.hex))
        if self._presence is not None:
            if companion:
                return await self._read_out(project, asked, filename)
            raise NotHere(self.name, filename)
        return Located(None, wanted, _etag(asked, companion, wanted.digest.hex if wanted.digest else None))

    async def _require(self, project: str, asked: str, filename: str) -> None:
        """On an offline index companions are there with their file or not at all.  Raises NotFound."""
        if self._presence is not None:
            stored = (await self.locate(project, asked, filename)).stored
            assert stored is not None
            stored.close()

    async def _read_out(self, project: str, asked: str, filename: str) -> Located:
        """The metadata that upstream does not offer."""
        if not is_wheel(filename):
            raise NotFound(f"{filename} is no wheel: there is no metadata of it")
        stored = await self._metadata.of(self, project, asked, filename)
        return Located(stored, None, _etag(asked, METADATA, stored.sha256), made=True)

    async def download(self, located: Located, asked: str) -> IBytesSource:
        wanted = located.wanted
        assert wanted is not None
        try:
            return await self._files.download(wanted, self._upstreams, self._committed(asked))
        except NotFound:
            if not wanted.companion:
                raise
            # Advertised and not there: mirrors do that, and clients do not forgive it.
            source = (await self._read_out(wanted.project, asked, wanted.filename)).stored
            assert source is not None
            return source

    def under_way(self, located: Located) -> bool:
        assert located.wanted is not None
        return self._files.arriving(located.wanted) is not None

    def arriving(self, located: Located) -> IBytesSource | None:
        assert located.wanted is not None
        spool = self._files.arriving(located.wanted)
        return None if spool is None else spool.reader()

    async def facts(self, located: Located) -> FileFacts:
        assert located.wanted is not None
        if located.wanted.size is not None:
            return FileFacts(located.wanted.size, ranges=True)
        name = identity(located.wanted)
        known = self._facts.get(name)
        return known if known is not None else await self._asking.join(name, lambda: self._ask_facts(name, located))

    async def _ask_facts(self, name: str, located: Located) -> FileFacts:
        assert located.wanted is not None
        facts = await self._upstreams.facts(located.wanted)
        if located.wanted.digest is not None:
            self._facts.put(name, facts)
        return facts

    async def open_range(self, located: Located, start: int, stop: int) -> Any:
        assert located.wanted is not None
        return await self._upstreams.open_range(located.wanted, start, stop)

    # -- inside ----------------------------------------------------------------------------------------------------------

    async def _listed(self, project: str, asked: str, filename: str, pins: Pins) -> tuple[File, str]:
        """The file that the page lists under *filename* with the digest *asked*, and the upstream whose page it is.

        A page that lacks it is refreshed once.
        """
        listed: File | None = None
        for no_cache in (False, True):
            served = await self._pages.get(project, no_cache=no_cache)
            page = await self._pages.parsed(project, served.head)
            listed = next((as_pinned(file, pins.get(filename)) for file in page.files if file.filename == filename), None)
            if listed is not None and segment(listed) == asked:
                return listed, served.head.upstream
        if listed is None:
            raise NotFound(f"{filename} is not on the page of {project}")
        if filename in pins:
            self._count("changed digest refused")
            raise DigestChanged(
                f"{filename} was committed as sha256-{pins[filename].sha256} and is not served as {asked}: "
                "purge the file from the proxy to accept other bytes"
            )
        raise NotFound(f"{filename} has the digest {segment(listed)} on the page of {project}, not {asked}")

    def _wanted(self, project: str, file: File, companion: str, upstream: str) -> Wanted:
        if not companion:
            return Wanted(self.name, project, file.filename, file.url, upstream, file.digest, file.size or None)
        stated = file.core_metadata
        digest: Digest | None = strongest(stated) if isinstance(stated, Mapping) else None
        return Wanted(self.name, project, file.filename, beside(file.url, companion), upstream, digest, None, companion)

    def _committed(self, asked: str) -> Callable[[Wanted, str, int], Any]:
        async def pin(wanted: Wanted, sha256: str, size: int) -> None:
            stated = {wanted.digest.algorithm: wanted.digest.hex} if wanted.digest is not None else {}
            name = _pin_name(asked, wanted.filename, wanted.companion)
            await self._pins.add(
                self.name, wanted.project, name, Pin(sha256, size, stated, wanted.url, self._reactor.seconds())
            )

        return pin


def _companion(name: str) -> tuple[str, str]:
    """A file name and the companion of it that *name* asks for (``.metadata`` or nothing)."""
    if name.endswith(METADATA):
        return name.removesuffix(METADATA), METADATA
    return name, ""


def _withheld(head: Head | None) -> bool:
    """Whether no file of the project may be served, stored ones neither (PEP 792)."""
    return head is not None and head.found and head.quarantined


def _quarantined(project: str, name: str) -> NotFound:
    return NotFound(f"{name}: project {project} is quarantined upstream, none of its files is served")


def _pinned(pins: Pins, asked: str, filename: str, companion: str) -> Pin | None:
    """The pin for what a file URL asks for, if it holds those bytes."""
    pin = pins.get(_pin_name(asked, filename, companion))
    return pin if pin is not None and (companion or pin_holds(pin, asked)) else None


def _pin_name(asked: str, filename: str, companion: str) -> str:
    return companion_name(asked, filename, companion) if companion else filename


def _etag(asked: str, companion: str, digest: str | None) -> str | None:
    """A strong validator that is the same before and after the file is in the store."""
    if companion or not asked.partition("-")[2]:
        return None if digest is None else f'"{digest}"'
    return f'"{asked}"'

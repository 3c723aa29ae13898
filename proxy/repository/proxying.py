"""A proxy index: the pages and files of its upstreams, cached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from proxy.bounded import BoundedTable
from proxy.cache.files import FileCache, identity
from proxy.cache.outcome import Outcome
from proxy.cache.pages import PageCache
from proxy.cache.pins import PinBook, Pins
from proxy.cache.refreshed import Served
from proxy.errors import DigestChanged, NotFound
from proxy.flight import Flights
from proxy.interfaces import IBytesSource, IRepository, IUpstreams
from proxy.model import Digest, File, FileFacts, Head, Page, Pin, Wanted, strongest
from proxy.repository.offered import as_pinned, changed, offered, pin_holds, segment
from proxy.simple.links import beside

_METADATA = ".metadata"
#: Files that are not stored, and whose page states no size, of which upstream's is remembered.
_FACTS = 10_000


@frozen(slots=True)
class View:
    """A page as it may be seen now.  ``state`` names this very content; ``load`` gives it parsed and filtered."""

    project: str
    state: str
    outcome: Outcome
    serial: int | None
    load: Callable[[], Any]


@frozen(slots=True)
class Located:
    """A file that exists: open already when it is in the store, else what to fetch."""

    stored: IBytesSource | None
    wanted: Wanted | None
    etag: str | None


@implementer(IRepository)
class ProxyRepository:
    """The index *name*.  *count* is told of each thing worth counting."""

    log = Logger()

    def __init__(
        self,
        name: str,
        upstreams: IUpstreams,
        pages: PageCache,
        files: FileCache,
        pins: PinBook,
        reactor: IReactorTime,
        count: Callable[[str], None] = lambda event: None,
    ) -> None:
        self.name = name
        self._upstreams = upstreams
        self._pages = pages
        self._files = files
        self._pins = pins
        self._reactor = reactor
        self._count = count
        self._facts: BoundedTable[str, FileFacts] = BoundedTable(_FACTS, lambda facts: 1)
        self._asking: Flights[FileFacts] = Flights()

    async def page(self, project: str, *, no_cache: bool = False) -> View:
        return self._view(project, await self._pages.get(project, no_cache=no_cache))

    def ready(self, project: str) -> View | None:
        served = self._pages.ready(project)
        return None if served is None else self._view(project, served)

    def _view(self, project: str, served: Served) -> View:
        return View(project, served.head.digest, served.outcome, served.head.serial, lambda: self._load(project, served))

    async def _load(self, project: str, served: Served) -> Page:
        page = await self._pages.parsed(project, served.head)
        pins = await self._pins.of(self.name, project)
        self._report_changes(page, pins)
        return offered(page, pins)

    def _report_changes(self, page: Page, pins: Pins) -> None:
        if not pins:
            return
        for file in page.files:
            pin = pins.get(file.filename)
            if pin is not None and (digest := changed(file, pin)) is not None:
                self._count("changed digest refused")
                self.log.error(
                    "{filename} of {project} changed upstream: it was committed with sha256-{pinned}, its page now says "
                    "{digest}. The committed bytes are served; purge the file to accept the new ones.",
                    filename=file.filename,
                    project=page.project,
                    pinned=pin.sha256,
                    digest=str(digest),
                )

    def vouched(self, project: str, asked: str, name: str) -> str | None:
        head = self._pages.at_hand(project)
        pins = self._pins.at_hand(self.name, project)
        if head is None or pins is None or _withheld(head[0]):
            return None
        pin = _pinned(pins, asked, *_companion(name))
        return None if pin is None else pin.sha256

    async def locate(self, project: str, asked: str, name: str) -> Located:
        filename, companion = _companion(name)
        if _withheld(await self._pages.remembered(project)):
            raise NotFound(f"{name}: project {project} is quarantined upstream, none of its files is served")
        pins = await self._pins.of(self.name, project)
        pin = _pinned(pins, asked, filename, companion)
        if pin is not None:
            stored = await self._files.stored(pin.sha256)
            if stored is not None:
                return Located(stored, None, _etag(asked, companion, pin.sha256))
        file, upstream = await self._listed(project, asked, filename, pins)
        wanted = self._wanted(project, file, companion, upstream)
        if wanted.digest is not None and wanted.digest.algorithm == "sha256":
            stored = await self._files.stored(wanted.digest.hex)
            if stored is not None:
                await self._committed(asked)(wanted, wanted.digest.hex, stored.size or 0)
                return Located(stored, None, _etag(asked, companion, wanted.digest.hex))
        return Located(None, wanted, _etag(asked, companion, wanted.digest.hex if wanted.digest else None))

    async def download(self, located: Located, asked: str) -> IBytesSource:
        assert located.wanted is not None
        return await self._files.download(located.wanted, self._upstreams, self._committed(asked))

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
            return Wanted(self.name, project, file.filename, file.url, upstream, file.digest, file.size)
        if not file.core_metadata:
            raise NotFound(f"upstream offers no metadata for {file.filename}")
        digest: Digest | None = None if file.core_metadata is True else strongest(file.core_metadata)
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
    if name.endswith(_METADATA):
        return name.removesuffix(_METADATA), _METADATA
    return name, ""


def _withheld(head: Head | None) -> bool:
    """Whether no file of the project may be served, stored ones neither (PEP 792)."""
    return head is not None and head.found and head.quarantined


def _pinned(pins: Pins, asked: str, filename: str, companion: str) -> Pin | None:
    """The pin for what a file URL asks for, if it holds those bytes."""
    pin = pins.get(_pin_name(asked, filename, companion))
    return pin if pin is not None and (companion or pin_holds(pin, asked)) else None


def _pin_name(asked: str, filename: str, companion: str) -> str:
    """The name to pin under: a companion belongs to the bytes of its file, so the file's digest is part of its name."""
    return f"{asked}/{filename}{companion}" if companion else filename


def _etag(asked: str, companion: str, digest: str | None) -> str | None:
    """A strong validator that is the same before and after the file is in the store."""
    if companion or not asked.partition("-")[2]:
        return None if digest is None else f'"{digest}"'
    return f'"{asked}"'

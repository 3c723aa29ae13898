"""Project pages of one proxy index: what upstream states, recorded as it came, parsed when a rendering is missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace
from twisted.logger import Logger

from proxy.cache.parsed import ParsedPages
from proxy.cache.records import PAGES, HeadedRecords
from proxy.cache.refreshed import OlderThanKept, Refreshed, Terms
from proxy.cache.sightings import Sightings
from proxy.core.events import OF_PAGES, Incident, Notice
from proxy.core.succession import Candidate, Doubts, doubt
from proxy.errors import NotFound, Overloaded, ProxyError
from proxy.interfaces import IOffload, IRecordStore, IUpstreams
from proxy.mechanism.flight import Flights
from proxy.model import Head, Page, PageFound, PageMissing, PageUnchanged
from proxy.simple.parse import Malformed, parse_page

#: Files that are named in one line of the log.
_NAMED = 10


class PageCache:
    """The pages of *index* as *upstreams* state them.

    *parsed* keeps parsed ones at hand.  *sightings* is told which files are on a new page.
    """

    log = Logger()
    incidents = OF_PAGES

    def __init__(
        self,
        index: str,
        upstreams: IUpstreams,
        records: IRecordStore,
        offload: IOffload,
        terms: Terms,
        parsed: ParsedPages,
        sightings: Sightings | None = None,
    ) -> None:
        self._index = index
        self._sightings = sightings
        self._reactor = terms.reactor
        self._doubts = Doubts()
        self._upstreams = upstreams
        self._records = HeadedRecords(PAGES, index, records, offload)
        self._offload = offload
        self._recorder = terms.recorder
        self._refreshed = Refreshed(self, upstreams, terms, upstreams.slow)
        self._parsed = parsed
        self._parses: Flights[Page] = Flights()
        self.under_way = self._refreshed.under_way
        self.get = self._refreshed.get
        self.ready = self._refreshed.ready
        self.at_hand = self._refreshed.at_hand
        self.remembered = self._refreshed.remembered
        self.refresh = self._refreshed.refresh

    def close(self) -> None:
        """Stop what is under way, and forget what is in memory."""
        self._refreshed.close()
        self._parsed.forget(self)

    async def parsed(self, project: str, head: Head) -> Page:
        """The page that *head* is the head of, parsed.  Raises as `get` when it has to be fetched anew."""
        kept = self._parsed.get(self, head.digest)
        if kept is not None:
            return kept
        return await self._parses.join((project, head.digest), lambda: self._parse(project, head))

    async def known(self) -> list[str]:
        """The projects whose pages are kept, sorted."""
        return await self._records.found()

    async def forget(self, project: str) -> bool:
        """Drop the record of *project*; true if there was one."""
        self._refreshed.forget(project)
        return await self._records.forget(project)

    def replaced(self, project: str) -> None:
        """Told that another page of *project* was recorded: what is in memory is outdated."""
        self._refreshed.forget(project)

    # -- what Refreshed asks -----------------------------------------------------------------------------------------------

    def missing(self, project: str) -> NotFound:
        return NotFound(f"no project named {project} on index {self._index}: upstream answered 404")

    def notice(self, incident: Incident, project: str) -> Notice:
        return Notice(incident, self._index, project)

    async def load(self, project: str) -> Head | None:
        return await self._records.head(project)

    async def ask(self, project: str, known: Head | None, adopt: Callable[[Head], None], *, forced: bool = False) -> None:
        validators = known.validators if known is not None and known.found and not forced else None
        reply = await self._upstreams.page(project, validators)
        match reply:
            case PageUnchanged():
                assert known is not None
                self._doubts.forget(project)
                head = renewed(known, reply)
                adopt(head)
                await self._keep(project, self._records.renew(project, head))
            case PageMissing():
                head = Head(False, reply.upstream, reply.url, reply.checked_at)
                adopt(head)
                await self._keep(project, self._records.discontinue(project, known))
            case PageFound(record=record, page=page):
                await self._check(project, known, record.head, page, forced)
                if page.unverifiable and (known is None or known.digest != record.head.digest):
                    self._tell_of(page)
                head = replace(record.head, status=(page.status or {}).get("status"))
                self._note_files(project, page, head, known)
                self._keep_parsed(head, record.body, page)
                adopt(head)
                await self._keep(project, self._records.keep(project, replace(record, head=head), known))

    async def _check(self, project: str, known: Head | None, new: Head, page: Page, forced: bool) -> None:
        """Raise OlderThanKept when *page* is not to take the place of the one with the head *known*."""
        doubted = doubt(known, new, await self._candidate(project, known, new, page))
        if self._doubts.stands(project, doubted, new.upstream, self._reactor.seconds(), forced=forced):
            self._recorder.record(self.notice(Incident.PAGE_NOT_TAKEN, project))
            raise OlderThanKept
        if doubted is not None:
            self.log.warn(
                "the page of {project} from upstream {upstream} is taken although {why}: {reason}",
                project=project,
                upstream=new.upstream,
                why=doubted.value,
                reason="an operator asked for it" if forced else "the upstream has said so for ten minutes",
            )

    async def _candidate(self, project: str, known: Head | None, new: Head, page: Page) -> Candidate:
        """What there is to know of *page* before it takes the place of the one with the head *known*."""
        if known is None or not known.found:
            return Candidate()
        emptied = not page.files and page.status is None
        differs = new.upstream != known.upstream
        preferred = differs and self._upstreams.outranks(new.upstream, known.upstream)
        stands_in = differs and self._upstreams.outranks(known.upstream, new.upstream)
        other = differs and not preferred
        if not emptied and not other:
            return Candidate(preferred)
        kept = self._parsed.get(self, known.digest) or await self._parse_stored(project, known)
        if kept is None:
            return Candidate(preferred)  # what was stated is lost
        changed = await self._offload.run(_first_contradiction, kept, page) if other else None
        if changed is not None:
            self._recorder.record(Notice(Incident.MIRROR_WITH_OTHER_DIGESTS, self._index, project, changed))
            self._upstreams.distrust(new.upstream, f"gives {changed} of {project} another digest than {known.upstream} did")
        lacks = stands_in and not {file.filename for file in kept.files} <= {file.filename for file in page.files}
        return Candidate(preferred, stands_in, changed is not None, lacks, emptied and bool(kept.files))

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _note_files(self, project: str, page: Page, head: Head, known: Head | None) -> None:
        """Note when the files of a new page were seen; *known* is the head of the page that it takes the place of."""
        if self._sightings is None or (known is not None and known.digest == head.digest):
            return
        before = known.checked_at if known is not None and known.found else None
        earlier = None if known is None else self._parsed.get(self, known.digest)
        self._sightings.note(
            (self._index, project),
            page,
            head.checked_at,
            self._reactor.callLater,
            before,
            earlier,
        )

    def _tell_of(self, page: Page) -> None:
        """Say which files are not offered.  Once for each state of a page: it stays as it is for hours."""
        names = [file.filename for file in page.unverifiable]
        self._recorder.record(self.notice(Incident.IMPOSSIBLE_DIGEST, page.project))
        self.log.error(
            "{project}: {count} files are not offered, for no digest that upstream's page states of them can be one, so that "
            "their bytes cannot be verified: {names}. Tell who runs the upstream.",
            project=page.project,
            count=len(names),
            names=", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else ""),
        )

    async def _keep(self, project: str, keeping: Awaitable[None]) -> None:
        """A store that fails costs the restart its record, not the client its page."""
        try:
            await keeping
        except ProxyError as error:
            self.log.error("the page of {project} is served but not kept: {error}", project=project, error=error)

    async def _parse(self, project: str, head: Head) -> Page:
        page = await self._parse_stored(project, head)
        return page if page is not None else await self._parse_anew(project, head)

    async def _parse_stored(self, project: str, head: Head) -> Page | None:
        """The page that is kept with *head*, ``None`` when it is lost or damaged.  A large one waits for its turn."""
        async with self._offload.memory.of(head.size):
            body = await self._records.body(project, head)
            if body is None:
                return None
            try:
                page: Page = await self._offload.run(parse_page, body, head.content_type, head.url, project)
            except Malformed:
                return None  # an earlier version believed it
            self._keep_parsed(head, body, page)
            return page

    async def _parse_anew(self, project: str, lost: Head) -> Page:
        """The body of *lost* is gone: replaced by a newer one meanwhile, or of no use, and then asked for anew."""
        known = self.at_hand(project)
        if known is None or known[0] is None or known[0].digest == lost.digest:
            self.log.error("the stored page of {project} cannot be read and is fetched again", project=project)
            await self.forget(project)
        head = (await self.get(project)).head
        kept = self._parsed.get(self, head.digest)
        if kept is not None:
            return kept
        page = await self._parse_stored(project, head)
        if page is None:
            raise Overloaded(f"the page of {project} can be neither stored nor kept in memory: is the disk full?")
        return page

    def _keep_parsed(self, head: Head, body: bytes, page: Page) -> None:
        self._parsed.put(self, head.digest, page, body)


def _first_contradiction(kept: Page, new: Page) -> str | None:
    """The name of a file for which *new* states another digest than *kept*."""
    stated = {file.filename: file.hashes for file in kept.files}
    for file in new.files:
        before = stated.get(file.filename)
        if before is not None and any(before.get(name, value) != value for name, value in file.hashes.items()):
            return file.filename
    return None


def renewed(known: Head, reply: PageUnchanged) -> Head:
    """The head *known* after a 304, which replaces the stored fields that it states and no others (RFC 9111 section 4.3.4)."""
    serial = known.serial if reply.serial is None else max(reply.serial, known.serial or 0)
    max_age = known.max_age if reply.max_age is None else reply.max_age
    return replace(known, checked_at=reply.checked_at, max_age=max_age, serial=serial)

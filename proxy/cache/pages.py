"""Project pages of one proxy index: freshness decides, a flight asks upstream, the record store remembers.

Heads of records are kept in memory, so that a hot page costs a dictionary look-up and the decision; bodies are read and parsed
only when a rendering is missing.  A refresh belongs to the proxy: it goes on when the client that caused it leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxy.bounded import BoundedTable
from proxy.cache.outcome import Outcome
from proxy.cache.records import PageRecords
from proxy.errors import NotFound, Overloaded, ProxyError, UpstreamFailed
from proxy.flight import Flights, swallow
from proxy.freshness import Action, Decision, decide
from proxy.interfaces import IOffload, IRecordStore, IUpstreams
from proxy.model import Condition, Head, Page, PageFound, PageMissing, PageUnchanged, Record
from proxy.settings import PageLimits
from proxy.simple.parse import parse_page

#: Heads kept in memory.
_HEADS = 50_000
#: A page whose refresh failed is left alone for this long, doubling up to the maximum (seconds).
_REST = 5.0
_LONGEST_REST = 60.0
#: A parsed page weighs this much more than the body it came from.
_PARSED_WEIGHT = 6


@frozen(slots=True)
class Served:
    """What a client gets: the head of a record with a page in it, and how the cache came by it."""

    head: Head
    outcome: Outcome


@define
class _Entry:
    """What is in memory about one project."""

    head: Head | None
    failures: int = 0
    rest_until: float = 0.0


@frozen
class _Parsed:
    page: Page
    weight: int


class PageCache:
    """The pages of *index* as *upstreams* state them.

    *memory* bounds the parsed pages kept at hand, in bytes.  *count* is told ``(event)`` for each thing worth counting.
    """

    log = Logger()

    def __init__(
        self,
        index: str,
        upstreams: IUpstreams,
        records: IRecordStore,
        offload: IOffload,
        reactor: IReactorTime,
        limits: PageLimits,
        memory: int,
        count: Callable[[str], None] = lambda event: None,
    ) -> None:
        self._index = index
        self._upstreams = upstreams
        self._records = PageRecords(index, records, offload)
        self._offload = offload
        self._reactor = reactor
        self._limits = limits
        self._count = count
        self._entries: BoundedTable[str, _Entry] = BoundedTable(_HEADS, lambda entry: 1)
        self._parsed: BoundedTable[str, _Parsed] = BoundedTable(memory, lambda parsed: parsed.weight)
        self._refreshes: Flights[Head] = Flights()
        self._loads: Flights[_Entry] = Flights()
        self._parses: Flights[Page] = Flights()

    def close(self) -> None:
        """Stop what is under way."""
        self._refreshes.close()

    async def get(self, project: str, *, no_cache: bool = False) -> Served:
        """The page of *project* (normalised), as fresh as the index's limits ask.

        Raises NotFound when upstream definitely has none, UpstreamFailed when none answered and nothing is cached.
        """
        entry = await self._entry(project)
        decision = self._decide(entry, no_cache)
        action = decision.action
        if action in (Action.SERVE, Action.SERVE_AND_REFRESH):
            return self._at_once(project, entry, decision)
        if action is Action.MISSING:
            raise self._missing(project)
        collapsed = project in self._refreshes
        fwd = "miss" if entry.head is None else "request" if decision.ttl > 0 else "stale"
        before = entry.head
        if action is Action.FETCH:
            head = await self._refresh(project, entry)
        else:
            try:
                refreshed = await self._within_soft_deadline(self._refresh(project, entry))
            except UpstreamFailed:
                refreshed = None
            if refreshed is None:
                return self._hit(entry, decision, detail="upstream-slow" if entry.failures == 0 else "upstream-failed")
            head = refreshed
        if not head.found:
            raise self._missing(project)
        left = self._decide(entry, False).ttl
        return Served(head, Outcome(False, fwd, round(left), collapsed=collapsed, stored=head is not before))

    def ready(self, project: str) -> Served | None:
        """What :meth:`get` would return if it need not wait for anything, else ``None``."""
        entry = self._entries.get(project)
        if entry is None:
            return None
        decision = self._decide(entry, False)
        if decision.action not in (Action.SERVE, Action.SERVE_AND_REFRESH):
            return None
        return self._at_once(project, entry, decision)

    def at_hand(self, project: str) -> tuple[Head | None] | None:
        """What :meth:`remembered` would return, in a tuple, if it is in memory."""
        entry = self._entries.get(project)
        return None if entry is None else (entry.head,)

    async def remembered(self, project: str) -> Head | None:
        """The head of *project*, whatever its age, without asking upstream."""
        return (await self._entry(project)).head

    async def parsed(self, project: str, head: Head) -> Page:
        """The page that *head* is the head of, parsed.  Raises as `get` when it has to be fetched anew."""
        kept = self._parsed.get(head.digest)
        if kept is not None:
            return kept.page
        return await self._parses.join((project, head.digest), lambda: self._parse(project, head))

    async def forget(self, project: str) -> bool:
        """Drop the record of *project*; true if there was one."""
        self._entries.discard(project)
        return await self._records.forget(project)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _decide(self, entry: _Entry, no_cache: bool) -> Decision:
        now = self._reactor.seconds()
        condition = self._upstreams.condition()
        return decide(entry.head, now, self._limits, condition, resting=entry.failures > 0, no_cache=no_cache)

    def _at_once(self, project: str, entry: _Entry, decision: Decision) -> Served:
        if (
            decision.action is Action.SERVE_AND_REFRESH
            and entry.rest_until <= self._reactor.seconds()
            and self._upstreams.retry_in() <= 0
        ):
            swallow(self._refresh(project, entry), ProxyError)
        return self._hit(entry, decision)

    def _hit(self, entry: _Entry, decision: Decision, detail: str | None = None) -> Served:
        assert entry.head is not None
        if decision.ttl <= 0:
            self._count("page served stale")
            if detail is None and self._upstreams.condition() is not Condition.UP:
                detail = f"upstream-{self._upstreams.condition().value}"
        return Served(entry.head, Outcome(True, ttl=round(decision.ttl), detail=detail))

    def _missing(self, project: str) -> NotFound:
        return NotFound(f"no project named {project} on index {self._index}: upstream answered 404")

    async def _entry(self, project: str) -> _Entry:
        entry = self._entries.get(project)
        return entry if entry is not None else await self._loads.join(project, lambda: self._load(project))

    async def _load(self, project: str) -> _Entry:
        entry = _Entry(await self._records.head(project))
        self._entries.put(project, entry)
        return entry

    async def _parse(self, project: str, head: Head) -> Page:
        body = await self._records.body(project, head)
        if body is None:
            return await self._parse_anew(project, head)
        return await self._parse_body(project, head, body)

    async def _parse_body(self, project: str, head: Head, body: bytes) -> Page:
        page: Page = await self._offload.run(parse_page, body, head.content_type, head.url, project)
        self._keep_parsed(head, body, page)
        return page

    async def _parse_anew(self, project: str, lost: Head) -> Page:
        """The body of *lost* is gone: replaced by a newer one meanwhile, or damaged, and then asked for anew."""
        entry = self._entries.get(project)
        if entry is None or entry.head is None or entry.head.digest == lost.digest:
            self.log.error("the stored page of {project} is damaged and is fetched again", project=project)
            await self.forget(project)
        head = (await self.get(project)).head
        kept = self._parsed.get(head.digest)
        if kept is not None:
            return kept.page
        body = await self._records.body(project, head)
        if body is None:
            raise Overloaded(f"the page of {project} can be neither stored nor kept in memory: is the disk full?")
        return await self._parse_body(project, head, body)

    def _keep_parsed(self, head: Head, body: bytes, page: Page) -> None:
        self._parsed.put(head.digest, _Parsed(page, len(body) * _PARSED_WEIGHT))

    def _refresh(self, project: str, entry: _Entry) -> Deferred[Head]:
        return self._refreshes.join(project, lambda: self._ask(project, entry))

    async def _within_soft_deadline(self, refresh: Deferred[Head]) -> Head | None:
        """The refreshed head, or ``None`` when it took longer than the soft deadline; the refresh goes on all the same."""
        late = False

        def too_slow() -> None:
            nonlocal late
            late = True
            refresh.cancel()

        deadline = self._reactor.callLater(self._limits.soft_deadline, too_slow)
        try:
            return await refresh
        except CancelledError:
            if not late:
                raise
            self._upstreams.slow()
            return None
        finally:
            if deadline.active():
                deadline.cancel()

    async def _ask(self, project: str, entry: _Entry) -> Head:
        """Ask upstream; remember and return what it says.  Upstream failures make this page rest for a while."""
        known = entry.head
        validators = known.validators if known is not None and known.found else None
        try:
            reply = await self._upstreams.page(project, validators)
        except ProxyError as error:
            entry.failures += 1
            rest = min(_LONGEST_REST, _REST * 2 ** (entry.failures - 1))
            if known is not None and known.found:
                # With nothing to serve, the next client's request is a fresh try.
                entry.rest_until = self._reactor.seconds() + rest
            self._count("page refresh failed")
            self.log.debug("{project}: {error}", project=project, error=error)
            raise
        entry.failures = 0
        entry.rest_until = 0.0
        match reply:
            case PageUnchanged():
                assert known is not None
                serial = known.serial if reply.serial is None else max(reply.serial, known.serial or 0)
                head = evolve(known, checked_at=reply.checked_at, max_age=reply.max_age, serial=serial)
                await self._keep(project, entry, head, self._records.renew(project, head))
            case PageMissing():
                head = Head(False, reply.upstream, reply.url, reply.checked_at)
                await self._keep(project, entry, head, self._records.keep(project, Record(head, b""), known))
            case PageFound(record=record, page=page):
                if _goes_back(known, record.head):
                    assert known is not None
                    self._count("page older than the cached one")
                    entry.rest_until = self._reactor.seconds() + _LONGEST_REST
                    return known
                head = evolve(record.head, status=(page.status or {}).get("status"))
                self._keep_parsed(head, record.body, page)
                await self._keep(project, entry, head, self._records.keep(project, evolve(record, head=head), known))
        assert entry.head is not None
        return entry.head

    async def _keep(self, project: str, entry: _Entry, head: Head, keeping: Awaitable[None]) -> None:
        """Serve *head* from now on.  A store that fails costs the restart its record, not the client its page."""
        entry.head = head
        self._entries.put(project, entry)
        try:
            await keeping
        except ProxyError as error:
            self.log.error("the page of {project} is served but not kept: {error}", project=project, error=error)


def _goes_back(known: Head | None, new: Head) -> bool:
    """Whether a mirror lags: its serial is lower than the record's."""
    if known is None or not known.found or known.serial is None or new.serial is None:
        return False
    return new.serial < known.serial

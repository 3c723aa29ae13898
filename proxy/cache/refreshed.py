"""What is kept of upstream by key and refreshed: freshness decides, a flight asks upstream, an outage is bridged.

Pages, legacy documents and the list of projects all live by this; what asking means, and where the answer is kept, is theirs to
say.  Heads are kept in memory, so that a hot answer costs a dictionary look-up and the decision.  A refresh belongs to the
proxy: it goes on when the client that caused it leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.bounded import BoundedTable, DividedTable
from proxy.core.cache_status import CacheStatus
from proxy.core.events import Incident, Notice, Refreshing, StaleAnswered, StaleReason
from proxy.core.freshness import Action, Decision, decide
from proxy.errors import NotFound, NotHere, ProxyError, UpstreamFailed
from proxy.interfaces import Clock, IRecorder, IUpstreams
from proxy.mechanism.flight import Flights, swallow
from proxy.mechanism.waiting import waiting
from proxy.model import Condition, Head
from proxy.settings import MIB, PageLimits
from proxy.statistics.recorders import UNRECORDED

#: What heads may take in memory (bytes): those of things that there are, and what is known of things that there are not, which
#: clients can ask for without end.
_FOUND, _MISSING = 32 * MIB, 4 * MIB
#: What a head weighs besides its text (bytes).
_HEAD_WEIGHT = 600
#: What could not be refreshed is left alone for this long, doubling up to the maximum (seconds) with so many doublings at most.
_REST = 5.0
_LONGEST_REST = 60.0
_DOUBLINGS = 4
#: Why an answer is stale, by the detail of its cache status; without one, this key rests after a failure.
_STALE: Mapping[str | None, StaleReason] = {None: StaleReason.FAILED, **{each.value: each for each in StaleReason}}


class Served(Struct, frozen=True):
    """What a client gets: the head of a record with something in it, and how the cache came by it."""

    head: Head
    status: CacheStatus


class OlderThanKept(Exception):
    """Upstream's answer is older than what is kept: a mirror that lags."""


class _Entry(Struct):
    """What is in memory about one key."""

    head: Head | None
    #: When upstream confirmed it, by the steady clock.
    confirmed: float = 0.0
    failures: int = 0
    rest_until: float = 0.0

    @property
    def found(self) -> bool:
        return self.head is not None and self.head.found

    @property
    def weight(self) -> int:
        head = self.head
        texts = () if head is None else (head.url, head.content_type, head.etag, head.last_modified, head.status)
        return _HEAD_WEIGHT + sum(len(text) for text in texts if text is not None)


class Source(Protocol):
    """Where the things come from, and where they are kept."""

    #: What is recorded of them.
    incidents: Refreshing

    def notice(self, incident: Incident, key: str) -> Notice:
        """What to record of *incident*, which is about *key*."""

    async def load(self, key: str) -> Head | None:
        """The head of what is kept under *key*."""

    async def ask(self, key: str, known: Head | None, adopt: Callable[[Head], None], *, forced: bool = False) -> None:
        """Ask upstream; with *forced*, for an operator, unconditionally.

        *adopt* is told the new head as soon as it may be served; keeping it may come after.

        Raises ProxyError, OlderThanKept.
        """

    def missing(self, key: str) -> NotFound:
        """What to tell a client when upstream definitely has nothing under *key*."""


class Terms(Struct):
    """The terms on which everything of one index is refreshed; *limits* may be replaced at any time.

    *limits* say how stale it may be; *recorder* is told what is worth counting.  *reactor* has the steady clock and the timers.
    The age of what was confirmed in an earlier run is told by *clock*; from then on nobody's setting a clock makes it older or
    younger.
    """

    limits: PageLimits
    reactor: IReactorTime
    clock: Clock = time.time
    recorder: IRecorder = UNRECORDED


class Refreshed:
    """All that *source* has, refreshed on *terms*.  *slow* is told when an answer did not come within the soft deadline."""

    log = Logger()

    def __init__(
        self,
        source: Source,
        upstreams: IUpstreams,
        terms: Terms,
        slow: Callable[[float], None] = lambda waited: None,
    ) -> None:
        self._slow = slow
        self._clock = terms.clock
        self._source = source
        self._upstreams = upstreams
        self._reactor = terms.reactor
        self._terms = terms
        self._recorder = terms.recorder
        self._entries: DividedTable[str, _Entry] = DividedTable(_entries(_FOUND), _entries(_MISSING), lambda entry: entry.found)
        self._refreshes: Flights[Head] = Flights()
        self._loads: Flights[_Entry] = Flights()

    def close(self) -> None:
        """Stop what is under way, and forget what is in memory: what was there at the start is no garbage for the collector."""
        self._refreshes.close()
        self._entries.clear()

    async def get(self, key: str, *, no_cache: bool = False) -> Served:
        """What is under *key*, as fresh as the limits ask.

        Raises NotFound when upstream definitely has none, UpstreamFailed when none answered and nothing is kept.
        """
        entry = await self._entry(key)
        decision = self._decide(entry, no_cache)
        action = decision.action
        if action in (Action.SERVE, Action.SERVE_AND_REFRESH):
            return self._at_once(key, entry, decision)
        if action is Action.MISSING:
            raise self._source.missing(key)
        collapsed = key in self._refreshes
        fwd = "miss" if entry.head is None else "request" if decision.ttl > 0 else "stale"
        before = entry.head
        if action is Action.FETCH:
            with waiting.get():
                head = await self._refresh(key, entry)
        elif waiting.get().crowded:
            swallow(self._refresh(key, entry), ProxyError)
            return self._hit(key, entry, decision, detail="overloaded")
        else:
            try:
                refreshed = await self._within_soft_deadline(self._refresh(key, entry))
            except UpstreamFailed:
                refreshed = None
            if refreshed is None:
                return self._hit(key, entry, decision, detail="upstream-slow" if entry.failures == 0 else "upstream-failed")
            head = refreshed
        if not head.found:
            raise self._source.missing(key)
        left = self._decide(entry, False).ttl
        return Served(head, CacheStatus(False, fwd, round(left), collapsed=collapsed, stored=head is not before))

    def ready(self, key: str) -> Served | None:
        """What :meth:`get` would return if it need not wait for anything, else ``None``."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        decision = self._decide(entry, False)
        if decision.action not in (Action.SERVE, Action.SERVE_AND_REFRESH):
            return None
        return self._at_once(key, entry, decision)

    def at_hand(self, key: str) -> tuple[Head | None] | None:
        """What :meth:`remembered` would return, in a tuple, if it is in memory."""
        entry = self._entries.get(key)
        return None if entry is None else (entry.head,)

    async def remembered(self, key: str) -> Head | None:
        """The head of *key*, whatever its age, without asking upstream."""
        return (await self._entry(key)).head

    async def refresh(self, key: str) -> Head:
        """What upstream says now, asked unconditionally, however fresh the one that is kept.  Raises UpstreamFailed."""
        entry = await self._entry(key)
        if key in self._refreshes:
            with suppress(ProxyError):
                await self._refresh(key, entry)
        return await self._refreshes.join(key, lambda: self._ask(key, entry, forced=True))

    @property
    def under_way(self) -> Flights[Head]:
        """What upstream is asked for now."""
        return self._refreshes

    def forget(self, key: str) -> None:
        """Drop what is in memory under *key*."""
        self._entries.discard(key)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _decide(self, entry: _Entry, no_cache: bool) -> Decision:
        age = self._reactor.seconds() - entry.confirmed
        condition = self._upstreams.condition()
        return decide(entry.head, age, self._terms.limits, condition, resting=entry.failures > 0, no_cache=no_cache)

    def _at_once(self, key: str, entry: _Entry, decision: Decision) -> Served:
        if (
            decision.action is Action.SERVE_AND_REFRESH
            and entry.rest_until <= self._reactor.seconds()
            and self._upstreams.retry_in() <= 0
        ):
            swallow(self._refresh(key, entry), ProxyError)
        return self._hit(key, entry, decision)

    def _hit(self, key: str, entry: _Entry, decision: Decision, detail: str | None = None) -> Served:
        assert entry.head is not None
        if decision.ttl <= 0:
            condition = self._upstreams.condition()
            if condition is Condition.OFFLINE:
                return Served(entry.head, CacheStatus(True, detail="offline"))
            if detail is None and condition is not Condition.UP:
                detail = f"upstream-{condition.value}"
            self._recorder.record(self._source.notice(self._source.incidents.served_stale, key))
            self._recorder.record(StaleAnswered(_STALE[detail]))
        return Served(entry.head, CacheStatus(True, ttl=round(decision.ttl), detail=detail))

    async def _entry(self, key: str) -> _Entry:
        entry = self._entries.get(key)
        return entry if entry is not None else await self._loads.join(key, lambda: self._load(key))

    async def _load(self, key: str) -> _Entry:
        head = await self._source.load(key)
        if head is not None and not head.found:
            head = None  # an earlier run was told so, perhaps at another URL: it takes one request to know
        # What was confirmed in the future, by a clock that has been set back since, counts as confirmed now.
        age = 0.0 if head is None else max(0.0, self._clock() - head.checked_at)
        entry = _Entry(head, self._reactor.seconds() - age)
        self._entries.put(key, entry)
        return entry

    def _refresh(self, key: str, entry: _Entry) -> Deferred[Head]:
        return self._refreshes.join(key, lambda: self._ask(key, entry))

    async def _within_soft_deadline(self, refresh: Deferred[Head]) -> Head | None:
        """The refreshed head, or ``None`` when it took longer than the soft deadline; the refresh goes on all the same."""
        first: Deferred[Head | None] = Deferred(lambda _: refresh.cancel())

        def arrived(outcome: Head | Failure) -> None:
            if not first.called:
                first.callback(outcome)

        refresh.addBoth(arrived)
        deadline = self._reactor.callLater(self._terms.limits.soft_deadline, first.callback, None)
        try:
            head = await first
        finally:
            if deadline.active():
                deadline.cancel()
        if head is None:
            self._slow(self._terms.limits.soft_deadline)
        return head

    async def _ask(self, key: str, entry: _Entry, *, forced: bool = False) -> Head:
        """Ask upstream; remember and return what it says.  After a failure of upstream this key rests for a while."""
        known = entry.head
        began = self._reactor.seconds()

        def adopt(head: Head) -> None:
            entry.head = head
            entry.confirmed = began
            entry.failures = 0
            entry.rest_until = 0.0
            self._entries.put(key, entry)

        try:
            await self._source.ask(key, known, adopt, forced=forced)
        except OlderThanKept:
            entry.failures = 0
            entry.rest_until = self._reactor.seconds() + _LONGEST_REST
            self._recorder.record(self._source.notice(self._source.incidents.older, key))
        except NotHere:
            raise  # the index is offline: nothing was asked, and nothing failed
        except ProxyError as error:
            entry.failures += 1
            rest = min(_LONGEST_REST, _REST * 2 ** min(entry.failures - 1, _DOUBLINGS))
            if known is not None and known.found:
                # With nothing to serve, the next client's request is a fresh try.
                entry.rest_until = self._reactor.seconds() + rest
            self._recorder.record(self._source.notice(self._source.incidents.failed, key))
            self.log.debug("{key}: {error}", key=key, error=error)
            raise
        assert entry.head is not None
        return entry.head


def _entries(limit: int) -> BoundedTable[str, _Entry]:
    return BoundedTable(limit, lambda entry: entry.weight, len)

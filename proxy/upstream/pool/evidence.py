"""What is known of one upstream, kept per URL, per address and per origin: each failure is evidence about its own subject.

Theory of operation.  An :class:`Evidence` only does book-keeping: it performs no I/O, holds no timer, and is told the time.

*A URL* that failed twice in a row rests for a growing time; one that answered 429 or 503 rests as long as it asked, at most
:data:`LONGEST_URL_REST`.  While it rests nobody asks for it, and nothing else is affected.  Where none of
several upstreams has an answer, the rest is cut short: a file whose URL asks for a pause at each of them is not lost for a
minute.

*An address* that refused, stayed silent, or broke a connection is tried after the others for a while.  It is never given up
while there is no other one.

*An origin* (scheme, host, port) has a breaker.  It opens when none of the host's known addresses accepts a connection, or
when most of the last *different* URLs failed within a minute, so that any number of failures of one URL counts once.  Where a
page is known that worked, that page is asked before such a majority is believed .  After a growing, jittered pause one
probe goes out: the last small page that worked, or a waiting URL that has not been a probe yet.

*The upstream* is as its home origin is, the one in its configured URL: hosts that its pages name for files never count.
"""

from __future__ import annotations

import enum
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, field

from proxy.core.amounts import duration
from proxy.core.bounded import BoundedTable
from proxy.model import Condition
from proxy.upstream.http.failures import Fault
from proxy.upstream.http.origin import Origin

#: An origin is down when most of its last so many different URLs failed, at least so many, within so many seconds.
LAST_URLS, FEWEST_FAILURES, WITHIN = 10, 5, 60.0
#: An origin that accepts connections is down when so many different URLs in a row got no answer at all.
UNANSWERED = 3
#: The pause before the first probe, and the longest (seconds).
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: The longest rest of a URL, also when upstream asks for more (seconds).
LONGEST_URL_REST = 60.0
#: The first rest of an address, and the longest (seconds).
FIRST_ADDRESS_REST, LONGEST_ADDRESS_REST = 10.0, 300.0
#: 429s on so many different URLs within a minute slow the origin down; the pause between requests grows up to so many seconds.
THROTTLED_URLS, FIRST_PACE, SLOWEST_PACE = 3, 0.1, 1.0
#: 429s that are remembered of an origin; each answer makes up for one.
MOST_THROTTLED = 8
#: URLs that wait for an origin that is down, and URLs that were probes in vain, that are remembered; and for how long after
#: a client was refused it still counts as waiting (seconds).
MOST_WAITING, WAITS_FOR = 100, 10.0
#: Pages that worked, of which probes ask for one.
GOOD_PAGES = 5
#: Requests for different URLs in a row that another upstream answered first, after which that counts as a failure.
OVERTAKEN = 10

#: What the tables may weigh in memory, in bytes.
_URLS, _ADDRESSES, _ORIGINS = 2_000_000, 500_000, 2_000_000


class State(enum.Enum):
    """An origin's breaker: ``UP`` lets everything through, ``DOWN`` nothing, ``PROBING`` waits for the one probe's answer."""

    UP = "up"
    DOWN = "down"
    PROBING = "probing"


#: For each hot request: in Python 3.11 a member of an enumeration takes longer to find than the rest of the answer.
_UP, _ALL_WELL = State.UP, Condition.UP


class Refusal(Struct, frozen=True):
    """Why a request may not go out now, and for how many seconds."""

    reason: str
    seconds: float


class Admission(Struct, frozen=True):
    """Leave to send one request.  ``probe``: its outcome decides whether the origin is up again."""

    probe: bool = False


class _Url(Struct):
    failures: int = 0
    rest_until: float = 0.0
    #: When it may be asked all the same by who insists.
    insist_from: float = 0.0
    reason: str = ""


class _Address(Struct):
    failures: int = 0
    rest_until: float = 0.0
    #: Whether it accepted no connection.
    unreachable: bool = False


class _Origin(Struct):
    """The breaker of one origin."""

    state: State = State.UP
    #: The last different URLs, oldest first: when, and whether it worked.
    outcomes: OrderedDict[str, tuple[float, bool]] = field(default_factory=OrderedDict)
    #: Different URLs that got no answer at all since the last answer.
    unanswered: set[str] = field(default_factory=set)
    #: Different URLs that another upstream answered first, since the last answer.
    overtaken: set[str] = field(default_factory=set)
    #: URLs that answered 429, and when.
    throttled: OrderedDict[str, float] = field(default_factory=OrderedDict)
    #: The known addresses of its host.
    addresses: tuple[str, ...] = ()
    pauses: int = 0
    paused_until: float = 0.0
    #: A majority of failures that is to be confirmed by a page that is known to work.
    doubted: bool = False
    #: URLs that were probes in vain since it is down, and those that were refused meanwhile.
    probed: set[str] = field(default_factory=set)
    refused: OrderedDict[str, float] = field(default_factory=OrderedDict)
    last_failure: str | None = None
    last_failure_at: float | None = None
    last_answer_at: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the last two different URLs failed."""
        lately = reversed(self.outcomes.values())
        return len(self.outcomes) > 1 and not next(lately)[1] and not next(lately)[1]


class Evidence:
    """All evidence about the upstream at *home*.

    *changed* is told (old state, new state, reason) of each change of the home origin's breaker.
    """

    def __init__(
        self,
        home: Origin,
        rng: random.Random,
        changed: Callable[[State, State, str], None] = lambda old, new, why: None,
    ) -> None:
        self._home = home
        self._rng = rng
        self._changed = changed
        self._urls: BoundedTable[str, _Url] = BoundedTable(_URLS, lambda known: 300 + len(known.reason))
        self._addresses: BoundedTable[tuple[Origin, str], _Address] = BoundedTable(_ADDRESSES, lambda known: 300)
        self._origins: BoundedTable[Origin, _Origin] = BoundedTable(_ORIGINS, lambda known: 5_000)
        self._at_home = _Origin()
        self._slow = False
        self.failures = 0
        self.last_success_at: float | None = None
        #: Whether it has refused the credentials of the configuration since then.
        self.refuses_credentials = False
        #: The last small pages that worked, the newest last: what probes ask for.
        self._good_pages: OrderedDict[str, None] = OrderedDict()

    # -- questions ---------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._at_home.state

    @property
    def last_failure(self) -> str | None:
        return self._at_home.last_failure

    @property
    def last_failure_at(self) -> float | None:
        return self._at_home.last_failure_at

    def condition(self) -> Condition:
        """As the freshness decision sees the upstream: suspect when its last URLs failed, or it is slow."""
        home = self._at_home
        if home.state is not _UP:
            return Condition.DOWN
        return Condition.SUSPECT if self._slow or home.doubted or home.failing else _ALL_WELL

    def retry_in(self, now: float) -> float:
        """Seconds until the upstream may be asked; 0.0: now."""
        if self._at_home.state is State.UP:
            return 0.0
        left = self._at_home.paused_until - now
        return left if left > 0 else FIRST_PAUSE if self._at_home.state is State.PROBING else 0.0

    def down_until(self, now: float) -> float | None:
        """When the next probe may go out, ``None`` while the upstream is up."""
        return None if self._at_home.state is State.UP else max(now, self._at_home.paused_until)

    def admit(self, url: str, origin: Origin, now: float, *, insist: bool = False) -> Admission | Refusal:
        """Whether *url* may be asked now.  An admission must end in :meth:`succeeded`, :meth:`failed` or :meth:`abandoned`.

        *insist*: no other upstream has an answer, so the rest of a URL is cut short, at growing intervals.
        """
        rests = self._urls.get(url)
        if rests is not None and rests.rest_until > now and not (insist and rests.insist_from <= now):
            return Refusal(f"{rests.reason}; this URL rests", rests.rest_until - now)
        known = self._origin(origin)
        if known.state is State.UP:
            return Admission()
        probes_itself = known is self._at_home and self._good_pages
        if known.state is State.DOWN and known.paused_until <= now and not probes_itself and self._may_probe(known, url, now):
            known.state = State.PROBING
            return Admission(probe=True)
        known.refused.pop(url, None)
        known.refused[url] = now
        while len(known.refused) > MOST_WAITING:
            known.refused.popitem(last=False)
        left = max(known.paused_until - now, 0.0)
        return Refusal(f"{known.last_failure or 'is being probed'}; no request is sent to it until a probe succeeds", left)

    @property
    def good_page(self) -> str | None:
        """The project whose page probes ask for: the last small page that worked."""
        return next(reversed(self._good_pages), None)

    def probe_due(self, now: float) -> bool:
        """Whether the upstream is to be probed now, by :meth:`admit_probe`; also to confirm that it is down."""
        home = self._at_home
        return home.doubted if home.state is State.UP else home.state is State.DOWN and home.paused_until <= now

    def may_probe(self, url: str, now: float) -> bool:
        """Whether *url*, which a client waits for, may be the probe where no good page is known: a different one each time."""
        return self._may_probe(self._at_home, url, now)

    def admit_probe(self) -> Admission:
        """Leave for the probe that is due."""
        self._at_home.doubted = False
        if self._at_home.state is State.DOWN:
            self._at_home.state = State.PROBING
        return Admission(probe=True)

    def is_down(self, origin: Origin) -> bool:
        """Whether nothing but a probe may be asked of *origin*."""
        return self._origin(origin).state is not State.UP

    def pace(self, origin: Origin, now: float) -> float:
        """Seconds to leave between two requests to *origin*, because it answers 429 to many of them; 0.0: none."""
        throttled = self._origin(origin).throttled
        while throttled and now - next(iter(throttled.values())) > WITHIN:
            throttled.popitem(last=False)
        if len(throttled) < THROTTLED_URLS:
            return 0.0
        return min(SLOWEST_PACE, FIRST_PACE * 2.0 ** (len(throttled) - THROTTLED_URLS))

    def order(self, origin: Origin, addresses: Sequence[str], now: float) -> list[str]:
        """*addresses* of the host of *origin* in the order in which they are to be tried: those that rest come last."""
        self._origin(origin).addresses = tuple(addresses)
        if len(addresses) == 1:
            return list(addresses)

        def rest(address: str) -> float:
            known = self._addresses.get((origin, address))
            return 0.0 if known is None or known.rest_until <= now else known.rest_until

        return sorted(addresses, key=rest)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The known addresses of the home origin's host."""
        return self._at_home.addresses

    def resting(self, now: float) -> list[str]:
        """The addresses of the home origin that rest."""
        home = self._home
        known = ((address, self._addresses.get((home, address))) for address in self._at_home.addresses)
        return [address for address, record in known if record is not None and record.rest_until > now]

    # -- what happened -----------------------------------------------------------------------------------------------------

    def slow(self, waited: float, now: float) -> None:
        """An answer has not come within *waited* seconds, which says something if nothing else was answered meanwhile."""
        if self._at_home.last_answer_at is None or self._at_home.last_answer_at <= now - waited:
            self._slow = True

    def answered(self, origin: Origin, address: str | None, now: float, *, good: bool = True) -> None:
        """*address* has answered with something, which is *good* as far as the address is concerned."""
        known = self._origin(origin)
        known.last_answer_at = now
        known.unanswered.clear()
        known.overtaken.clear()
        if origin == self._home:
            self._slow = False
        if address is not None and good:
            self._addresses.discard((origin, address))

    def address_failed(self, origin: Origin, address: str, now: float, *, unreachable: bool) -> None:
        """*address* did not accept a connection (*unreachable*), or did not answer on one, or broke it, or answered 502."""
        known = self._addresses.get((origin, address)) or _Address()
        known.failures += 1
        known.unreachable = unreachable
        known.rest_until = now + min(LONGEST_ADDRESS_REST, FIRST_ADDRESS_REST * 2 ** min(known.failures - 1, 10))
        self._addresses.put((origin, address), known)

    def succeeded(self, url: str, origin: Origin, now: float, *, probe: bool = False) -> None:
        """*url* gave what was asked for, or a definite no."""
        self._urls.discard(url)
        known = self._origin(origin)
        self._note(known, url, now, good=True)
        if known.throttled:
            # Each answer makes up for one 429: an upstream that refuses few of its URLs is not slowed down for the others.
            known.throttled.popitem(last=False)
        if origin == self._home:
            self.last_success_at = now
            self.refuses_credentials = False
        if probe:
            self._probe_succeeded(known, origin)

    def page_worked(self, project: str) -> None:
        """The page of *project* is one that worked, and small."""
        self._good_pages.pop(project, None)
        self._good_pages[project] = None
        while len(self._good_pages) > GOOD_PAGES:
            self._good_pages.popitem(last=False)

    def page_failed(self, project: str) -> None:
        """The page of *project*, which had worked, was a probe in vain: the next probe asks for another one."""
        self._good_pages.pop(project, None)

    def failed(
        self,
        url: str,
        origin: Origin,
        fault: Fault,
        reason: str,
        now: float,
        *,
        retry_after: float | None = None,
        probe: bool = False,
        excused: bool = False,
        answered: bool = False,
    ) -> None:
        """*url* gave nothing of use.  *retry_after*: the pause that the answer asked for, in seconds.

        *answered*: it did answer, with a refusal that says nothing about the URL.  *excused*: it may fail where all else works,
        so unless the host is not reached it says something about the URL alone.
        """
        known = self._origin(origin)
        if fault is not Fault.NO_EVIDENCE:
            self.failures += 1
            known.last_failure, known.last_failure_at = reason, now
        if fault is Fault.CREDENTIALS and origin == self._home:
            self.refuses_credentials = True
        if fault in (Fault.NO_EVIDENCE, Fault.CREDENTIALS):
            if probe and answered:
                self._probe_succeeded(known, origin)
            self._probe_ended(known, probe, now)
            return
        self._url_failed(url, fault, reason, now, retry_after)
        if fault is Fault.THROTTLED:
            known.throttled.pop(url, None)
            known.throttled[url] = now
            while len(known.throttled) > MOST_THROTTLED:
                known.throttled.popitem(last=False)
            if probe:
                self._probe_succeeded(known, origin)  # it answers, and is slowed down
            return
        if excused and not fault.about_the_host:
            self._probe_ended(known, probe, now)
            return
        self._note(known, url, now, good=False)
        if fault is Fault.UNANSWERED:
            known.unanswered.add(url)
        if probe:
            if len(known.probed) < MOST_WAITING:
                known.probed.add(url)
            self._go_down(known, origin, now, reason)
        elif known.state is State.UP:
            if fault is Fault.UNRESOLVED or (fault is Fault.UNREACHABLE and self._none_reachable(known, origin)):
                self._go_down(known, origin, now, reason)
            elif len(known.unanswered) >= UNANSWERED or self._fails_often(known, now):
                if origin == self._home and self._good_pages:
                    known.doubted = True
                else:
                    self._go_down(known, origin, now, reason)

    def abandoned(self, origin: Origin, *, probe: bool = False) -> None:
        """A request was cancelled, or never sent: nothing is known of its outcome."""
        self._probe_ended(self._origin(origin), probe)

    def overtaken(self, url: str, origin: Origin, waited: float, now: float, *, long: float, probe: bool = False) -> None:
        """Another upstream answered first, after *waited* seconds; who was silent for *long* seconds by then has failed."""
        known = self._origin(origin)
        known.overtaken.add(url)
        if waited >= long:
            reason = f"no answer within {duration(waited)}, when another upstream had given one"
            self.failed(url, origin, Fault.UNANSWERED, reason, now, probe=probe)
        elif len(known.overtaken) >= OVERTAKEN:
            known.overtaken.clear()
            reason = f"another upstream was faster for {OVERTAKEN} URLs in a row"
            self.failed(url, origin, Fault.USELESS, reason, now, probe=probe)
        else:
            self._probe_ended(known, probe)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _origin(self, origin: Origin) -> _Origin:
        if origin == self._home:
            return self._at_home
        known = self._origins.get(origin)
        if known is None:
            known = _Origin()
            self._origins.put(origin, known)
        return known

    def _url_failed(self, url: str, fault: Fault, reason: str, now: float, retry_after: float | None) -> None:
        known = self._urls.get(url) or _Url()
        known.failures += 1
        known.reason = reason[:300]
        if retry_after is not None:
            rest = retry_after
        elif fault is Fault.THROTTLED:
            rest = 1.0
        elif known.failures > 1 and not fault.about_the_host:
            rest = 2.0 ** min(known.failures - 2, 10)
        else:
            rest = 0.0
        known.rest_until = now + min(LONGEST_URL_REST, max(0.0, rest))
        known.insist_from = now + min(LONGEST_URL_REST, FIRST_PAUSE * 2.0 ** min(known.failures - 1, 10))
        self._urls.put(url, known)

    @staticmethod
    def _note(known: _Origin, url: str, now: float, *, good: bool) -> None:
        known.outcomes.pop(url, None)
        known.outcomes[url] = now, good
        while len(known.outcomes) > LAST_URLS:
            known.outcomes.popitem(last=False)

    @staticmethod
    def _fails_often(known: _Origin, now: float) -> bool:
        lately = [good for at, good in known.outcomes.values() if now - at <= WITHIN]
        failures = lately.count(False)
        return failures >= FEWEST_FAILURES and failures > len(lately) / 2

    def _none_reachable(self, known: _Origin, origin: Origin) -> bool:
        records: Iterable[_Address | None] = (self._addresses.get((origin, address)) for address in known.addresses)
        return all(record is not None and record.unreachable for record in records)

    @staticmethod
    def _may_probe(known: _Origin, url: str, now: float) -> bool:
        """Whether *url* may be the probe: it has not been one in vain, or no other one that has not is waited for lately."""
        if url not in known.probed:
            return True
        waiting = (each for each, at in known.refused.items() if now - at <= WAITS_FOR)
        if any(each not in known.probed for each in waiting):
            return False
        known.probed.clear()
        return True

    def _probe_ended(self, known: _Origin, probe: bool, now: float | None = None) -> None:
        """A probe came to nothing: the next one may go out, after another pause if it was sent (at *now*)."""
        if probe and known.state is State.PROBING:
            known.state = State.DOWN
            if now is not None:
                known.paused_until = now + FIRST_PAUSE * self._rng.uniform(0.75, 1.25)

    def _probe_succeeded(self, known: _Origin, origin: Origin) -> None:
        known.doubted = False
        known.unanswered.clear()
        # What failed before says nothing any more: URLs that are broken will be so again, each once.
        for url, (_, good) in list(known.outcomes.items()):
            if not good:
                del known.outcomes[url]
        if known.state is not State.UP:
            known.pauses = 0
            known.paused_until = 0.0
            known.probed.clear()
            known.refused.clear()
            self._move(known, origin, State.UP, "it answers again")

    def _go_down(self, known: _Origin, origin: Origin, now: float, reason: str) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**known.pauses)
        known.pauses = min(known.pauses + 1, 10)
        known.paused_until = now + pause * self._rng.uniform(0.75, 1.25)
        known.outcomes.clear()
        known.unanswered.clear()
        known.doubted = False
        self._move(known, origin, State.DOWN, reason)

    def _move(self, known: _Origin, origin: Origin, state: State, reason: str) -> None:
        old, known.state = known.state, state
        # A probe that failed changes nothing that anybody sees.
        if origin == self._home and {old, state} != {State.PROBING, State.DOWN} and old is not state:
            self._changed(old, state, reason)

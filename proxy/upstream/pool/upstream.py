"""One upstream of an index: its client, the evidence about it, and what else decides whether it is asked.

Theory of operation.  Everything that is asked of an upstream is an attempt.  :meth:`Upstream.answer` makes one, has the answer
read, and settles it; :meth:`Upstream.open` leaves the settling to whoever reads the body.  What the evidence refuses is not
asked.  The probe that ends an outage is the proxy's own request and goes out beside those of clients, who wait for it shortly.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger

from proxy.interfaces import Clock, IOffload
from proxy.mechanism.flight import swallow
from proxy.mechanism.rotating import Observing, Rotating
from proxy.mechanism.waiters import Waiters
from proxy.settings import UpstreamSettings
from proxy.simple.links import shown
from proxy.upstream.http.attempt import Attempt, Manner
from proxy.upstream.http.client import HttpClient
from proxy.upstream.http.failures import Failed, Fault, Refused
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import Origin, origin_of
from proxy.upstream.index.dialect import Dialect
from proxy.upstream.index.pages import ask_page, page_url
from proxy.upstream.pool.evidence import Admission, Evidence, Refusal, State

T = TypeVar("T")

#: Reads the answer to what it asks with the attempt that it is given.
Work = Callable[[Attempt], Awaitable[T]]

#: How long a mirror that sent wrong bytes is asked for files only after all others (seconds).
_MARKED_FOR = 3600.0
#: Who has been silent for this long when another one answers has failed (seconds); hedging alone is no failure.
TOO_LONG = 4.0
#: How long a request waits for a probe that is under way (seconds).
_PROBE_WAIT = 2.0


class UpstreamState(Struct, frozen=True):
    """What operators see of one upstream.  Times are seconds (since the epoch where they are points in time)."""

    name: str
    url: str
    #: ``up``, ``down`` or ``probing``.
    state: str
    failures: int
    last_failure: str | None
    last_failure_at: float | None
    latency: float | None
    in_flight: int
    waiting: int
    #: When a probe may go out, while it is down.
    paused_until: float | None
    #: Seconds since the mirror was last updated (PEP 381), ``None`` where it does not say.
    lag: float | None
    #: Why this mirror's files are distrusted for now.
    marked: str | None
    #: Addresses of its host that are tried after the others, because they failed lately.
    resting: tuple[str, ...] = ()
    #: All known addresses of its host.
    addresses: tuple[str, ...] = ()
    #: Since when it is up, or is not: since the start if that never changed.
    since: float | None = None
    #: The URL that has the pages which the configured one lacks, if that has been found out.
    better_url: str | None = None
    #: Whether it has refused the credentials of the configuration since its last good answer.
    refuses_credentials: bool = False


class Upstream:
    """The upstream of *settings*."""

    log = Logger()

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        reactor: Any,
        offload: IOffload,
        identity: Identity,
        rng: random.Random,
        observing: Observing,
        clock: Clock = time.time,
    ) -> None:
        self._clock = clock
        self.settings = settings
        self.name = settings.name
        #: Seconds that the mirror is behind (PEP 381), ``None`` when that is not known.
        self.lag: float | None = None
        self.dialect = Dialect()
        self.evidence = Evidence(origin_of(settings.url), rng, self._changed)
        self._home = origin_of(settings.url)
        self._marked: tuple[float, str] | None = None
        self._reactor = reactor
        self._since = clock()
        self._offload = offload
        self._client = HttpClient(settings, reactor=reactor, identity=identity, clock=clock, observing=observing)
        self._probe: Deferred[Any] | None = None
        self._probed: Waiters[None] = Waiters()

    # -- what is known of it -----------------------------------------------------------------------------------------------

    def _changed(self, old: State, new: State, why: str) -> None:
        self._since = self._clock()
        if new is State.UP:
            self.log.info("upstream {name} is up: {why}", name=self.name, why=why)
        else:
            self.log.warn("upstream {name} is down: {why}; it is probed after growing pauses", name=self.name, why=why)

    def state(self) -> UpstreamState:
        """What operators see."""
        evidence, now = self.evidence, self._reactor.seconds()
        return UpstreamState(
            self.name,
            shown(self.settings.url),
            evidence.state.value,
            evidence.failures,
            evidence.last_failure,
            self._moment(evidence.last_failure_at),
            self.latency,
            self._client.slots.in_flight,
            self._client.slots.waiting,
            self._moment(evidence.down_until(now)),
            self.lag,
            self.marked,
            tuple(evidence.resting(now)),
            evidence.addresses,
            self._since,
            self.dialect.better_url,
            evidence.refuses_credentials,
        )

    @property
    def rotating(self) -> tuple[Rotating[Any], ...]:
        """The files that have to be looked at regularly."""
        return self._client.rotating

    @property
    def certificate_expires(self) -> float | None:
        """When its client certificate expires, in seconds since 1970; ``None`` without one."""
        return self._client.certificate_expires

    @property
    def last_success_at(self) -> float | None:
        """When it last answered well, in seconds since the epoch."""
        return self._moment(self.evidence.last_success_at)

    def _moment(self, steady: float | None) -> float | None:
        """What time it is, by the wall clock, at a moment of the steady one."""
        return None if steady is None else self._clock() - (self._reactor.seconds() - steady)

    @property
    def works(self) -> bool:
        """Whether it is up as far as is known."""
        return self.evidence.state is State.UP

    @property
    def latency(self) -> float | None:
        """Seconds to an answer's headers lately (a running mean), ``None`` when it has not been measured for a while."""
        return self._client.latency.seconds

    @property
    def crowded(self) -> bool:
        """Whether requests wait for a connection (``max_connections``) or for their turn (``max_rate``)."""
        return self._client.slots.waiting > 0

    def retry_in(self) -> float:
        """Seconds until it may be asked; 0.0: now."""
        return self.evidence.retry_in(self._reactor.seconds())

    def slow(self, waited: float) -> None:
        """An answer has not come within *waited* seconds."""
        if self._client.slots.in_flight:
            self.evidence.slow(waited, self._reactor.seconds())

    @property
    def lags(self) -> bool:
        """Whether the mirror is further behind than ``max_lag`` allows."""
        limit = self.settings.max_lag
        return limit is not None and self.lag is not None and self.lag > limit

    @property
    def marked(self) -> str | None:
        """Why its files are distrusted: it has offered or sent wrong bytes within the last hour."""
        if self._marked is None or self._reactor.seconds() - self._marked[0] > _MARKED_FOR:
            return None
        return self._marked[1]

    def mark(self, why: str) -> None:
        """Distrust its files for a while."""
        if self.marked is None:
            self.log.error(
                "upstream {name} is marked: it {why}; others are preferred for files for an hour", name=self.name, why=why
            )
        self._marked = (self._reactor.seconds(), why)

    # -- attempts ----------------------------------------------------------------------------------------------------------

    async def answer(self, url: str, manner: Manner, work: Work[T], *, file: bool = False) -> T:
        """What *work* makes of the answer to an attempt at *url*, which is settled then.  Raises Failed."""
        attempt = await self._attempt(url, manner, file)
        try:
            result = await work(attempt)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends the attempt and is raised
            raise attempt.fail(error) from error.__cause__
        attempt.end()
        return result

    async def open(self, url: str, manner: Manner, work: Work[T], *, excused: bool = False) -> T:
        """What *work* makes of the beginning of the answer to an attempt at the file *url*; its holder ends the attempt.

        *excused*: it may fail where all else works, and then says nothing about the origin.  Raises Failed.
        """
        attempt = await self._attempt(url, manner, file=True, excused=excused)
        try:
            return await work(attempt)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends the attempt and is raised
            raise attempt.fail(error) from error.__cause__

    def probe(self, waiting: str | None = None) -> None:
        """Send a probe if one is due: for a page that is known to work, else for that of *waiting*, a project."""
        if self._probe is not None or not self.evidence.probe_due(self._reactor.seconds()):
            return
        project = self.evidence.good_page or waiting
        if project is None:
            return
        url = page_url(self.settings, project)
        if self.evidence.good_page is None and not self.evidence.may_probe(url, self._reactor.seconds()):
            return
        attempt = Attempt(self.name, self._client, _Permit(self, url, self.evidence.admit_probe()), Manner())
        # A probe is the proxy's own request, whoever caused it.
        self._probe = Context().run(Deferred.fromCoroutine, self._run_probe(attempt, project))
        swallow(self._probe.addBoth(self._probe_ended), Failed)

    async def _run_probe(self, attempt: Attempt, project: str) -> None:
        try:
            await ask_page(attempt, self.settings, self.dialect, project, None, self._offload, self._clock())
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends the attempt and is raised
            if isinstance(error, Failed) and error.fault not in (Fault.NO_EVIDENCE, Fault.CREDENTIALS):
                self.evidence.page_failed(project)
            raise attempt.fail(error) from error.__cause__
        attempt.end()

    def _probe_ended(self, result: Any) -> Any:
        self._probe = None
        self._probed.wake(None)
        return result

    async def _attempt(self, url: str, manner: Manner, file: bool, excused: bool = False) -> Attempt:
        """An attempt at *url*.  Raises Refused."""
        origin = origin_of(url)
        admission = self.evidence.admit(url, origin, self._reactor.seconds(), insist=manner.insist)
        if isinstance(admission, Refusal) and origin == self._home and not self.works:
            self.probe()
            if self._probe is not None:
                await self._probe_outcome()
                admission = self.evidence.admit(url, origin, self._reactor.seconds(), insist=manner.insist)
        if isinstance(admission, Refusal):
            raise Refused(admission.reason)
        return Attempt(self.name, self._client, _Permit(self, url, admission, excused=excused), manner, file=file)

    async def _probe_outcome(self) -> None:
        with suppress(TimeoutError):
            await self._probed.wait().addTimeout(_PROBE_WAIT, self._reactor)

    async def close(self) -> None:
        """Stop probing, and close idle connections."""
        if self._probe is not None:
            self._probe.cancel()
        await self._client.close()

    def wall(self) -> float:
        """The time by the wall clock, in seconds since the epoch."""
        return self._clock()

    def now(self) -> float:
        """The time, in seconds."""
        now: float = self._reactor.seconds()
        return now


class _Permit:
    """See :class:`proxy.upstream.http.attempt.IPermit`: leave to ask *upstream* for *url*."""

    def __init__(self, upstream: Upstream, url: str, admission: Admission, *, excused: bool = False) -> None:
        self._excused = excused
        self._upstream = upstream
        self._evidence = upstream.evidence
        self._url = url
        self._probe = admission.probe
        self._first = self._origin = origin_of(url)
        self._began: float | None = None
        self._proven = False

    @property
    def void(self) -> bool:
        return not self._probe and self._evidence.is_down(self._first)

    def pace(self) -> float:
        return self._evidence.pace(self._first, self._upstream.now())

    def toward(self, origin: Origin) -> None:
        if self._began is None:
            self._began = self._upstream.now()
        self._origin = origin

    def order(self, origin: Origin, addresses: Sequence[str]) -> list[str]:
        return self._evidence.order(origin, addresses, self._upstream.now())

    def answered(self, origin: Origin, address: str | None, status: int) -> None:
        self._evidence.answered(origin, address, self._upstream.now(), good=status != 502)

    def address_failed(self, origin: Origin, address: str, unreachable: bool) -> None:
        self._evidence.address_failed(origin, address, self._upstream.now(), unreachable=unreachable)

    def proven(self) -> None:
        self._proven = True
        self._succeeded(self._upstream.now())

    def settle(self, error: BaseException | None, overtaken: bool) -> None:
        evidence, url, origin, now = self._evidence, self._url, self._origin, self._upstream.now()
        if error is None:
            self._succeeded(now)
        elif isinstance(error, Failed):
            if origin != self._first:
                evidence.succeeded(url, self._first, now, probe=self._first_probe())  # it answered, with a redirect
            evidence.failed(
                url,
                origin,
                error.fault,
                str(error),
                now,
                retry_after=error.retry_after,
                probe=self._first_probe(),
                excused=self._excused,
                answered=error.status is not None,
            )
        elif isinstance(error, CancelledError) and overtaken and self._began is not None and not self._proven:
            waited = now - self._began
            evidence.overtaken(url, self._first, waited, now, long=TOO_LONG, probe=self._first_probe())
        elif not self._proven:
            evidence.abandoned(self._first, probe=self._first_probe())
        self._upstream.probe()

    def _succeeded(self, now: float) -> None:
        """The URL gave what was asked for; where it redirected to another origin, both have answered."""
        self._evidence.succeeded(self._url, self._first, now, probe=self._first_probe())
        if self._origin != self._first:
            self._evidence.succeeded(self._url, self._origin, now)

    def _first_probe(self) -> bool:
        """Whether this is a probe whose outcome has not been told yet."""
        probe, self._probe = self._probe, False
        return probe

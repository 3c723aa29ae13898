"""One upstream's HTTP: bounded connections, timeouts, redirects, credentials, health.

Theory of operation. A request needs leave of the upstream's health (a `Trial`) and a slot; both end with its `Exchange`.
Connecting, the first byte and silence in a body have each their own timeout; the total is bounded by progress alone.  Pages and
files alike go through twisted.web's Agent: treq would undo content codings on the reactor's thread, and without a limit.
"""

from __future__ import annotations

import base64
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from proxy.interfaces import Clock
from proxy.settings import UpstreamSettings
from proxy.simple.links import shown
from proxy.upstream.body import Body
from proxy.upstream.connecting import Endpoints, Watch
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Failed, Looped, Missing, cancelled, reason
from proxy.upstream.guard import Forbidden
from proxy.upstream.heads import QuietPool
from proxy.upstream.health import Health, State, Trial
from proxy.upstream.identity import Identity
from proxy.upstream.origin import MOST_REDIRECTS, host_allowed, origin_of, redirected, sendable
from proxy.upstream.slots import Slots

#: How much one measurement counts in the running mean of the latency, and how long that mean tells anything (seconds).
_WEIGHT = 0.2
_MEASURED_FOR = 300.0
#: How long a mirror that sent wrong bytes is asked for files only after all others (seconds).
_MARKED_FOR = 3600.0

#: ``Retry-After`` in seconds, to which some servers give a fraction; and the longest date that is looked at (characters).
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?")
_LONGEST_DATE = 64

_REDIRECTS = (301, 302, 303, 307, 308)


@frozen
class UpstreamState:
    """What operators see of one upstream.  Times are seconds (since the epoch where they are points in time)."""

    name: str
    url: str
    state: str
    failures: int
    last_failure: str | None
    last_failure_at: float | None
    latency: float | None
    in_flight: int
    waiting: int
    paused_until: float | None
    #: Seconds since the mirror was last updated (PEP 381), ``None`` where it does not say.
    lag: float | None
    #: Why this mirror's files are distrusted for now.
    marked: str | None


class UpstreamClient:
    """The upstream of *settings*."""

    log = Logger()

    def __init__(
        self, settings: UpstreamSettings, *, reactor: Any, identity: Identity, rng: random.Random, clock: Clock = time.time
    ) -> None:
        self._clock = clock
        self.settings = settings
        self.name = settings.name
        self.lag: float | None = None
        self._latency: float | None = None
        self._measured_at = 0.0
        self._marked: tuple[float, str] | None = None
        self._reactor = reactor
        self._home = origin_of(settings.url)
        self._endpoints = Endpoints(settings, reactor)
        self._pool = QuietPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = settings.max_connections
        self._pool.cachedConnectionTimeout = 30
        self._pool.retryAutomatically = True
        self._slots = Slots(settings, reactor)
        self._identity = identity
        self.health = Health(reactor.seconds, rng, self._health_changed, self._health_paused)

    # -- what is known of it -----------------------------------------------------------------------------------------------

    def _health_changed(self, old: State, new: State, why: str) -> None:
        if State.CLOSED not in (old, new):
            return  # a probe that failed changes nothing that anybody sees
        if new is State.CLOSED:
            self.log.info("upstream {name} is back: {why}", name=self.name, why=why)
        else:
            self.log.warn("upstream {name} is out: {why}; it is probed after growing pauses", name=self.name, why=why)

    def _health_paused(self, seconds: float, why: str) -> None:
        self.log.warn(
            "upstream {name} {why} and asks for a pause: it is left alone for {seconds:.0f} s",
            name=self.name,
            why=why,
            seconds=seconds,
        )

    def state(self) -> UpstreamState:
        health = self.health
        pause = health.retry_in()
        return UpstreamState(
            self.name,
            shown(self.settings.url),
            health.state.value,
            health.all_failures,
            health.last_failure,
            self._moment(health.last_failure_at),
            self._latency,
            self._slots.in_flight,
            self._slots.waiting,
            self._clock() + pause if pause > 0 else None,
            self.lag,
            self.marked,
        )

    @property
    def last_success_at(self) -> float | None:
        """When it last answered well, in seconds since the epoch."""
        return self._moment(self.health.last_success_at)

    def _moment(self, steady: float | None) -> float | None:
        """What time it was at a moment of the steady clock."""
        return None if steady is None else self._clock() - (self._reactor.seconds() - steady)

    @property
    def latency(self) -> float | None:
        """Seconds to an answer's headers lately (a running mean), ``None`` when it has not been measured for a while."""
        return self._latency if self._reactor.seconds() - self._measured_at < _MEASURED_FOR else None

    @property
    def busy(self) -> bool:
        """Whether anything has been asked that is not answered whole."""
        return self._slots.in_flight + self._slots.waiting > 0

    @property
    def crowded(self) -> bool:
        """Whether requests wait for a connection (``max_connections``) or for their turn (``max_rate``)."""
        return self._slots.waiting > 0

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

    # -- requests ----------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        file: bool = False,
        named_by: str | None = None,
        silence: float | None = None,
        trial: Trial | None = None,
    ) -> Exchange:
        """Send a request and return its response, redirects followed.

        *file* requests leave room for pages.  *named_by* is the page that named *url*: another host than its own is asked only
        as ``file_hosts`` allows, redirects included.  *silence* bounds the pauses in the body more tightly than the settings do
        (seconds).  *trial* is one that :attr:`health` has admitted already.  Raises Failed for everything but an answer below
        400 (and 416), Missing for 404 and 410; the trial is settled then.  Of an answer its holder says what it was worth.
        """
        trial = trial or self.admit()
        try:
            return await self._ask(method, url, headers, file, named_by, silence, trial)
        except Missing:
            trial.succeeded()
            raise
        except Failed as error:
            if error.blames:
                trial.failed(str(error), error.retry_after)
            trial.abandoned()
            raise
        except BaseException:
            trial.abandoned()
            raise

    def admit(self) -> Trial:
        """Leave to ask once; it must be settled.  Raises Failed while the upstream is left alone."""
        trial = self.health.admit()
        if trial is None:
            raise self._resting()
        return trial

    def _resting(self) -> Failed:
        return Failed(f"is left alone for {self.health.retry_in():.0f} s after: {self.health.last_failure}", blames=False)

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        file: bool,
        named_by: str | None,
        silence: float | None,
        trial: Trial,
    ) -> Exchange:
        self._check_host(url, named_by)
        release = await self._slots.take(file=file)
        try:
            if trial.void:
                raise self._resting()
            for _ in range(MOST_REDIRECTS + 1):
                response = await self._send(method, url, headers)
                exchange = Exchange(
                    url, response, trial, release, lambda: Body(self._reactor, self._idle(silence)), self._reactor.seconds
                )
                if exchange.status not in _REDIRECTS:
                    return self._judge(exchange)
                exchange.drop()
                url = redirected(url, exchange.location, exchange.status)
                self._check_host(url, named_by)
            raise Failed(f"redirects more than {MOST_REDIRECTS} times")
        except BaseException:
            release()
            raise

    def _idle(self, silence: float | None) -> float:
        limit = self.settings.body_idle_timeout
        return limit if silence is None else min(limit, silence)

    async def _send(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        """The response to one request, no redirect followed.  Raises Failed, or CancelledError when that is what happened."""
        target = sendable(url)
        standing = {"User-Agent": self._identity.user_agent}
        fields = {**standing, **headers, **self._credentials(url), **self._endpoints.headers(url)}
        watch = Watch(self._reactor, self.settings.first_byte_timeout)
        began = self._reactor.seconds()
        try:
            await self._endpoints.permit(url)
            agent = self._endpoints.agent(url, watch, self._pool)
            sent = Headers({name.encode("ascii"): [_on_the_wire(value)] for name, value in fields.items()})
            with self._identity.asking(self.name) as via:
                sent.setRawHeaders("Via", [via])
                request = agent.request(method.encode("ascii"), target, sent)
                response = await watch.begin(request)
        except Forbidden as error:
            raise Failed(str(error), blames=False) from error
        except Exception as error:  # whatever the HTTP client meets is a failure of this upstream
            if watch.late:
                raise Failed(f"no first byte within {self.settings.first_byte_timeout:g} s") from error
            if watch.left or cancelled(error):
                raise CancelledError from error
            raise Failed(reason(error, self.settings.connect_timeout)) from error
        finally:
            watch.end()
        self.measured(self._reactor.seconds() - began)
        return response

    def _judge(self, exchange: Exchange) -> Exchange:
        status = exchange.status
        if status < 400 or status == 416:
            return exchange
        exchange.drop()
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        words = f"answered {status} {phrase}".strip()
        if status in (404, 410):
            raise Missing(words, exchange.url)
        if status == 508:
            raise Looped(
                f"{words}: the setting upstream.{self.name}.url = {shown(self.settings.url)} points back at this proxy",
                blames=False,
            )
        if status in (401, 403):
            raise Failed(f"{words}: check the credentials of upstream.{self.name}", blames=False)
        if status == 407:
            raise Failed(f"{words}: check the credentials in upstream.{self.name}.outbound_proxy", blames=False)
        blames = status >= 500 or status == 429
        raise Failed(words, retry_after=self._retry_after(exchange), blames=blames, answered=True)

    def _retry_after(self, exchange: Exchange) -> float | None:
        """Seconds, from either form of ``Retry-After`` (RFC 9110 section 10.2.3)."""
        value = exchange.header("retry-after") if exchange.status in (429, 503) else None
        if value is None:
            return None
        if _SECONDS.fullmatch(value):
            return float(value)
        try:
            wait: float = parsedate_to_datetime(value[:_LONGEST_DATE]).timestamp() - self._clock()
            return max(0.0, wait)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None

    def measured(self, seconds: float) -> None:
        """Count an answer, or the lack of one so far, that took *seconds*."""
        known = self.latency
        self._latency = seconds if known is None else (1 - _WEIGHT) * known + _WEIGHT * seconds
        self._measured_at = self._reactor.seconds()

    def _credentials(self, url: str) -> dict[str, str]:
        """Credentials for the configured origin alone."""
        settings = self.settings
        headers = {}
        if origin_of(url) == self._home:
            if settings.token is not None:
                headers["Authorization"] = f"Bearer {settings.token}"
            elif settings.username is not None:
                secret = f"{settings.username}:{settings.password or ''}".encode()
                headers["Authorization"] = "Basic " + base64.b64encode(secret).decode("ascii")
        return headers

    def _check_host(self, url: str, named_by: str | None) -> None:
        """Raise Failed for a file, or what it is redirected to, on a host that the page *named_by* may not send us to."""
        origin = origin_of(url)
        if named_by is None or origin.host == self._home.host:
            return
        page = origin_of(named_by)
        if origin.host == page.host:
            return
        allowed = self.settings.file_hosts
        if allowed is not None and not host_allowed(origin.host, allowed):
            raise Failed(
                f"names the host {shown(origin.host)}, which upstream.{self.name}.file_hosts does not list", blames=False
            )
        if allowed is None and page.scheme == "https" and origin.scheme != "https":
            raise Failed(
                f"names {shown(url)} on an https page; http is followed only when file_hosts lists its host", blames=False
            )

    async def close(self) -> None:
        """Close idle connections."""
        await self._pool.closeCachedConnections()


def _on_the_wire(value: str) -> bytes:
    """The bytes of a header's value: those that came where it is one that upstream sent."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()

"""One upstream's HTTP: bounded connections, timeouts, redirects, credentials, health.

Theory of operation. A request takes a *slot*; files may hold at most three quarters of an upstream's slots, so that long
downloads never starve pages. Who waits for a slot waits in a bounded queue: a full one is an outage of this upstream.
Connecting, the first byte and silence in a body have each their own timeout; the total is bounded by progress alone.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from proxy.settings import KIB, UpstreamSettings
from proxy.upstream.body import Body
from proxy.upstream.connecting import Endpoints, Forbidden
from proxy.upstream.failures import Failed, Looped, Missing, reason
from proxy.upstream.health import Health, State
from proxy.upstream.identity import Identity
from proxy.upstream.origin import MOST_REDIRECTS, host_allowed, origin_of, redirected

#: The part of an upstream's connections that files may take.
_FOR_FILES = 0.75
#: How much one measurement counts in the running mean of the latency.
_WEIGHT = 0.2

#: A rest of a body that is cheaper to read than a connection is to make (bytes).
_SHORT = 64 * KIB

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
    lag: float | None


class _QuietFactory(HTTPConnectionPool._factory):  # type: ignore[misc,valid-type]  # twisted.web offers no other way
    """Makes client connections without a log line for each."""

    noisy = False


class _QuietPool(HTTPConnectionPool):
    _factory = _QuietFactory


class Exchange:
    """One response whose headers are in.  Its holder reads the body and must close it, which gives the slot back."""

    def __init__(self, url: str, response: Any, release: Callable[[], None], body: Callable[[], Body]) -> None:
        self.url = url
        self.status: int = response.code
        self._response = response
        self._release: Callable[[], None] | None = release
        self._make_body = body
        self._body: Body | None = None

    def header(self, name: str) -> str | None:
        values = self._response.headers.getRawHeaders(name)
        return values[-1] if values else None

    @property
    def stated_length(self) -> int | None:
        """``Content-Length``, which in the answer to a HEAD speaks of a body that does not come."""
        length = self.header("content-length") or ""
        return int(length) if length.isascii() and length.isdigit() else None

    @property
    def length(self) -> int | None:
        """Bytes the body will have on the wire, ``None`` when nobody said."""
        length = self._response.length
        return length if isinstance(length, int) else None

    @property
    def body(self) -> Body:
        if self._body is None:
            self._body = self._make_body()
            self._response.deliverBody(self._body)
        return self._body

    async def read(self, limit: int) -> bytes:
        """The whole body.  Raises Failed when it is larger than *limit* bytes, Broken when it was cut off."""
        chunks = []
        size = 0
        while chunk := await self.body.read():
            size += len(chunk)
            if size > limit:
                raise Failed(f"sent more than {limit:,} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        """End the exchange.  May be called more than once."""
        release, self._release = self._release, None
        if release is not None:
            self.drop()
            release()

    def drop(self) -> None:
        """Have no more of the body; a short one is let in to its end, so that the connection can be used again."""
        if self.length is not None and self.length - self.body.received <= _SHORT:
            self.body.discard()
        else:
            self.body.close()


class UpstreamClient:
    """The upstream of *settings*."""

    log = Logger()

    def __init__(self, settings: UpstreamSettings, *, reactor: Any, identity: Identity, rng: random.Random) -> None:
        self.settings = settings
        self.name = settings.name
        self.latency: float | None = None
        self.lag: float | None = None
        self.in_flight = 0
        self._reactor = reactor
        self._home = origin_of(settings.url)
        self._endpoints = Endpoints(settings, reactor)
        self._pool = _QuietPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = settings.max_connections
        self._pool.cachedConnectionTimeout = 30
        self._pool.retryAutomatically = True
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, self._pool)
        self._treq = HTTPClient(self._agent)
        self._all = DeferredSemaphore(settings.max_connections)
        self._files = DeferredSemaphore(max(1, int(settings.max_connections * _FOR_FILES)))
        self._next_turn = 0.0
        self._standing = {"User-Agent": identity.user_agent, "Via": identity.via_header(settings.name)}
        self.health = Health(reactor.seconds, rng, self._health_changed)

    # -- health ------------------------------------------------------------------------------------------------------------

    def _health_changed(self, old: State, new: State, why: str) -> None:
        if State.CLOSED not in (old, new):
            return  # a probe that failed changes nothing that anybody sees
        if new is State.CLOSED:
            self.log.info("upstream {name} is back: {why}", name=self.name, why=why)
        else:
            self.log.warn("upstream {name} is out: {why}; it is probed after growing pauses", name=self.name, why=why)

    def state(self) -> UpstreamState:
        health = self.health
        pause = health.retry_in()
        return UpstreamState(
            self.name,
            self.settings.url,
            health.state.value,
            health.all_failures,
            health.last_failure,
            health.last_failure_at,
            self.latency,
            self.in_flight,
            len(self._all.waiting) + len(self._files.waiting),
            self._reactor.seconds() + pause if pause > 0 else None,
            self.lag,
        )

    # -- requests ----------------------------------------------------------------------------------------------------------

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], *, file: bool = False, named_by: str | None = None
    ) -> Exchange:
        """Send a request and return its response, redirects followed.

        *file* requests leave room for pages.  *named_by* is the page that named *url*: another host than its own is asked only
        as ``file_hosts`` allows.  Raises Failed for everything but an answer below 400, Missing for 404 and 410.  Health is
        accounted for here, but for what the body turns out to be.
        """
        self._check_host(url, named_by)
        if not self.health.admit():
            raise Failed(f"is paused for {self.health.retry_in():.0f} s after: {self.health.last_failure}", blames=False)
        try:
            return await self._ask(method, url, headers, file)
        except Missing:
            self.health.succeeded()
            raise
        except Failed as error:
            if error.blames:
                self.health.failed(str(error), error.retry_after)
            else:
                self.health.abandoned()
            raise
        except CancelledError:
            self.health.abandoned()
            raise

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], file: bool) -> Exchange:
        release = await self._slot(file)
        try:
            for _ in range(MOST_REDIRECTS + 1):
                exchange = await self._send(method, url, headers, file, release)
                if exchange.status not in _REDIRECTS:
                    return self._judge(exchange)
                target = redirected(url, exchange.header("location"), exchange.status)
                exchange.drop()
                url = target
            raise Failed(f"redirects more than {MOST_REDIRECTS} times")
        except BaseException:
            release()
            raise

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
                f"{words}: the setting upstream.{self.name}.url = {self.settings.url} points back at this proxy", blames=False
            )
        if status in (401, 403):
            raise Failed(f"{words}: check the credentials of upstream.{self.name}", blames=False)
        raise Failed(words, retry_after=self._retry_after(exchange), blames=status >= 500 or status == 429)

    def _retry_after(self, exchange: Exchange) -> float | None:
        """Seconds, from either form of ``Retry-After`` (RFC 9110 section 10.2.3)."""
        value = exchange.header("retry-after") if exchange.status in (429, 503) else None
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            wait: float = parsedate_to_datetime(value).timestamp() - self._reactor.seconds()
            return max(0.0, wait)
        except ValueError:
            return None

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], file: bool, release: Callable[[], None]
    ) -> Exchange:
        sent = Headers({name: [value] for name, value in {**self._standing, **headers, **self._credentials(url)}.items()})
        began = self._reactor.seconds()
        target = url.encode("ascii", "strict") if url.isascii() else _quoted(url)
        request: Deferred[Any]
        try:
            if file:
                request = self._agent.request(method.encode("ascii"), target, sent)
            else:
                request = self._treq.request(
                    method, target.decode("ascii"), headers=sent, allow_redirects=False, unbuffered=True
                )
            timeout = self.settings.first_byte_timeout
            request.addTimeout(timeout, self._reactor)
            response = await request
        except CancelledError:
            raise
        except Forbidden as error:
            raise Failed(str(error), blames=False) from error
        except Exception as error:  # whatever the HTTP client meets is a failure of this upstream
            raise Failed(self._reason(error, self._reactor.seconds() - began)) from error
        self._measured(self._reactor.seconds() - began)
        idle = self.settings.body_idle_timeout
        return Exchange(url, response, release, lambda: Body(self._reactor, idle))

    def _reason(self, error: Exception, elapsed: float) -> str:
        if isinstance(error, DeferredTimeout):
            return f"no first byte within {self.settings.first_byte_timeout:g} s"
        return reason(error, self.settings.connect_timeout)

    def _measured(self, seconds: float) -> None:
        self.latency = seconds if self.latency is None else (1 - _WEIGHT) * self.latency + _WEIGHT * seconds

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
        origin = origin_of(url)
        if named_by is None or origin.host == self._home.host:
            return
        page = origin_of(named_by)
        if origin.host == page.host:
            return
        allowed = self.settings.file_hosts
        if allowed is not None and not host_allowed(origin.host, allowed):
            raise Failed(f"names the host {origin.host}, which upstream.{self.name}.file_hosts does not list", blames=False)
        if allowed is None and page.scheme == "https" and origin.scheme != "https":
            raise Failed(f"names {url!r} on an https page; http is followed only when file_hosts lists its host", blames=False)

    async def _slot(self, file: bool) -> Callable[[], None]:
        """Wait for a connection that may be used; the function that comes back gives it up (once)."""
        waiting = len(self._all.waiting) + len(self._files.waiting)
        if waiting >= self.settings.max_queue:
            raise Failed(f"has {waiting} requests waiting already (upstream.{self.name}.max_queue)", blames=False)
        if file:
            await self._files.acquire()
        try:
            await self._all.acquire()
            try:
                await self._turn()
            except BaseException:
                self._all.release()
                raise
        except BaseException:
            if file:
                self._files.release()
            raise
        self.in_flight += 1
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self.in_flight -= 1
                self._all.release()
                if file:
                    self._files.release()

        return release

    async def _turn(self) -> None:
        """Wait for this request's turn under ``max_rate``."""
        rate = self.settings.max_rate
        if rate is None:
            return
        now = self._reactor.seconds()
        # A second's worth of requests may go out at once.
        turn = max(self._next_turn, now - 1.0)
        self._next_turn = turn + 1.0 / rate
        if self._next_turn > now:
            await deferLater(self._reactor, self._next_turn - now)

    async def close(self) -> None:
        """Close idle connections."""
        await self._pool.closeCachedConnections()


def _quoted(url: str) -> bytes:
    """A URL with characters that have no place in one, as browsers send it."""
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]").encode("ascii")

"""One upstream's HTTP: requests to the addresses of its hosts, redirects followed, credentials added, failures named.

Theory of operation.  A request is sent to one address after another, at most :data:`MOST_ADDRESSES` of them, until one answers;
a silent one is not waited for to the end.  Connecting, the first byte and silence in a body have each their own timeout; the
total is bounded by progress alone.  Pages and files alike go through twisted.web's Agent: treq would undo content codings on
the reactor's thread, and without a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.error import DNSLookupError
from twisted.web.http_headers import Headers

from proxy.core.amounts import duration
from proxy.interfaces import Clock
from proxy.mechanism.flight import swallow
from proxy.mechanism.late import Late
from proxy.mechanism.request_ids import current_request_id
from proxy.mechanism.rotating import Observing, Rotating
from proxy.settings import UpstreamSettings
from proxy.simple.links import shown
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.credentials import Credentials
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Denied, Failed, Fault, Looped, Missing, cancelled, fault_of, reason
from proxy.upstream.http.guard import Forbidden
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import MOST_REDIRECTS, Origin, host_allowed, origin_of, redirected, sendable
from proxy.upstream.http.racing import race
from proxy.upstream.http.slots import Slot, Slots
from proxy.upstream.http.traffic import UpstreamTraffic
from proxy.upstream.http.trust import Trust

if TYPE_CHECKING:
    from proxy.upstream.http.body import IncomingBody
    from proxy.upstream.http.connecting import Endpoints, Line
    from proxy.upstream.http.heads import QuietPool

#: How much one measurement counts in the running mean of the latency, and how long that mean tells anything (seconds).
_WEIGHT = 0.2
_MEASURED_FOR = 300.0
#: Addresses of one host that one request is sent to at most.
MOST_ADDRESSES = 3
#: What statuses are evidence about; others are answers of no use.
_FAULTS = {429: Fault.THROTTLED, 502: Fault.BROKEN}

#: Seconds in ``Retry-After``, and the longest date that is looked at there (characters).
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,9})?")
_LONGEST_DATE = 64

_REDIRECTS = (301, 302, 303, 307, 308)


class _Answered(Struct, frozen=True):
    """A response to one request at one address, redirects not followed, which was sent at the time *began* (seconds)."""

    response: Any
    address: str | None
    began: float


class _Asked(Struct, frozen=True):
    """One request, whatever address it goes to."""

    attempt: Attempt
    place: Slot
    method: str
    url: str
    origin: Origin
    headers: Mapping[str, str]
    #: Addresses that have been asked, or could not be connected to.
    tried: set[str] = field(default_factory=set)


class Latency:
    """The running mean of the time to an answer's headers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mean: float | None = None
        self._measured_at = 0.0

    @property
    def seconds(self) -> float | None:
        """The mean, ``None`` when nothing has been measured for a while."""
        return self._mean if self._clock() - self._measured_at < _MEASURED_FOR else None

    def measured(self, seconds: float) -> None:
        """Count an answer, or the lack of one so far, that took *seconds*."""
        known = self.seconds
        self._mean = seconds if known is None else (1 - _WEIGHT) * known + _WEIGHT * seconds
        self._measured_at = self._clock()


class HttpClient:
    """Sends requests to the upstream of *settings*."""

    def __init__(
        self, settings: UpstreamSettings, *, reactor: Any, identity: Identity, clock: Clock, observing: Observing
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._reactor = reactor
        self._home = origin_of(settings.url)
        self._trust = Trust(settings, observing, self._reconnect)
        self._credentials = Credentials(settings, reactor, observing)
        # No start waits for twisted.web's client, which takes a while to load.
        self._endpoints = Late(self._made_endpoints)
        self._pool = Late(self._new_pool)
        self._identity = identity
        self._traffic = UpstreamTraffic(settings.name, observing.recorder, reactor.seconds)
        self.slots = Slots(settings, reactor)
        #: Told how long each answer took (seconds).
        self.latency = Latency(reactor.seconds)

    @property
    def rotating(self) -> tuple[Rotating[Any], ...]:
        """The files that have to be looked at regularly, if there are any."""
        return tuple(each for each in (self._trust.rotating, self._credentials.rotating) if each.files)

    @property
    def certificate_expires(self) -> float | None:
        """When the client certificate expires, in seconds since 1970; ``None`` without one."""
        return self._trust.expires

    def _made_endpoints(self) -> Endpoints:
        from proxy.upstream.http.connecting import Endpoints

        return Endpoints(self._settings, self._reactor, self._trust)

    def _new_pool(self) -> QuietPool:
        from proxy.upstream.http.heads import QuietPool

        pool = QuietPool(self._reactor, persistent=True)
        pool.maxPersistentPerHost = self._settings.max_connections
        pool.cachedConnectionTimeout = 30
        # What fails on a connection that has been idle is asked again below, which knows of addresses.
        pool.retryAutomatically = False
        return pool

    def _reconnect(self) -> None:
        """Use no connection again that is open now: it was made with another certificate, or checked by other authorities."""
        retired, self._pool = self._pool, Late(self._new_pool)
        if retired.made is not None:
            swallow(retired.made.retire())

    async def send(
        self, attempt: Attempt, place: Slot, method: str, url: str, headers: Mapping[str, str], named_by: str | None
    ) -> Exchange:
        """See :class:`proxy.upstream.http.attempt.RequestSender`."""
        for _ in range(MOST_REDIRECTS + 1):
            self._check_host(url, named_by)
            asked = _Asked(attempt, place, method, url, origin_of(url), headers)
            exchange = await self._authorised(asked)
            if exchange.status not in _REDIRECTS:
                return self._judge(exchange)
            exchange.close()
            target = redirected(url, exchange.location, exchange.status)
            if named_by is None and self._leads_away(target):
                words = f"redirects to the host {origin_of(target).host}, which its redirect_hosts does not list"
                raise Missing(f"{words} ({self._settings.table})", url)
            url = target
        raise Failed(f"redirects more than {MOST_REDIRECTS} times")

    async def _authorised(self, asked: _Asked) -> Exchange:
        """The answer; after a 401, the answer to the same request with other credentials, if their file has them by now."""
        sent = self._credentials.header(asked.url)
        exchange = self._exchange(asked, await self._anywhere(asked))
        if exchange.status != HTTPStatus.UNAUTHORIZED:
            return exchange
        exchange.close()
        if not await self._credentials.renewed(asked.url, sent):
            return exchange
        again = replace(asked, tried=set())
        return self._exchange(again, await self._anywhere(again))

    def _exchange(self, asked: _Asked, answered: _Answered) -> Exchange:
        place, silence = asked.place, asked.attempt.manner.silence
        limit = self._settings.body_idle_timeout
        reception = self._traffic.reception(answered.address, answered.began)

        def body() -> IncomingBody:
            from proxy.upstream.http.body import IncomingBody

            made = IncomingBody(self._reactor, limit if silence is None else min(limit, silence), reception)
            place.received = made.progress
            place.take_away = made.give_up
            return made

        return Exchange(asked.url, answered.response, answered.address, body, self._reactor.seconds)

    async def _anywhere(self, asked: _Asked) -> _Answered:
        """The answer of the first address that has one, of at most :data:`MOST_ADDRESSES`; no redirect followed.

        The next address is asked when one refuses, breaks the connection, answers 502, or is silent for too long.
        """
        permit, origin = asked.attempt.permit, asked.origin
        permit.toward(origin)
        addresses = permit.order(origin, await self._addresses(origin))[:MOST_ADDRESSES]
        asked.attempt.elsewhere = len(addresses) > 1
        if len(addresses) == 1:
            return await self._at(asked, addresses, last=True)
        chosen: list[str] = []
        failures: list[Failed] = []

        async def entrant(answering: Callable[[], None]) -> _Answered:
            left = [each for each in addresses if each not in asked.tried]
            if not left:
                raise failures[-1] if failures else Failed("has no other address to ask", fault=Fault.NO_EVIDENCE)
            number = len(chosen)
            chosen.append(left[0])
            asked.tried.add(left[0])
            try:
                return await self._at(asked, left, last=len(left) == 1, connected=lambda to: chosen.__setitem__(number, to))
            except Failed as error:
                failures.append(error)
                raise

        def overtaken(number: int) -> None:
            permit.address_failed(origin, chosen[number], False)

        stagger = (asked.attempt.manner.stagger or self._settings.first_byte_timeout) / len(addresses)
        answered = await race([entrant] * len(addresses), stagger, self._reactor, overtaken)
        if answered is None:
            raise failures[-1]
        return answered

    async def _addresses(self, origin: Origin) -> tuple[str, ...]:
        try:
            return await self._endpoints().addresses(origin.host)
        except Forbidden as error:
            raise Failed(str(error), fault=Fault.NO_EVIDENCE) from error
        except CancelledError:
            raise
        except Exception as error:  # whatever the resolver meets, the name has no address
            self._traffic.failed(None, Fault.UNRESOLVED)
            why = "" if isinstance(error, DNSLookupError) else f": {reason(error, self._settings.connect_timeout)}"
            raise Failed(f"the name {origin.host} cannot be resolved{why}", fault=Fault.UNRESOLVED) from error

    async def _at(
        self, asked: _Asked, addresses: list[str], *, last: bool, connected: Callable[[str], None] = lambda address: None
    ) -> _Answered:
        """The answer of the first of *addresses*, or of the one that accepts a connection if that does not.

        *connected* is told the address that a connection was made to.

        A 502 counts as an answer only where there is no other address: this is the *last*.
        """
        from proxy.upstream.http.connecting import Line, RequestTimers

        permit, origin, began = asked.attempt.permit, asked.origin, self._reactor.seconds()
        refused = False

        def unreachable(address: str, error: BaseException) -> None:
            nonlocal refused
            refused = True
            asked.tried.add(address)
            fault = fault_of(error, connected=False)
            self._traffic.failed(address, fault)
            if fault is not Fault.NO_EVIDENCE:
                permit.address_failed(origin, address, True)

        def reached(address: str) -> None:
            asked.tried.add(address)
            connected(address)

        line = Line(addresses, RequestTimers(self._reactor, self._settings.first_byte_timeout), unreachable, reached)
        try:
            response = await self._request(line, asked)
        except Failed as error:
            if line.address is not None or not refused:
                self._traffic.failed(line.address, error.fault)
            if line.address is not None:
                asked.tried.add(line.address)
                permit.address_failed(origin, line.address, error.fault is Fault.UNREACHABLE)
            raise
        except CancelledError:
            self._traffic.cancelled(line.address)
            raise
        self._traffic.answered(line.address, response.code, began)
        if response.code == HTTPStatus.BAD_GATEWAY and line.address is not None:
            asked.tried.add(line.address)
            permit.address_failed(origin, line.address, False)
            if not last:
                self._exchange(asked, _Answered(response, line.address, began)).close()
                raise Failed(f"answered 502 Bad Gateway at {line.address}", fault=Fault.BROKEN)
        permit.answered(origin, line.address, response.code)
        self.slots.answering()
        return _Answered(response, line.address, began)

    async def _request(self, line: Line, asked: _Asked) -> Any:
        """The response to one request on *line*.

        A connection that has been idle may have been closed by the other side just now: another one is taken then.
        """
        for _ in range(self._settings.max_connections):
            try:
                return await self._request_once(line, asked)
            except Failed as error:
                if line.watch.is_new or error.fault is not Fault.UNANSWERED or line.watch.late:
                    raise
            line.address = None
        return await self._request_once(line, asked)

    async def _request_once(self, line: Line, asked: _Asked) -> Any:
        url, target = asked.url, sendable(asked.url)
        standing = {"User-Agent": self._identity.user_agent}
        authorization = self._credentials.header(url)
        own = {} if authorization is None else {"Authorization": authorization}
        fields = {**standing, **asked.headers, **own, **self._endpoints().headers(url)}
        timeouts, watch = self._settings, line.watch
        given_up: list[Failed] = []
        began = self._reactor.seconds()
        asked.place.begin(began)
        try:
            agent = self._endpoints().agent(url, line, self._pool())
            sent = Headers({name.encode("ascii"): [_on_the_wire(value)] for name, value in fields.items()})
            with self._identity.asking(self._settings.name) as via:
                sent.setRawHeaders("Via", [via])
                if request_id := current_request_id.get():
                    sent.setRawHeaders("X-Request-ID", [request_id])
                request = agent.request(asked.method.encode("ascii"), target, sent)

                def take_away(why: Failed) -> None:
                    given_up.append(why)
                    request.cancel()

                asked.place.take_away = take_away
                response = await watch.begin(request)
        except Exception as error:  # whatever the HTTP client meets is a failure of this upstream
            if given_up:
                raise given_up[0] from error
            if watch.late:
                raise Failed(f"no first byte within {duration(timeouts.first_byte_timeout)}", fault=Fault.UNANSWERED) from error
            if watch.left or cancelled(error):
                raise CancelledError from error
            connected = line.address is not None
            raise Failed(reason(error, timeouts.connect_timeout), fault=fault_of(error, connected=connected)) from error
        finally:
            watch.end()
        self.latency.measured(self._reactor.seconds() - began)
        return response

    def _leads_away(self, url: str) -> bool:
        """Whether a page is redirected out of a private index: it must not silently become a public one (GitLab does that)."""
        settings, host = self._settings, origin_of(url).host
        private = settings.username or settings.token or settings.client_cert
        return bool(private) and host != self._home.host and not host_allowed(host, settings.redirect_hosts or ())

    def _judge(self, exchange: Exchange) -> Exchange:
        status = exchange.status
        if status < 400 or status == 416:
            return exchange
        exchange.close()
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
        words, name = f"answered {status} {phrase}".strip(), self._settings.table
        if status in (404, 410) or (status == HTTPStatus.FORBIDDEN and self._settings.forbidden == "missing"):
            raise Missing(words, exchange.url)
        if status == HTTPStatus.FORBIDDEN and self._settings.forbidden == "auto":
            raise Denied(f"{words}: check the credentials of {name}")
        if status == 508:
            raise Looped(f"{words}: the setting {name}.url = {shown(self._settings.url)} points back at this proxy")
        if status in (401, 403):
            raise Failed(f"{words}: check the credentials of {name}", fault=Fault.CREDENTIALS, status=status)
        if status == 407:
            raise Failed(f"{words}: check the credentials in {name}.outbound_proxy", fault=Fault.CREDENTIALS)
        raise Failed(words, retry_after=self._retry_after(exchange), fault=_FAULTS.get(status, Fault.USELESS), status=status)

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

    def _check_host(self, url: str, named_by: str | None) -> None:
        """Raise Failed for a file, or what it is redirected to, on a host that the page *named_by* may not send us to."""
        origin = origin_of(url)
        if named_by is None or origin.host == self._home.host:
            return
        page = origin_of(named_by)
        if origin.host == page.host:
            return
        allowed = self._settings.file_hosts
        if allowed is not None and not host_allowed(origin.host, allowed):
            raise Failed(
                f"names the host {origin.host}, which {self._settings.table}.file_hosts does not list",
                fault=Fault.NO_EVIDENCE,
            )
        if allowed is None and page.scheme == "https" and origin.scheme != "https":
            raise Failed(
                f"names {shown(url)} on an https page; http is followed only when file_hosts lists its host",
                fault=Fault.NO_EVIDENCE,
            )

    async def close(self) -> None:
        """Close idle connections, and those that become idle."""
        if self._pool.made is not None:
            await self._pool.made.retire()


def _on_the_wire(value: str) -> bytes:
    """The bytes of a header's value: those that came where it is one that upstream sent."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()

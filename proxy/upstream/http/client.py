"""One upstream's HTTP: requests to the addresses of its hosts, redirects followed, credentials added, failures named.

Theory of operation.  A request is sent to one address after another, at most :data:`MOST_ADDRESSES` of them, until one answers;
a silent one is not waited for to the end.  Connecting, the first byte and silence in a body have each their own timeout; the
total is bounded by progress alone.  A connection that has been idle may have been closed by the other side just now; what fails
on one before any answer is asked again on another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed, DNSLookupError

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
from proxy.upstream.http.failures import (
    UNFINISHED,
    Denied,
    Failed,
    Fault,
    Looped,
    Missing,
    connecting_cancelled,
    fault_of,
    reason,
)
from proxy.upstream.http.guard import Forbidden
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import MOST_REDIRECTS, Origin, host_allowed, origin_of, redirected, target_of
from proxy.upstream.http.racing import race
from proxy.upstream.http.slots import Slot, Slots
from proxy.upstream.http.traffic import UpstreamTraffic
from proxy.upstream.http.trust import Trust

if TYPE_CHECKING:
    from proxy.upstream.http.body import IncomingBody
    from proxy.upstream.http.connecting import Endpoints
    from proxy.upstream.http.connection import Connection, UpstreamResponse
    from proxy.upstream.http.reuse import ConnectionPool

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

#: What no line of a head has inside.
_NO_LINE = re.compile(r"[\r\n\0]+")

_REDIRECTS = (301, 302, 303, 307, 308)


class _Answered(Struct, frozen=True):
    """A response to one request at one address, redirects not followed, which was sent at the time *began* (seconds)."""

    response: UpstreamResponse
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


class _Retried(Exception):
    """A connection that had been idle was of no use for a request, which may be sent on another one."""


class _Way:
    """What one request at the first of *addresses* finds out on its way: how far it has come, and where to."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        #: The address that the connection is to, once there is one; ``None`` also where that is the outbound proxy's.
        self.address: str | None = None
        #: Whether an address has accepted no connection.
        self.refused = False


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
        # No start waits for what connections are made with.
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

    def _new_pool(self) -> ConnectionPool:
        from proxy.upstream.http.reuse import ConnectionPool

        return ConnectionPool(self._reactor, self._settings.max_connections)

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

            made = IncomingBody(limit if silence is None else min(limit, silence), reception)
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
        known = self._endpoints().known_addresses(origin.host)
        if known is not None:
            return known
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
        permit, origin, began = asked.attempt.permit, asked.origin, self._reactor.seconds()
        way = _Way(addresses)

        def reached(address: str) -> None:
            way.address = address
            asked.tried.add(address)
            connected(address)

        try:
            response = await self._request(asked, way, reached)
        except Failed as error:
            if way.address is not None or not way.refused:
                self._traffic.failed(way.address, error.fault)
            if way.address is not None:
                asked.tried.add(way.address)
                permit.address_failed(origin, way.address, error.fault is Fault.UNREACHABLE)
            raise
        except CancelledError:
            self._traffic.cancelled(way.address)
            raise
        status, address = response.head.status, way.address
        self._traffic.answered(address, status, began)
        if status == HTTPStatus.BAD_GATEWAY and address is not None:
            asked.tried.add(address)
            permit.address_failed(origin, address, False)
            if not last:
                self._exchange(asked, _Answered(response, address, began)).close()
                raise Failed(f"answered 502 Bad Gateway at {address}", fault=Fault.BROKEN)
        permit.answered(origin, address, status)
        self.slots.answering()
        return _Answered(response, address, began)

    async def _request(self, asked: _Asked, way: _Way, reached: Callable[[str], None]) -> UpstreamResponse:
        """The response to one request, on an idle connection or a new one; *reached* is told the address that it is to."""
        from proxy.upstream.http.connecting import THE_PROXY

        number = self._identity.asking()
        try:
            request = self._request_head(asked, number)
            pool, first = self._pool(), way.addresses[0]
            direct = first != THE_PROXY
            while (connection := pool.take((asked.origin, first))) is not None:
                if direct:
                    reached(first)
                try:
                    return await self._ask(connection, request, asked, self._begin(asked), reused=True)
                except _Retried:
                    way.address = None
            began = self._begin(asked)
            connection = await self._connect(asked, way, pool)
            address = connection.address if direct else first
            if direct:
                reached(address)
            connection.key = asked.origin, address
            return await self._ask(connection, request, asked, began, reused=False)
        finally:
            self._identity.asked(number)
            asked.place.take_away = _nothing_to_take

    def _begin(self, asked: _Asked) -> float:
        """A request is about to be sent; returns the time."""
        now: float = self._reactor.seconds()
        asked.place.begin(now)
        return now

    async def _connect(self, asked: _Asked, way: _Way, pool: ConnectionPool) -> Connection:
        """A new connection to one of the addresses of *way*."""
        from proxy.upstream.http.connection import ConnectionFactory

        given_up: list[Failed] = []

        def unreachable(address: str, error: BaseException) -> None:
            way.refused = True
            asked.tried.add(address)
            fault = fault_of(error, connected=False)
            self._traffic.failed(address, fault)
            if fault is not Fault.NO_EVIDENCE:
                asked.attempt.permit.address_failed(asked.origin, address, True)

        def take_away(why: Failed) -> None:
            given_up.append(why)
            connecting.cancel()

        try:
            factory = ConnectionFactory(self._reactor, pool)
            connecting = self._endpoints().connect(asked.origin, way.addresses, unreachable, factory)
            asked.place.take_away = take_away
            connection: Connection = await connecting
        except Exception as error:  # whatever connecting meets is a failure of this upstream
            if given_up:
                raise given_up[0] from error
            if connecting_cancelled(error):
                raise CancelledError from error
            raise Failed(reason(error, self._settings.connect_timeout), fault=fault_of(error, connected=False)) from error
        return connection

    async def _ask(
        self, connection: Connection, request: bytes, asked: _Asked, began: float, *, reused: bool
    ) -> UpstreamResponse:
        """The response to *request* on *connection*, which has begun at *began* (seconds).

        Raises _Retried where that had been idle and gives no answer.
        """
        from proxy.upstream.http.connection import TooLate

        limit = self._settings.first_byte_timeout
        asked.place.take_away = connection.give_up
        try:
            response = await connection.ask(request, asked.method, limit)
        except (Failed, CancelledError):
            raise
        except TooLate as error:
            raise Failed(f"no first byte within {duration(limit)}", fault=Fault.UNANSWERED) from error
        except Exception as error:  # whatever a connection meets is a failure of this upstream
            fault = fault_of(error, connected=True)
            if reused and fault is Fault.UNANSWERED:
                raise _Retried from error
            words = UNFINISHED if isinstance(error, ConnectionClosed) else reason(error, self._settings.connect_timeout)
            raise Failed(words, fault=fault) from error
        self.latency.measured(self._reactor.seconds() - began)
        return response

    def _request_head(self, asked: _Asked, number: str) -> bytes:
        """The request as it is sent; *number* is its own in ``Via``."""
        endpoints, target = self._endpoints(), target_of(asked.url)
        lines = [
            f"{asked.method} {endpoints.form(target)} HTTP/1.1",
            f"Host: {target.host}",
            f"User-Agent: {self._identity.user_agent}",
            *[f"{name}: {value}" for name, value in asked.headers.items()],
            f"Via: {self._identity.entry(self._settings.name, number)}",
        ]
        if (authorization := self._credentials.header(asked.url)) is not None:
            lines.append(f"Authorization: {authorization}")
        if (authorization := endpoints.authorization(target.origin)) is not None:
            lines.append(f"Proxy-Authorization: {authorization}")
        if request_id := current_request_id.get():
            lines.append(f"X-Request-ID: {request_id}")
        return request_bytes(lines)

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


def _nothing_to_take(why: Failed) -> None:
    """Between two requests, and before somebody reads the body, there is nothing to give up."""


def request_bytes(lines: Sequence[str]) -> bytes:
    """A head of *lines*, whatever is in them: none of them can be two, and what came from upstream goes back as it came."""
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        lines = [_NO_LINE.sub(" ", each) for each in lines]
        text = "\r\n".join(lines)
    try:
        return f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        return b"\r\n".join([*map(_on_the_wire, lines), b"", b""])


def _on_the_wire(line: str) -> bytes:
    """The bytes of a line: those that came where its value is one that upstream sent."""
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode()

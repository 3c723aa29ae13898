"""One upstream's HTTP: requests to the addresses of its hosts, redirects followed, credentials added, failures named.

Theory of operation.  A request is sent to one address after another, at most :data:`MOST_ADDRESSES` of them, until one answers;
a silent one is not waited for to the end.  Connecting, the first byte and silence in a body have each their own timeout; the
total is bounded by progress alone.  What happens at one address is the business of :mod:`proxy.upstream.http.transport`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.error import DNSLookupError

from proxy.interfaces import Clock
from proxy.mechanism.flight import swallow
from proxy.mechanism.late import Late
from proxy.mechanism.rotating import Observing, Rotating
from proxy.settings import UpstreamSettings
from proxy.simple.links import shown
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.credentials import Credentials
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import (
    Denied,
    Failed,
    Fault,
    Looped,
    Missing,
    reason,
)
from proxy.upstream.http.guard import Forbidden
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import MOST_REDIRECTS, Origin, host_allowed, origin_of, redirected
from proxy.upstream.http.racing import race
from proxy.upstream.http.slots import Slot, Slots
from proxy.upstream.http.traffic import UpstreamTraffic
from proxy.upstream.http.transport import HttpTransport, Latency, OutgoingRequest, Way
from proxy.upstream.http.trust import Trust

if TYPE_CHECKING:
    from proxy.upstream.http.body import IncomingBody
    from proxy.upstream.http.connection import UpstreamResponse

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

    response: UpstreamResponse
    address: str | None
    began: float


class HttpClient:
    """Sends requests to the upstream of *settings*."""

    def __init__(
        self, settings: UpstreamSettings, *, reactor: Any, identity: Identity, clock: Clock, observing: Observing
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._reactor = reactor
        self._home = origin_of(settings.url)
        self._body = Late(_body_class)
        self._trust = Trust(settings, observing, self._reconnect)
        self._credentials = Credentials(settings, reactor, observing)
        self._traffic = UpstreamTraffic(settings.name, observing.recorder, reactor.seconds)
        self.slots = Slots(settings, reactor)
        #: Told how long each answer took (seconds).
        self.latency = Latency(reactor.seconds)
        self._transport = HttpTransport(settings, reactor, identity, self._credentials, self._trust, self.latency)

    @property
    def rotating(self) -> tuple[Rotating[Any], ...]:
        """The files that have to be looked at regularly, if there are any."""
        return tuple(each for each in (self._trust.rotating, self._credentials.rotating) if each.files)

    @property
    def certificate_expires(self) -> float | None:
        """When the client certificate expires, in seconds since 1970; ``None`` without one."""
        return self._trust.expires

    def _reconnect(self) -> None:
        """Use no connection again that is open now: it was made with another certificate, or checked by other authorities."""
        swallow(self._transport.retire())

    async def send(
        self, attempt: Attempt, place: Slot, method: str, url: str, headers: Mapping[str, str], named_by: str | None
    ) -> Exchange:
        """See :class:`proxy.upstream.http.attempt.RequestSender`."""
        for _ in range(MOST_REDIRECTS + 1):
            self._check_host(url, named_by)
            asked = OutgoingRequest(attempt, place, method, url, origin_of(url), headers)
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

    async def _authorised(self, asked: OutgoingRequest) -> Exchange:
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

    def _exchange(self, asked: OutgoingRequest, answered: _Answered) -> Exchange:
        place, silence = asked.place, asked.attempt.manner.silence
        limit = self._settings.body_idle_timeout
        reception = self._traffic.reception(answered.address, answered.began)

        def body() -> IncomingBody:
            made = self._body()(limit if silence is None else min(limit, silence), reception)
            place.received = made.progress
            place.take_away = made.give_up
            return made

        return Exchange(asked.url, answered.response, answered.address, body, self._reactor.seconds)

    async def _anywhere(self, asked: OutgoingRequest) -> _Answered:
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
        known = self._transport.known_addresses(origin.host)
        if known is not None:
            return known
        try:
            return await self._transport.addresses(origin.host)
        except Forbidden as error:
            raise Failed(str(error), fault=Fault.NO_EVIDENCE) from error
        except CancelledError:
            raise
        except Exception as error:  # whatever the resolver meets, the name has no address
            self._traffic.failed(None, Fault.UNRESOLVED)
            why = "" if isinstance(error, DNSLookupError) else f": {reason(error, self._settings.connect_timeout)}"
            raise Failed(f"the name {origin.host} cannot be resolved{why}", fault=Fault.UNRESOLVED) from error

    async def _at(
        self, asked: OutgoingRequest, addresses: list[str], *, last: bool, connected: Callable[[str], None] | None = None
    ) -> _Answered:
        """The answer of the first of *addresses*, or of the one that accepts a connection if that does not.

        *connected* is told the address that a connection was made to.

        A 502 counts as an answer only where there is no other address: this is the *last*.
        """
        permit, origin, began = asked.attempt.permit, asked.origin, self._reactor.seconds()
        way = Way(asked, addresses, connected)

        def unreachable(address: str, fault: Fault) -> None:
            self._traffic.failed(address, fault)
            if fault is not Fault.NO_EVIDENCE:
                permit.address_failed(origin, address, True)

        try:
            response = await self._transport.request(way, unreachable)
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
        await self._transport.retire()


def _body_class() -> type[IncomingBody]:
    """No start waits for it."""
    from proxy.upstream.http.body import IncomingBody

    return IncomingBody

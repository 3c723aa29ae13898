"""One request to one address of an origin, on a connection that is idle or a new one.

Theory of operation.  Making a connection has a timeout of its own, a tunnel included; from then on the first byte has one.
A connection that has been idle may have been closed by the other side just now: what has no answer on one is sent on the
next, and at last on a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionClosed

from proxy.core.amounts import duration
from proxy.mechanism.late import Late
from proxy.mechanism.request_ids import current_request_id
from proxy.settings import UpstreamSettings
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.credentials import Credentials
from proxy.upstream.http.failures import UNFINISHED, Failed, Fault, TooLate, connecting_cancelled, fault_of, reason
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import Origin, target_of
from proxy.upstream.http.slots import Slot
from proxy.upstream.http.trust import Trust

if TYPE_CHECKING:
    from proxy.upstream.http.connecting import Endpoints
    from proxy.upstream.http.connection import Connection, UpstreamResponse
    from proxy.upstream.http.parsing import ResponseHead
    from proxy.upstream.http.reuse import ConnectionPool

#: How much one measurement counts in the running mean of the latency, and how long that mean tells anything (seconds).
_WEIGHT = 0.2
_MEASURED_FOR = 300.0
#: Stands for the addresses of a host that is asked through an outbound proxy: there is one.
THE_PROXY = "the outbound proxy"
#: What no line of a head has inside.
_NO_LINE = re.compile(r"[\r\n\0]+")


class OutgoingRequest(Struct, frozen=True):
    """One request, whatever address it goes to."""

    attempt: Attempt
    place: Slot
    method: str
    url: str
    origin: Origin
    headers: Mapping[str, str]
    #: Addresses that have been asked, or could not be connected to.
    tried: set[str] = field(default_factory=set)


class Way:
    """How far a request has come that goes to the first of *addresses*, or to one that accepts a connection if that does not.

    *connected* is told the address that its connection is to.
    """

    def __init__(self, asked: OutgoingRequest, addresses: Sequence[str], connected: Callable[[str], None] | None) -> None:
        self.asked = asked
        self.addresses = addresses
        #: The address that the connection is to, once there is one; ``None`` also where that is the outbound proxy's.
        self.address: str | None = None
        #: Whether an address has accepted no connection.
        self.refused = False
        self._connected = connected

    def reached(self, address: str) -> None:
        """The connection is to *address*."""
        if address == THE_PROXY:
            return
        self.address = address
        self.asked.tried.add(address)
        if self._connected is not None:
            self._connected(address)


class _Retried(Exception):
    """A connection that had been idle was of no use for a request, which may be sent on another one."""


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


class HttpTransport:
    """Sends the requests for the upstream of *settings*, each to one address; *latency* is told how long the answers took."""

    def __init__(
        self,
        settings: UpstreamSettings,
        reactor: Any,
        identity: Identity,
        credentials: Credentials,
        trust: Trust,
        latency: Latency,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._identity = identity
        self._credentials = credentials
        self._trust = trust
        self._latency = latency
        # No start waits for what connections are made with.
        self._endpoints = Late(self._made_endpoints)
        self._pool = Late(self._new_pool)

    def _made_endpoints(self) -> Endpoints:
        from proxy.upstream.http.connecting import Endpoints

        return Endpoints(self._settings, self._reactor, self._trust)

    def _new_pool(self) -> ConnectionPool:
        from proxy.upstream.http.reuse import ConnectionPool

        return ConnectionPool(self._reactor, self._settings.max_connections)

    def retire(self) -> Deferred[None]:
        """Use no connection again that is open now; fires when those that are idle have been closed."""
        retired, self._pool = self._pool, Late(self._new_pool)
        return succeed(None) if retired.made is None else retired.made.retire()

    def known_addresses(self, host: str) -> tuple[str, ...] | None:
        """What :meth:`addresses` gives, if it is known without looking anything up."""
        return self._endpoints().known_addresses(host)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """See :meth:`proxy.upstream.http.connecting.Endpoints.addresses`."""
        return await self._endpoints().addresses(host)

    async def request(self, way: Way, unreachable: Callable[[str, Fault], None]) -> UpstreamResponse:
        """The response to the request on *way*; *unreachable* is told of each address that accepts no connection.

        Raises Failed.
        """
        asked, first = way.asked, way.addresses[0]
        number = self._identity.asking()
        try:
            request = self._request_head(asked, number)
            pool = self._pool()
            while (connection := pool.take((asked.origin, first))) is not None:
                way.reached(first)
                try:
                    return await self._ask(connection, request, asked, self._begin(asked), reused=True)
                except _Retried:
                    way.address = None
            began = self._begin(asked)
            connection = await self._connect(way, pool, unreachable)
            address = first if first == THE_PROXY else connection.address
            # An address can be written in several ways; it is asked for as it was resolved.
            connection.key = asked.origin, address if address in way.addresses else first
            way.reached(address)
            return await self._ask(connection, request, asked, began, reused=False)
        finally:
            self._identity.asked(number)

    def _begin(self, asked: OutgoingRequest) -> float:
        """A request is about to be sent; returns the time."""
        now: float = self._reactor.seconds()
        asked.place.begin(now)
        return now

    async def _connect(self, way: Way, pool: ConnectionPool, unreachable: Callable[[str, Fault], None]) -> Connection:
        """A new connection to one of the addresses of *way*."""
        from proxy.upstream.http.connection import ConnectionFactory

        place, given_up = way.asked.place, list[Failed]()

        def failed(address: str, error: BaseException) -> None:
            way.refused = True
            way.asked.tried.add(address)
            unreachable(address, fault_of(error, connected=False))

        def take_away(why: Failed) -> None:
            given_up.append(why)
            connecting.cancel()

        try:
            factory = ConnectionFactory(self._reactor, pool)
            connecting = self._endpoints().connect(way.asked.origin, way.addresses, failed, factory)
            place.take_away = take_away
            connection: Connection = await connecting
        except Exception as error:  # whatever connecting meets is a failure of this upstream
            if given_up:
                raise given_up[0] from error
            if connecting_cancelled(error):
                raise CancelledError from error
            raise Failed(reason(error, self._settings.connect_timeout), fault=fault_of(error, connected=False)) from error
        return connection

    async def _ask(
        self, connection: Connection, request: bytes, asked: OutgoingRequest, began: float, *, reused: bool
    ) -> UpstreamResponse:
        """The response to *request* on *connection*, which has begun at *began* (seconds).

        Raises _Retried where that had been idle and gives no answer, or one that says that no request had come on it.
        """
        limit, place = self._settings.first_byte_timeout, asked.place
        place.take_away = take_away = connection.give_up
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
        finally:
            # The connection may serve another request now.
            if place.take_away is take_away:
                place.take_away = _nothing_to_take
        if reused and _came_before(response.head):
            response.stop()
            raise _Retried
        self._latency.measured(self._reactor.seconds() - began)
        return response

    def _request_head(self, asked: OutgoingRequest, number: str) -> bytes:
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


def _came_before(head: ResponseHead) -> bool:
    """Whether *head* was sent when the connection had been idle for long, and not for a request (RFC 9110 section 15.5.9)."""
    return head.status == HTTPStatus.REQUEST_TIMEOUT and "close" in (head.last("connection") or "").lower()


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

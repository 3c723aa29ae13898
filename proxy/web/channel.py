"""One client connection: bytes become requests, and answers become bytes (RFC 9112).

Theory of operation.  :mod:`proxy.web.connection` has the states and what follows from each event; a :class:`Channel` tells the
table what happens, and does what it says.  It gathers one request head at a time, which :func:`proxy.web.heads.read` parses,
and asks for the answer where it costs least: the table of requests seen before, the same request under way, then a route.  What
comes of further requests meanwhile is held, a little of it; then nothing more is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from OpenSSL.SSL import Error as TlsError
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.core.amounts import duration
from proxy.core.events import ShedReason
from proxy.core.shedding import LoadShed
from proxy.errors import ProxyError, SlowRequest
from proxy.mechanism.deadlines import Deadline
from proxy.mechanism.transports import is_plain_socket, send_now, undelivered
from proxy.web import connection as table
from proxy.web import heads
from proxy.web.bodies import RequestBody
from proxy.web.connection import HEAD_WITHIN, LINGERS_AT_MOST, ConnectionAction, ConnectionEvent, ConnectionState, Limit
from proxy.web.essence import Habit
from proxy.web.heads import RequestHead
from proxy.web.hot import Hit
from proxy.web.incoming import Incoming, TlsSpoken
from proxy.web.responding import PIECE, Cancellable, Response
from proxy.web.user_agents import UserAgent

if TYPE_CHECKING:
    from proxy.web.connections import BoundedSite

#: What connections beyond the limit may ask for in any case.
PROBES = frozenset({b"/-/live", b"/-/ready", b"/-/metrics"})

_log = Logger(namespace="proxy.web")

#: What each request on the shortest way needs: in Python 3.11 a member of an enumeration takes longer to find than a header.
_IDLE, _ANSWERED, _NOTHING = ConnectionState.IDLE, ConnectionEvent.ANSWERED, ConnectionAction.NOTHING


@implementer(IPushProducer)
class Channel(Protocol):
    """One client connection of *site*."""

    transport: ITransport

    def __init__(self, site: BoundedSite) -> None:
        self.site = site
        self.state = ConnectionState.IDLE
        #: The client, as far as the connection tells, and who asked last.
        self._connected = self._caller = site.front.callers.at("-", "-")
        #: What has come and belongs to no request yet.
        self._held = Incoming()
        self._habit = Habit()
        #: The answer under way, what ends when it is cancelled, and the body of its request.
        self._response: Response | None = None
        self._work: Cancellable | None = None
        self._body: RequestBody | None = None
        self._closes = False
        self._deadline = Deadline(site.clock, self._overdue)
        self._lingers_until = 0.0
        #: What was not sent yet when that was looked at last, and when it was found to have become less.
        self._unsent, self._moved_at = 0, 0.0
        #: Whether :meth:`_go_on` is at work further down the stack.
        self._going_on = False
        self._reads = True
        #: Whether anything has come; over TLS, whether that has been agreed upon.
        self._spoke = False

    def connectionMade(self) -> None:
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        self.introduce()
        self._caller = self._connected
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every stream transport is a consumer
        self._deadline.set(self.site.limits[table.LIMITS[ConnectionState.IDLE]])
        self.site.joined(self)

    def introduce(self) -> None:
        """Find out anew who the client is, as far as the connection tells."""
        transport = self.transport
        peer, own = (getattr(end, "host", None) or "-" for end in (transport.getPeer(), transport.getHost()))
        self._connected = self.site.front.callers.at(peer, own, secure=ISSLTransport.providedBy(transport))

    # -- the states

    def _happened(self, event: ConnectionEvent) -> None:
        """Go to the next state, and do what that asks for."""
        before = self.state
        state, action = table.TRANSITIONS[before, event]
        if state is not before or event is _ANSWERED:
            self.state = state
            self._deadline.set(self.site.limits[table.LIMITS[state]])
            if event is _ANSWERED or table.STANDINGS[state] is not table.STANDINGS[before]:
                self.site.moved(self, table.STANDINGS[state])
        if action is _NOTHING:
            return
        if action is ConnectionAction.TAKE_NEXT:
            self._go_on()
        elif action is ConnectionAction.REFUSE:
            self._refuse(SlowRequest(f"the request was not complete {duration(HEAD_WITHIN)} after its first byte"))
        elif action is ConnectionAction.ABORT:
            if before is ConnectionState.SENDING:
                _log.info("{client} took no byte and is dropped", client=self._connected.address)
            self.abort()
        else:
            self._close(lingering=action is ConnectionAction.LINGER)

    def _overdue(self) -> None:
        """The state has lasted for its limit, which begins anew as long as a client takes what it is sent."""
        if self.state in table.EMPTYING:
            left, now = undelivered(self.transport), self.site.clock.seconds()
            moves = left < self._unsent
            if moves:
                self._unsent, self._moved_at = left, now
            if moves or (left and now - self._moved_at < self.site.front.patience.stall_timeout):
                self._deadline.set(self.site.limits[table.LIMITS[self.state]])
                return
        self._happened(ConnectionEvent.OVERDUE)

    def _close(self, *, lingering: bool) -> None:
        """Close when all is sent; *lingering*: end the stream then, and close when the client does."""
        transport = self.transport
        self._unsent, self._moved_at = undelivered(transport), self.site.clock.seconds()
        transport.unregisterProducer()  # type: ignore[attr-defined]  # every stream transport is a consumer
        self.regulate()
        if lingering:
            self._held.take()
            self._lingers_until = self._moved_at + LINGERS_AT_MOST
        if lingering and is_plain_socket(transport):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def regulate(self) -> None:
        """Read, or let what comes wait in the system."""
        reads = self.state in table.READING and (
            self.state is not ConnectionState.ANSWERING or len(self._held) <= heads.LONGEST
        )
        if reads is not self._reads:
            self._reads = reads
            transport: IPushProducer = self.transport  # type: ignore[assignment]  # every stream transport is one
            if reads:
                transport.resumeProducing()
            else:
                transport.pauseProducing()

    # -- requests

    def dataReceived(self, data: bytes) -> None:
        state = self.state
        self._spoke = True
        if state is _IDLE and not self._held and self.site.as_before:
            front = self.site.front
            self._caller = caller = front.callers.of(data, self._connected)
            leader = front.sharing.seen(data)
            if (leader is None or leader.known) and (found := front.hot.seen(data, caller, self._habit)) is not None:
                self._send(*found, data)
                return
            if leader is not None:
                self._closes = leader.closes
                self._happened(ConnectionEvent.ASKED)
                secure = ISSLTransport.providedBy(self.transport)
                front.followers.follow(leader, leader.head, caller, self, secure=secure)
                return
        if state in table.DISCARDING:
            if state is ConnectionState.LINGERING and self.site.clock.seconds() < self._lingers_until:
                self._deadline.set(self.site.limits[Limit.LINGER])  # the client is still there
            return
        self._held.add(data)
        if self._body is not None:
            self._body.more()
        self._go_on()

    def _go_on(self) -> None:
        """Take what requests there are, one after the other."""
        if self._going_on:
            return
        self._going_on = True
        try:
            while self.state in table.READY and (raw := self._next()) is not None:
                self._take(raw)
        finally:
            self._going_on = False
        self.regulate()

    def _next(self) -> bytes | None:
        """The next head if all of it has come."""
        try:
            raw = self._held.next_head()
        except TlsSpoken as error:
            self.site.spoken_tls(self._connected.address)
            self.write(self.site.front.refusal(error))
            self._happened(ConnectionEvent.CUT_SHORT)
            return None
        except ProxyError as error:
            self._refuse(error)
            return None
        if raw is None and self._held.has_begun:
            self._happened(ConnectionEvent.BEGUN)
        return raw

    def _take(self, raw: bytes) -> None:
        """Answer the request with the head *raw*, or begin to."""
        head = None
        self._caller = caller = self.site.front.callers.of(raw, self._connected)
        try:
            head = heads.read(raw)
            front = self.site.front
            # What a request was answered with before says that the connection goes on.
            found = None if self.site.stopping else front.hot.answer(head, caller)
            if not self.site.has_room and head.target not in PROBES and (found is None or not self.site.has_reserve):
                raise LoadShed(
                    ShedReason.CONNECTIONS,
                    f"this proxy answers {self.site.limit} requests at once (server.max_connections), and there are as many",
                )
        except ProxyError as error:
            self._refuse(error, head)
            return
        if found is None:
            self._body = RequestBody(head, self._held, self, self.site.clock) if head.has_body else None
            self._asked(head)
            front.serve(head, caller, self, secure=ISSLTransport.providedBy(self.transport), body=self._body)
        else:
            self._send(*found, raw)

    def _asked(self, head: RequestHead) -> None:
        """The request *head* has come, which takes more than one write to answer."""
        self._closes = head.closes
        self._happened(ConnectionEvent.ASKED)

    def _refuse(self, error: ProxyError, head: RequestHead | None = None) -> None:
        """Answer *error* and end the connection.  Without a *head* nobody knows who asks."""
        if head is None:
            self._caller = self._connected
        self.write(self.site.front.turn_away(error, head, self._caller))
        self._happened(ConnectionEvent.CUT_SHORT)

    # -- answers

    def _send(self, hit: Hit, user_agent: UserAgent, raw: bytes) -> None:
        """Answer the request of *user_agent* with the head *raw* with *hit*."""
        body = hit.body
        if body is None or len(body) > PIECE:
            head = heads.read(raw)
            self._asked(head)
            self.site.front.repeat(hit, head, self._caller, self, secure=ISSLTransport.providedBy(self.transport))
            return
        self.write(hit.head + body)
        self._happened(_ANSWERED)
        self.site.front.responses.at_once(hit, user_agent, self._caller, raw)

    def write(self, data: bytes) -> None:
        """Send *data* at once, or as soon as the transport takes it."""
        rest = send_now(self.transport, data)
        if rest:
            self.transport.write(rest)

    @property
    def blocked(self) -> bool:
        """Whether the transport wants no more bytes at present."""
        return self.state is ConnectionState.BLOCKED

    def wait(self, work: Cancellable) -> None:
        """The answer to the present request is waited for, until *work* is cancelled: when the client leaves."""
        self._work = work

    def begin(self, response: Response, work: Callable[[], Cancellable]) -> None:
        """The answer to the present request is *response*, which *work* begins."""
        self._response, self._work = response, None
        begun = work()
        if self._response is response:  # it is not complete yet
            self._work = begun

    def must_end(self) -> bool:
        """Whether the connection ends with the present answer: the client wants it, the body of its request is not read, or
        the service stops.
        """
        return self._closes or self.site.stopping or (self._body is not None and not self._body.over)

    def completed(self, *, last: bool) -> None:
        """The last byte of the answer has been handed over; *last*: the client was told that the connection ends."""
        self._held.skip_empty_lines()
        unread = bool(self._held) or (self._body is not None and not self._body.over)
        self._response = self._work = self._body = None
        self._happened(
            ConnectionEvent.CUT_SHORT if last and unread else ConnectionEvent.FINISHED if last else ConnectionEvent.ANSWERED
        )

    def pauseProducing(self) -> None:
        """The transport wants no more bytes."""
        self._unsent, self._moved_at = undelivered(self.transport), self.site.clock.seconds()
        self._happened(ConnectionEvent.FULL)
        self.regulate()
        if self._response is not None:
            self._response.pause()

    def resumeProducing(self) -> None:
        """The transport wants bytes again."""
        response = self._response
        self._happened(ConnectionEvent.DRAINED)
        self.regulate()
        if response is not None:
            response.resume()

    def stopProducing(self) -> None:
        """The connection is lost, as :meth:`connectionLost` will say."""

    # -- the end

    @property
    def waits_for_its_client(self) -> bool:
        """Whether the client has all that was sent, and needs only to close the connection."""
        return table.STANDINGS[self.state] is table.ConnectionStanding.LEAVING and not undelivered(self.transport)

    def dismiss(self) -> None:
        """Close a connection that waits for a request."""
        self._happened(ConnectionEvent.DISMISSED)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()  # type: ignore[attr-defined]  # every stream transport can

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        response, work, body = self._response, self._work, self._body
        self._response = self._work = self._body = None
        # What is told first may go on at once, and must find that nothing can be sent.
        if response is not None:
            response.lost()
        if body is not None:
            body.lost()
        if work is not None:
            work.cancel()
        self._happened(ConnectionEvent.LOST)
        self._deadline.cancel()
        if not self._spoke and isinstance(reason.value, TlsError):
            self.site.failed_tls(self._connected.address, reason.value)

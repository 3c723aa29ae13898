"""One connection to a server: a request goes out in one piece, and its response is read as it comes.

Theory of operation.  A connection is idle, or it waits for a response's head, or a body is on its way.  One request is
under way at a time.  When the response is complete the connection is given back to its pool before anybody learns of the end,
so that who sends the next request finds it there.  What comes while nobody has asked ends the connection: it cannot be told
from the beginning of an answer to the next request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from proxy.mechanism.deadlines import Deadline
from proxy.mechanism.transports import send_now
from proxy.settings import KIB
from proxy.upstream.http.failures import TooLate
from proxy.upstream.http.parsing import ResponseHead, ResponseParser

if TYPE_CHECKING:
    from proxy.upstream.http.body import IncomingBody
    from proxy.upstream.http.reuse import ConnectionPool


#: Bytes to receive at once of a long body: each piece has a cost of its own.  As room for a short one it costs more than that.
_RECEIVE = 256 * KIB
#: The same of everything else.
_RECEIVE_LITTLE = 64 * KIB
#: Seconds for the last bytes that were written before a connection is closed.
_CLOSES_WITHIN = 5.0


class UpstreamResponse:
    """A response to a request with *method*, from its *head* on.

    The body is held until somebody takes it by :meth:`deliver`; the connection is paused if more of it comes before that.
    """

    def __init__(self, method: str, head: ResponseHead, connection: Connection, early: bytes) -> None:
        self.method = method
        self.head = head
        self._connection: Connection | None = connection
        self._early = early
        self._body: IncomingBody | None = None
        self._error: BaseException | None = None
        self._unsure = False

    def deliver(self, body: IncomingBody) -> None:
        """Have *body* receive the body, from its first byte on.  Called once."""
        early, self._early = self._early, b""
        body.begin(self, early, complete=self._connection is None)
        if self._connection is None:
            body.ended(self._error, unsure=self._unsure)
        else:
            self._body = body
            self._connection.resume()

    # -- for the connection

    def received(self, data: bytes) -> None:
        """More of the body has come."""
        if self._body is not None:
            self._body.receive(data)
        else:
            self._early += data
            self.pause()

    def ended(self, error: BaseException | None, *, unsure: bool = False) -> None:
        """No more comes: all of it was there, or the *error* cut it off; *unsure*: nobody can tell which."""
        self._connection = None
        self._error, self._unsure = error, unsure
        body, self._body = self._body, None
        if body is not None:
            body.ended(error, unsure=unsure)

    # -- for the body; without effect once it has ended

    def pause(self) -> None:
        """Have nothing more come for now."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Have more come."""
        if self._connection is not None:
            self._connection.resume()

    def expect(self, seconds: float, expired: Callable[[], object]) -> None:
        """Call *expired* in so many *seconds*, instead of what was to be called before."""
        if self._connection is not None:
            self._connection.expect(seconds, expired)

    def expect_nothing(self) -> None:
        """Call nothing."""
        if self._connection is not None:
            self._connection.expect_nothing()

    def stop(self) -> None:
        """Have nothing more of it, and close the connection."""
        connection, self._connection, self._body = self._connection, None, None
        if connection is not None:
            connection.close()


class Connection(Protocol):
    """A connection of *pool*."""

    transport: Any

    def __init__(self, reactor: IReactorTime, pool: ConnectionPool) -> None:
        self._pool = pool
        self._parser: ResponseParser | None = None
        self._method = ""
        self._answer: Deferred[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        #: What receives, below TLS.
        self._socket: Any = None
        self._paused = False
        self._open = True
        self._deadline = Deadline(reactor, self._overdue)
        self._expired: Callable[[], object] = self._late
        #: What it may be used for again, as the pool has it; and how long it has been idle, as the pool counts.
        self.key: object = None
        self.idle_since = 0.0

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self._socket = self.transport
        while isinstance(self._socket, TLSMemoryBIOProtocol):
            self._socket = self._socket.transport
        self._socket.bufferSize = _RECEIVE_LITTLE

    @property
    def address(self) -> str:
        """The address that it is to."""
        host: str = self.transport.getPeer().host
        return host

    def ask(self, request: bytes, method: str, seconds: float) -> Deferred[UpstreamResponse]:
        """Send *request*, whose method is *method*.  Fires with the response when its head has come; cancelling it closes.

        Fails with TooLate when that takes more than so many *seconds*; with NotHttp, HeadTooLong; and with what ends
        connections.
        """
        self._parser = ResponseParser(method)
        self._method = method
        answer: Deferred[UpstreamResponse] = Deferred(self._cancelled)
        self._answer = answer
        self.expect(seconds, self._late)
        rest = send_now(self.transport, request)
        if rest:
            self.transport.write(rest)
        return answer

    def give_up(self, why: BaseException) -> None:
        """Whoever waits for a head gets *why*; the connection is closed."""
        answer, self._answer = self._answer, None
        self._abort()
        if answer is not None:
            answer.errback(why)

    def expect(self, seconds: float, expired: Callable[[], object]) -> None:
        """Call *expired* in so many *seconds*, instead of what was to be called before."""
        self._expired = expired
        self._deadline.set(seconds)

    def expect_nothing(self) -> None:
        """Call nothing."""
        self._deadline.set(None)

    def pause(self) -> None:
        """Read nothing for now."""
        if not self._paused and self._open:
            self._paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()

    def close(self) -> None:
        """Close it in order, whatever the other side does; what still comes is nobody's."""
        self._forget()
        self.expect(_CLOSES_WITHIN, self._abort)
        self.transport.loseConnection()
        # Over TLS that waits for the other side's part, and reads all that is sent before it.
        self._socket.loseConnection()

    def _abort(self) -> None:
        self._forget()
        self.transport.abortConnection()

    def _forget(self) -> None:
        """Nothing that still comes is of interest."""
        self._open = False
        self._parser = None
        self._response = None
        self._deadline.cancel()

    def _cancelled(self, answer: Deferred[UpstreamResponse]) -> None:
        self._answer = None
        self._abort()

    def _overdue(self) -> None:
        self._expired()

    def _late(self) -> None:
        self.give_up(TooLate())

    def dataReceived(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            if self._open:
                self._pool.forget(self)
                self.close()
            return
        body = parser.receive(data)
        response = self._response
        if response is None:
            self._take_head(parser, body)
            return
        if body:
            response.received(body)  # which may close the connection
        if self._parser is parser and (parser.complete or parser.error is not None):
            self._finish(parser, response)

    def _take_head(self, parser: ResponseParser, body: bytes) -> None:
        """No head had come before; *body* has, if there is one now."""
        if parser.head is None:
            if parser.error is not None:
                self.give_up(parser.error)
            return
        response = UpstreamResponse(self._method, parser.head, self, body)
        answer, self._answer = self._answer, None
        assert answer is not None
        if parser.complete or parser.error is not None:
            self._finish(parser, response)
        else:
            self._response = response
            self._deadline.set(None)
            if parser.left > _RECEIVE_LITTLE:
                self._socket.bufferSize = _RECEIVE
        answer.callback(response)

    def _finish(self, parser: ResponseParser, response: UpstreamResponse) -> None:
        """The response is complete, or cannot be read any further."""
        if parser.error is not None:
            self._abort()
        elif parser.reusable:
            self._parser = self._response = None
            self._socket.bufferSize = _RECEIVE_LITTLE
            self._deadline.set(None)
            self.resume()
            self._pool.put(self)
        else:
            self.close()
        response.ended(parser.error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        parser, response, answer = self._parser, self._response, self._answer
        self._answer = None
        self._forget()
        self._pool.lost(self)
        if response is not None and parser is not None:
            # A reset is no end of a body.  Many servers end TLS without saying so, which cannot be told from one.
            unsure = parser.closed() and (self._socket is not self.transport or reason.check(ConnectionDone) is not None)
            response.ended(None if unsure else reason.value, unsure=unsure)
        elif answer is not None:
            answer.errback(reason)


class ConnectionFactory(Factory):
    """Makes connections of *pool*, without a log line for each."""

    noisy = False

    def __init__(self, reactor: IReactorTime, pool: ConnectionPool) -> None:
        self._reactor = reactor
        self._pool = pool

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return Connection(self._reactor, self._pool)

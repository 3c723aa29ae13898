"""Client connections: counted, bounded in number and in time, and closed when the service stops.

Theory of operation.  A :class:`Channel` gathers one request head at a time and hands it on whole: to the table of requests seen
before, or to ``twisted.web``, which therefore never waits for the rest of a line.  It is in one of these states:

=============  ========================================  =================================================================
state          what the time is limited to               how it ends
=============  ========================================  =================================================================
idle           ``idle_timeout`` since the last answer    the first byte of a head, or room is needed for another
a head begun   `HEAD_WITHIN` since its first byte        the empty line, a refusal, or room is needed for another
answering      the front and the response have limits    the response has been handed to the connection
sending        ``stall_timeout`` since a byte went out   the connection takes more again
closing        ``stall_timeout`` since a byte went out   what is left has gone out
=============  ========================================  =================================================================

What comes of further requests meanwhile is held, a little of it; then nothing more is read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from OpenSSL.SSL import Error as TlsError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.server import Site

from proxy.bounded import BoundedTable
from proxy.errors import BadRequest, ContentTooLarge, Overloaded, ProxyError, SlowRequest
from proxy.settings import KIB
from proxy.waiters import Waiters
from proxy.web import heads
from proxy.web.heads import RequestHead
from proxy.web.hot import Hit
from proxy.web.responding import PIECE
from proxy.web.serving import Front

#: How long the head of a request may take from its first byte to its last (seconds).
HEAD_WITHIN = 10.0
#: Connections that are taken beyond the limit, so that probes are answered when there is no room for anything else.
RESERVE = 16
#: What they may ask for.
PROBES = frozenset({b"/-/live", b"/-/ready"})
#: A connection is not closed for another one before it is this old (seconds): its request may be on its way.
_YOUNG = 0.1
#: How long one that is closed for another may take to go (seconds).
_LEAVES_WITHIN = 1.0

_log = Logger(namespace="proxy.web")


class Channel(HTTPChannel):
    """One client connection (HTTP/1.1)."""

    site: BoundedSite
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        #: The request that is being answered by a route.
        self.head: RequestHead | None = None
        #: What has come and belongs to no request yet, and how much of it has been looked at.
        self._held = bytearray()
        self._looked_at = 0
        #: What the connection has not taken of a body.
        self._rest: memoryview | None = None
        #: Whether a response is under way that a route gives.
        self._answering = False
        #: Whether the connection takes no more bytes at present.
        self._blocked = False
        self._closing = False
        self._lost = False
        #: Whether the time for a head is running.
        self._timed = False
        #: Whether :meth:`_go_on` is at work further down the stack.
        self._going_on = False
        #: Whether nothing is read because enough is held.
        self._braked = False
        #: Whether anything has come; over TLS, whether that has been agreed upon.
        self._spoke = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.joined(self)

    # -- requests

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        self._spoke = True
        if self._at_rest() and not self._held and self.site.has_room and (hit := self.site.front.hot.seen(data)) is not None:
            self._send(hit)
            return
        self._held += data
        self._go_on()

    def _at_rest(self) -> bool:
        """Whether the next request can be taken."""
        return not (self._answering or self._blocked or self._closing or self._rest is not None)

    def _go_on(self) -> None:
        """Take what requests there are, one after the other."""
        if self._going_on:
            return
        while self._at_rest() and (raw := self._next()) is not None:
            self._going_on = True
            try:
                self._take(raw)
            finally:
                self._going_on = False
        if len(self._held) > heads.LONGEST and not self._closing:
            self._braked = True
            self.transport.pauseProducing()
        elif self._braked:
            self._braked = False
            if not self._blocked:
                self.transport.resumeProducing()

    def _next(self) -> bytes | None:
        """The next head if all of it has come."""
        held = self._held
        while held.startswith(b"\r\n"):
            del held[:2]  # RFC 9112 section 2.2
        if not held:
            return None
        if not self._looked_at and heads.is_tls(held):
            self.site.spoken_tls(self.transport.getPeer())
            # Most clients say of this answer that it has the wrong version number, which people look up.
            error = BadRequest("TLS is spoken to a port that speaks plain HTTP: the URL of the proxy begins with http://")
            self.transport.write(self.site.front.refusal(error))
            self.loseConnection()
            return None
        end = held.find(heads.END, max(0, self._looked_at - len(heads.END)))
        if end >= 0:
            raw = bytes(held[: end + len(heads.END)])
            del held[: len(raw)]
            self._looked_at = 0
            return raw
        refusal = heads.unfinished(held, self._looked_at)
        if refusal is not None:
            self._refuse(refusal)
            return None
        self._looked_at = len(held)
        if not self._timed:
            self._timed = True
            self.setTimeout(min(HEAD_WITHIN, self.site.idle_timeout))
        return None

    def _take(self, raw: bytes) -> None:
        """Answer the request with the head *raw*, or begin to."""
        if self._timed:
            self._timed = False
            self.setTimeout(self.site.idle_timeout)
        head = None
        try:
            head = heads.read(raw)
            if head.has_body:
                raise ContentTooLarge("this proxy takes no request bodies: only GET and HEAD are answered")
            if not self.site.has_room and head.target not in PROBES:
                raise Overloaded(
                    f"this proxy answers {self.site.limit} requests at once (server.max_connections), and there are as many"
                )
        except ProxyError as error:
            self._refuse(error, head)
            return
        hit = self.site.front.hot.answer(head)
        if hit is not None:
            self._send(hit)
            return
        self.head = head
        self._answering = True
        self.site.began(self)
        super().dataReceived(head.plain)

    def _refuse(self, error: ProxyError, head: RequestHead | None = None) -> None:
        """Answer *error* and close."""
        self.transport.write(self.site.front.turn_away(error, head, self.transport.getPeer()))
        self.loseConnection()

    def requestDone(self, request: Request) -> None:
        self.head = None
        self._answering = False
        super().requestDone(request)
        self._sent()

    # -- answers

    def _send(self, hit: Hit) -> None:
        """Hand the kernel what it takes at once, which spares a turn of the reactor; the rest follows as it takes more."""
        body = hit.body
        data = hit.head + body if len(body) < PIECE else hit.head
        transport = self.transport
        if isinstance(transport, Connection) and not (transport.TLS or transport.dataBuffer or transport._tempDataBuffer):
            sent = transport.writeSomeData(data)
            if not isinstance(sent, int) or sent < 0:
                transport.abortConnection()
                return
            data = data[sent:]
        if data:
            transport.write(data)
        if len(body) >= PIECE:
            self._rest = memoryview(body)
            self._pour()
        elif self._blocked:
            self._sent()
        else:
            self.resetTimeout()
            self.site.answered(self)
        self.site.front.answered_at_once(hit, transport.getPeer())

    def _pour(self) -> None:
        """Hand on what the connection takes of the rest."""
        while self._rest is not None and not self._blocked:
            piece, rest = self._rest[:PIECE], self._rest[PIECE:]
            self._rest = rest or None
            self.transport.write(bytes(piece))
        self._sent()

    def _sent(self) -> None:
        """Something was handed to the connection: all of an answer, or a part."""
        if self._closing or self._answering:
            return
        if self._blocked or self._rest is not None:
            self.site.began(self)
            self.setTimeout(self.site.front.stall_timeout)
            return
        self.site.answered(self)
        self._timed = False
        self.setTimeout(self.site.idle_timeout)
        self._go_on()

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._blocked = True

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._blocked:
            self._blocked = False
            self._pour()

    # -- the end

    def timeoutConnection(self) -> None:
        if self._closing or self._blocked or self._rest is not None:
            if not self._closing:
                _log.info("{client} took no byte and is dropped", client=getattr(self.transport.getPeer(), "host", "-"))
            self.transport.abortConnection()
        elif self._held:
            self._refuse(SlowRequest(f"the request was not complete {HEAD_WITHIN:g} s after its first byte"))
        else:
            self.loseConnection()

    def loseConnection(self) -> None:
        """Close when what was handed to the connection has gone out, or the client takes none of it."""
        if self._lost:
            return
        self._closing = True
        self.setTimeout(self.site.front.stall_timeout)
        self.site.leaves(self)
        super().loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = self._closing = True
        self._rest = None
        self.site.left(self)
        super().connectionLost(reason)
        if not self._spoke and isinstance(reason.value, TlsError):
            self.site.failed_tls(self.transport.getPeer(), reason.value)


class BoundedSite(Site):
    """A site that answers at most *limit* requests at once, and holds as many connections and a few more.

    Beyond the limit the connections that have been idle for longest are closed.  The few beyond it are there for probes
    (`PROBES`): anything else is refused there while the limit is reached.  *full* is called with true when there is no room
    even for a probe, and with false when there is again: whoever listens stops accepting meanwhile.
    """

    protocol = Channel  # type: ignore[assignment]  # without the wrapper that could negotiate HTTP/2
    noisy = False

    def __init__(self, front: Front, reactor: Any, limit: int, idle_timeout: float, full: Callable[[bool], None]) -> None:
        self.front = front
        self.limit = limit
        self.idle_timeout = idle_timeout
        #: Whether one more request may be answered.
        self.has_room = True
        super().__init__(front, timeout=idle_timeout, reactor=reactor, parsePOSTFormSubmission=False)
        self.displayTracebacks = False
        self._clock = reactor
        self._full = full
        self._is_full = False
        self._stopped = False
        self._making_room = False
        self._again: IDelayedCall | None = None
        #: Connections by what they do; those that are idle or on their way out with the moment since when, the oldest first.
        self._busy: set[Channel] = set()
        self._idle: dict[Channel, float] = {}
        self._leaving: dict[Channel, float] = {}
        self._gone: Waiters[None] = Waiters()
        #: Clients of which it was said already that they have the wrong idea of TLS.
        self._told: BoundedTable[str, bool] = BoundedTable(64 * KIB, lambda told: 128)

    def log(self, request: Any) -> None:
        """Nothing: the front logs each request with what twisted.web cannot know."""

    # -- what channels say of themselves

    def joined(self, channel: Channel) -> None:
        """*channel* is new, and idle."""
        self._idle[channel] = self._clock.seconds()
        self._make_room()

    def began(self, channel: Channel) -> None:
        """*channel* has something to answer."""
        self._idle.pop(channel, None)
        self._busy.add(channel)
        self.has_room = len(self._busy) < self.limit

    def answered(self, channel: Channel) -> None:
        """*channel* is idle from now on."""
        if self._idle.pop(channel, None) is None:
            self._busy.discard(channel)
            self.has_room = len(self._busy) < self.limit
        self._idle[channel] = self._clock.seconds()  # the last one, as the oldest are looked for at the other end
        if self._stopped:
            channel.loseConnection()
        elif self._is_full:
            self._make_room()

    def leaves(self, channel: Channel) -> None:
        """*channel* closes as soon as its last bytes have gone out."""
        self._forget(channel)
        self._leaving.setdefault(channel, self._clock.seconds())

    def left(self, channel: Channel) -> None:
        """The connection of *channel* has ended."""
        self._forget(channel)
        self._leaving.pop(channel, None)
        if self._is_full:
            self._make_room()
        if not (self._busy or self._idle or self._leaving):
            self._gone.wake(None)

    def _forget(self, channel: Channel) -> None:
        self._idle.pop(channel, None)
        self._busy.discard(channel)
        self.has_room = len(self._busy) < self.limit

    # -- room

    def _over(self, reserve: int) -> int:
        """How many connections there are above the limit and *reserve* more."""
        return max(0, len(self._busy) + len(self._idle) + len(self._leaving) - self.limit - reserve)

    def make_room(self) -> None:
        """Close the connection that has been idle for longest, if there is one: there are no more descriptors."""
        self._close_idle(1)

    def _make_room(self) -> None:
        """Close what may be closed of that which is above the limit, and say whether there is room for another connection."""
        if self._stopped or self._making_room:
            return
        self._making_room = True
        self._close_idle(self._over(0) - len(self._leaving))
        self._abort_leaving(self._over(RESERVE - 1))
        self._making_room = False
        full = self._over(RESERVE - 1) > 0
        if full != self._is_full:
            self._is_full = full
            self._full(full)
        if full and self._again is None and (self._idle or self._leaving):
            self._again = self._clock.callLater(_YOUNG, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._make_room()

    def _close_idle(self, count: int) -> None:
        now = self._clock.seconds()
        for channel, since in list(islice(self._idle.items(), max(0, count))):
            if now - since < _YOUNG:
                break
            channel.loseConnection()

    def _abort_leaving(self, count: int) -> None:
        now = self._clock.seconds()
        for channel, since in list(islice(self._leaving.items(), count)):
            if now - since < _LEAVES_WITHIN:
                break
            channel.abort()

    async def close(self, within: float) -> None:
        """Close every connection once what is being sent there has gone out, or after *within* seconds."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        idle = list(self._idle)
        for channel in idle:
            channel.loseConnection()
        if self._busy or self._leaving:
            gone = self._gone.wait()
            deadlines = [
                self._clock.callLater(min(within, _LEAVES_WITHIN), self._abort, idle),
                self._clock.callLater(within, self._abort, [*self._busy, *self._leaving]),
            ]
            await gone
            for each in deadlines:
                if each.active():
                    each.cancel()

    def _abort(self, channels: list[Channel]) -> None:
        for channel in channels:
            channel.abort()

    # -- TLS where it is not expected, and the reverse

    def spoken_tls(self, client: Any) -> None:
        """Log once that *client* speaks TLS to a port that does not."""
        self._tell(
            client, "{client} speaks TLS to a port that speaks plain HTTP: its URL of this proxy must begin with http://"
        )

    def failed_tls(self, client: Any, error: TlsError) -> None:
        """Log once that TLS with *client* failed because of *error*."""
        reason = ", ".join(str(each[-1]) for each in error.args[0]) if error.args else "no reason given"
        if "http request" in reason:
            reason = "it speaks plain HTTP: its URL of this proxy must begin with https://"
        self._tell(client, "TLS with {client} failed: {reason}", reason=reason)

    def _tell(self, client: Any, message: str, **values: str) -> None:
        host = getattr(client, "host", "-")
        if self._told.get(host) is None:
            self._told.put(host, True)
            _log.warn(message, client=host, **values)

"""All client connections of the service: counted, bounded in number, and closed when it stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from OpenSSL.SSL import Error as TlsError
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.bounded import Told
from proxy.mechanism.waiters import Waiters
from proxy.web.channel import Channel
from proxy.web.connection import HEAD_WITHIN, LINGERS_WITHIN, ConnectionStanding, Limit
from proxy.web.serving import Front

#: Connections that are taken beyond the limit, so that probes are answered when there is no room for anything else; and how
#: many of them may be answered with what can be said at once.
RESERVE, RESERVE_AT_ONCE = 16, 8
#: A connection is not closed for another one before it is this old (seconds): its request may be on its way.
_YOUNG = 0.1
#: How long one that is closed for another may take to go (seconds).
_LEAVES_WITHIN = 1.0

#: In Python 3.11 a member of an enumeration takes long to find.
_WAITING = ConnectionStanding.WAITING

_log = Logger(namespace="proxy.web")


def _limits(front: Front, idle_timeout: float) -> Mapping[Limit, float | None]:
    return {
        Limit.NONE: None,
        Limit.IDLE: idle_timeout,
        Limit.HEAD: min(HEAD_WITHIN, idle_timeout),
        Limit.STALL: front.patience.stall_timeout,
        Limit.LINGER: LINGERS_WITHIN,
    }


@implementer(IProtocolNegotiationFactory)
class BoundedSite(Factory):
    """A site that answers at most *limit* requests at once, and holds as many connections and a few more.

    Beyond the limit the connections that have been idle for longest are closed.  The few beyond it are there for probes
    (:data:`~proxy.web.channel.PROBES`), and half of them also for what :class:`~proxy.web.hot.HotRequests` answers: anything
    else is refused there while the limit is reached.  *full* is called with true
    when there is no room even for a probe, and with false when there is again: whoever listens stops accepting meanwhile.
    """

    noisy = False

    def __init__(
        self, front: Front, clock: IReactorTime, limit: int, idle_timeout: float, full: Callable[[bool], None]
    ) -> None:
        self.front = front
        self.clock = clock
        self.limit = limit
        #: How long a state may last (seconds); ``None``: as long as it takes.
        self.limits = _limits(front, idle_timeout)
        #: Whether one more request may be answered, and whether one may be that is answered as it was before.
        self.has_room = self.has_reserve = True
        #: Whether each connection ends with its present answer.
        self.stopping = False
        #: Whether requests may be answered as they were before: there is room, and connections go on.
        self.as_before = True
        self._full = full
        self._is_full = False
        self._making_room = False
        self._again: IDelayedCall | None = None
        #: Connections by what they do; those that wait or leave with the moment since when, the oldest first.
        self._busy: set[Channel] = set()
        self._idle: dict[Channel, float] = {}
        self._leaving: dict[Channel, float] = {}
        self._gone: Waiters[None] = Waiters()
        #: Clients whose wrong idea of TLS has been logged.
        self._told = Told()

    def serve(self, front: Front, limit: int, idle_timeout: float) -> None:
        """Have *front* answer all requests that come from now on, at most *limit* at once, also on present connections."""
        self.front = front
        self.limit = limit
        self.limits = _limits(front, idle_timeout)
        self._count_busy()
        for channel in [*self._busy, *self._idle, *self._leaving]:
            channel.introduce()
        self._make_room()

    def buildProtocol(self, addr: IAddress | None) -> Channel:
        return Channel(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS (ALPN, RFC 7301): a client that offers protocols, as all do, gets no connection without."""
        return [b"http/1.1"]

    # -- what channels say of themselves

    def joined(self, channel: Channel) -> None:
        """*channel* is new, and waits for a request."""
        self._idle[channel] = self.clock.seconds()
        self._make_room()

    def moved(self, channel: Channel, standing: ConnectionStanding) -> None:
        """*channel* counts as *standing* from now on."""
        if standing is _WAITING:
            self._waits(channel)
        elif standing is ConnectionStanding.BUSY:
            self._idle.pop(channel, None)
            self._busy.add(channel)
            self._count_busy()
        elif standing is ConnectionStanding.LEAVING:
            self._forget(channel)
            self._leaving.setdefault(channel, self.clock.seconds())
        else:
            self._left(channel)

    def _waits(self, channel: Channel) -> None:
        if self._idle.pop(channel, None) is None:
            self._busy.discard(channel)
            self._count_busy()
        self._idle[channel] = self.clock.seconds()  # the last one, as the oldest are looked for at the other end
        if self.stopping:
            channel.dismiss()
        elif self._is_full:
            self._make_room()

    def _left(self, channel: Channel) -> None:
        self._forget(channel)
        self._leaving.pop(channel, None)
        if self._is_full:
            self._make_room()
        if not (self._busy or self._idle or self._leaving):
            self._gone.wake(None)

    def _forget(self, channel: Channel) -> None:
        self._idle.pop(channel, None)
        self._busy.discard(channel)
        self._count_busy()

    def _count_busy(self) -> None:
        self.has_room = len(self._busy) < self.limit
        self.has_reserve = len(self._busy) < self.limit + RESERVE_AT_ONCE
        self.as_before = self.has_room and not self.stopping

    # -- room

    def _over(self, reserve: int) -> int:
        """How many connections there are above the limit and *reserve* more."""
        return max(0, len(self._busy) + len(self._idle) + len(self._leaving) - self.limit - reserve)

    def make_room(self) -> None:
        """Close the connection that has been idle for longest, if there is one: there are no more descriptors."""
        self._close_idle(1)

    def _make_room(self) -> None:
        """Close what may be closed of that which is above the limit, and say whether there is room for another connection."""
        if self.stopping or self._making_room:
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
            self._again = self.clock.callLater(_YOUNG, self._look_again)

    def _look_again(self) -> None:
        self._again = None
        self._make_room()

    def _close_idle(self, count: int) -> None:
        now = self.clock.seconds()
        for channel, since in list(islice(self._idle.items(), max(0, count))):
            if now - since < _YOUNG:
                break
            channel.dismiss()

    def _abort_leaving(self, count: int) -> None:
        now = self.clock.seconds()
        for channel, since in list(islice(self._leaving.items(), count)):
            if now - since < _LEAVES_WITHIN:
                break
            channel.abort()

    def wind_down(self) -> None:
        """Have each connection end with its present answer, and those that wait for a request end now."""
        self.stopping = True
        self._count_busy()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        for channel in list(self._idle):
            channel.dismiss()

    async def close(self, within: float) -> None:
        """Close every connection once its client has what is being sent there, or after *within* seconds.

        Clients have a second to close connections that they have no more use for.
        """
        self.wind_down()
        if self._busy or self._leaving:
            gone = self._gone.wait()
            self._again = self.clock.callLater(min(within, _LEAVES_WITHIN), self._abort_who_waits)
            last = self.clock.callLater(within, self._abort_all)
            await gone
            for each in (self._again, last):
                if each.active():
                    each.cancel()

    def _abort_who_waits(self) -> None:
        self._again = self.clock.callLater(_LEAVES_WITHIN, self._abort_who_waits)
        now = self.clock.seconds()
        for channel, since in list(self._leaving.items()):
            if now - since >= _LEAVES_WITHIN and channel.waits_for_its_client:
                channel.abort()

    def _abort_all(self) -> None:
        for channel in [*self._busy, *self._leaving]:
            channel.abort()

    # -- TLS where it is not expected, and the reverse

    def spoken_tls(self, client: str) -> None:
        """Log once that *client* speaks TLS to a port that does not."""
        self._tell(
            client, "{client} speaks TLS to a port that speaks plain HTTP: its URL of this proxy must begin with http://"
        )

    def failed_tls(self, client: str, error: TlsError) -> None:
        """Log once that TLS with *client* failed because of *error*."""
        reason = ", ".join(str(each[-1]) for each in error.args[0]) if error.args else "no reason given"
        if "http request" in reason:
            reason = "it speaks plain HTTP: its URL of this proxy must begin with https://"
        self._tell(client, "TLS with {client} failed: {reason}", reason=reason)

    def _tell(self, client: str, message: str, **values: str) -> None:
        if self._told.is_first(client):
            _log.warn(message, client=client, **values)

"""Server-sent events: each open dashboard is a stream of those parts of it that have changed.

Theory of operation.  While there are streams, one timer has the state gathered once per second.  For all viewers with the same
standing the parts are rendered once, in a worker thread; a part whose bytes are as before is not sent again.  So 200 open
dashboards of a quiet proxy cost one comparison per second.  A stream ends after a while, and the browser opens another.  Who
looks is asked anew each minute: a stream does not outlive its login.

When there are as many streams as there may be, the client address with the most of them (in IPv6, the /64) gives one up for
whoever comes with fewer (:mod:`proxy.core.shedding`): no address keeps the others from their dashboards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.core.networks import client_network
from proxy.core.shedding import Crowd, GivingWay, giving_way
from proxy.errors import Overloaded, ProxyError
from proxy.interfaces import IBodyReader, IOffload
from proxy.mechanism.waiters import Waiters
from proxy.model import FileFacts
from proxy.web.answers import Answer, StreamBody
from proxy.web.dashboard.gathering import StateGatherer
from proxy.web.dashboard.parts import parts
from proxy.web.dashboard.state import DashboardState
from proxy.web.dashboard.viewers import Viewer
from proxy.web.hypertext import markup_bytes

#: Streams at the most.
_MOST = 256
#: Seconds between two looks, between two signs of life on a quiet stream, and until a stream ends.
_INTERVAL, _QUIET_FOR, _LASTS = 1.0, 15.0, 600.0
_HEADERS = [
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Authorization, Cookie"),
]
_ALIVE = b": alive\n\n"

#: Finds out anew who a viewer is.  Raises ProxyError.
AskedAgain = Callable[[], Awaitable[Viewer]]
#: How often (seconds): a password may have to be verified for it.
_ASKED_EVERY = 60.0

#: The events of all parts, by the id of the part.
Events = Mapping[str, bytes]


@implementer(IBodyReader)
class EventReader:
    """What one client, at *address*, is sent; *streams* is what it is one of."""

    facts = FileFacts(None)
    length = None

    def __init__(self, streams: EventStreams, address: str, viewer: Viewer, asked: AskedAgain, now: float) -> None:
        self.address = address
        self.viewer = viewer
        self.asked = asked
        self.began = self.asked_at = now
        self._streams = streams
        self._moved_at = now
        self._sent: dict[str, bytes] = {}
        self._waiting: bytes = b"retry: 3000\n\n"
        self._more: Waiters[None] = Waiters()
        self._ended = False

    async def read(self) -> bytes:
        while not self._waiting and not self._ended:
            await self._more.wait()
        waiting, self._waiting = self._waiting, b""
        return waiting

    def offer(self, events: Events, now: float) -> None:
        """Send what is new in *events*; a client that has not taken the last ones yet gets the newest when it has."""
        if self._waiting:
            return
        new = {name: data for name, data in events.items() if self._sent.get(name) != data}
        if new:
            self._sent.update(new)
            self._waiting = b"".join(new.values())
        elif now - self._moved_at >= self._streams.quiet_for:
            self._waiting = _ALIVE
        else:
            return
        self._moved_at = now
        self._more.wake(None)

    def end(self) -> None:
        """Send nothing more."""
        self._ended = True
        self._more.wake(None)

    def close(self) -> None:
        self.end()
        self._streams.left(self)


class EventStreams:
    """All streams, *most* at a time; a client is dropped that is sent nothing for *stall_timeout* seconds."""

    log = Logger()

    def __init__(
        self, gatherer: StateGatherer, offload: IOffload, reactor: IReactorTime, stall_timeout: float, most: int
    ) -> None:
        self._gatherer = gatherer
        self._offload = offload
        self._reactor = reactor
        self._most = max(1, min(most, _MOST))
        self.quiet_for = min(_QUIET_FOR, stall_timeout / 3)
        self._readers: set[EventReader] = set()
        self._of_addresses: Crowd[EventReader] = Crowd()
        self._loop: LoopingCall | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._readers)

    def answer(self, address: str, viewer: Viewer, asked: AskedAgain) -> Answer:
        """A stream for *viewer* at *address*, who *asked* says it is now.  Raises Overloaded when there are too many."""
        if self._closed:
            raise Overloaded("no dashboard is kept live any more: this one is as it was when it was loaded")
        address = client_network(address)
        self._make_room(address)
        reader = EventReader(self, address, viewer, asked, self._reactor.seconds())
        self._readers.add(reader)
        self._of_addresses.add(address, reader)
        if self._loop is None:
            # A new one each time: the last call of one that was stopped may still be under way.
            self._loop = LoopingCall(self._tell)
            self._loop.clock = self._reactor
            self._loop.start(_INTERVAL).addErrback(self._failed)
        return Answer(200, _HEADERS, StreamBody(reader, None))

    def _make_room(self, address: str) -> None:
        """Have there be room for a stream of *address*.  Raises Overloaded when it has its share."""
        crowd = self._of_addresses
        own = crowd.count(address)
        match giving_way(crowd.total, self._most, own, crowd.most):
            case GivingWay.ARRIVING:
                raise Overloaded(
                    f"{self._most} dashboards are kept live already, {own} of them for your address: "
                    "this one is as it was when it was loaded"
                )
            case GivingWay.HEAVIEST:
                heaviest, victim = crowd.newest_of_heaviest()
                crowd.remove(heaviest, victim)
                victim.end()

    def left(self, reader: EventReader) -> None:
        """The client of *reader* is served no more."""
        self._readers.discard(reader)
        self._of_addresses.remove(reader.address, reader)
        if not self._readers:
            self._stop()

    def close(self) -> None:
        """End all streams, and let none begin."""
        self._closed = True
        for each in list(self._readers):
            each.end()
        self._stop()

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and loop.running:
            loop.stop()

    def _failed(self, failure: Failure) -> None:
        self._loop = None
        if not failure.check(CancelledError):
            self.log.failure("bug: dashboards are not kept live", failure)
        for each in list(self._readers):
            each.end()

    async def _told(self) -> None:
        now = self._reactor.seconds()
        for each in [each for each in self._readers if now - each.began >= _LASTS]:
            each.end()
        for each in [each for each in self._readers if now - each.asked_at >= _ASKED_EVERY]:
            each.asked_at = now
            Deferred.fromCoroutine(self._ask_again(each)).addErrback(self._gave_up)
        state = await self._gatherer.state()
        rendered: dict[Hashable, Events] = {}
        for each in list(self._readers):
            standing = each.viewer.standing
            if standing not in rendered:
                rendered[standing] = await self._offload.run(_rendered, state, each.viewer)
            each.offer(rendered[standing], self._reactor.seconds())

    async def _ask_again(self, reader: EventReader) -> None:
        """End the stream of *reader* if its viewer has logged out, or may see something else than before."""
        same = False
        try:
            same = (await reader.asked()).standing == reader.viewer.standing
        except ProxyError:
            pass  # nobody can tell who it is: the browser is told why when it opens another
        finally:
            if not same:
                reader.end()

    def _gave_up(self, failure: Failure) -> None:
        self.log.failure("bug: a dashboard is no longer kept live", failure)

    def _tell(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._told())


def _rendered(state: DashboardState, viewer: Viewer) -> Events:
    return {name: _event(name, markup_bytes(*content)) for name, content in parts(state, viewer).items()}


def _event(name: str, html: bytes) -> bytes:
    data = msgspec.json.encode({"id": name, "html": html.decode()})
    return b"event: part\ndata: " + data + b"\n\n"

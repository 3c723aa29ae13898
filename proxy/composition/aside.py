"""Listeners that serve one thing and nothing else, such as the metrics or the dashboard, with connections of their own."""

from __future__ import annotations

from proxy.composition.means import Means
from proxy.host.listening import Listening
from proxy.mechanism.waiting import WaitingRoom
from proxy.settings import ServerSettings
from proxy.web.callers import Callers
from proxy.web.connections import BoundedSite
from proxy.web.hot import HotRequests
from proxy.web.patience import Patience
from proxy.web.routes import UrlSpace
from proxy.web.serving import Answerer, Front

#: What is remembered of requests (bytes): no answer here is given again.
_HOT = 0


class Aside:
    """The listeners at *listen*, which answer once there is something to :meth:`serve`, on *most* connections.

    In *room* their requests wait for upstream.
    """

    def __init__(self, listen: tuple[str, ...], most: int, means: Means, room: WaitingRoom | None = None) -> None:
        self._site: BoundedSite | None = None
        self._means = means
        self._most = most
        self._room = room
        self._listen = listen
        self.listenings: tuple[Listening, ...] = ()

    def serve(self, settings: ServerSettings, answer: Answerer, callers: Callers, via: str) -> Front | None:
        """Have *answer* answer from the next request on; the front that it does so behind, ``None`` without a listener."""
        if not self._listen:
            return None
        means = self._means
        front = Front(
            answer,
            HotRequests(means.clock, via, _HOT),
            callers,
            means.reactor,
            means.disk,
            via=via,
            patience=Patience(stall_timeout=settings.stall_timeout),
            space=UrlSpace((), (), None),
            recorder=means.metrics,
            room=self._room,
        )
        if self._site is not None:
            self._site.serve(front, self._most, settings.idle_timeout)
            return front
        self._site = site = BoundedSite(front, means.reactor, self._most, settings.idle_timeout, self._full)
        self.listenings = tuple(Listening(each, site, means.reactor, site.make_room, means.observing) for each in self._listen)
        return front

    def _full(self, full: bool) -> None:
        """Accept nothing more, or go on accepting."""
        for each in self.listenings:
            if full:
                each.hold()
            else:
                each.go_on()

    def wind_down(self) -> None:
        """Close each connection after its answer."""
        if self._site is not None:
            self._site.wind_down()

    async def close(self, within: float = 0.0) -> None:
        """End every connection once its client has what is being sent there, or after *within* seconds."""
        if self._site is not None:
            await self._site.close(within)

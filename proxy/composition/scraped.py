"""The listeners that serve the metrics and nothing else, with connections of their own."""

from __future__ import annotations

from proxy.composition.means import Means
from proxy.host.listening import Listening
from proxy.settings import ServerSettings
from proxy.web.callers import Callers
from proxy.web.connections import BoundedSite
from proxy.web.hot import HotRequests
from proxy.web.patience import Patience
from proxy.web.routes import UrlSpace
from proxy.web.scraping import Scraping
from proxy.web.serving import Front

#: Connections at once.
_MOST = 64
#: What is remembered of requests (bytes): no answer here is given again.
_HOT = 0


class Scraped:
    """The listeners ``metrics_listen`` of *settings*, which answer once there is something to :meth:`serve`.

    There are none without *settings*.
    """

    def __init__(self, settings: ServerSettings | None, means: Means) -> None:
        self._site: BoundedSite | None = None
        self._means = means
        self._listen = () if settings is None else settings.metrics_listen
        self.listenings: tuple[Listening, ...] = ()

    def serve(self, settings: ServerSettings, scraping: Scraping, callers: Callers, via: str) -> None:
        """Have *scraping* answer from the next request on."""
        if not self._listen:
            return
        means = self._means
        front = Front(
            scraping,
            HotRequests(means.clock, via, _HOT),
            callers,
            means.reactor,
            means.disk,
            via=via,
            patience=Patience(stall_timeout=settings.stall_timeout),
            space=UrlSpace((), (), None),
            recorder=means.metrics,
        )
        if self._site is not None:
            self._site.serve(front, _MOST, settings.idle_timeout)
            return
        self._site = site = BoundedSite(front, means.reactor, _MOST, settings.idle_timeout, self._full)
        self.listenings = tuple(Listening(each, site, means.reactor, site.make_room, means.observing) for each in self._listen)

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

    async def close(self) -> None:
        """End every connection."""
        if self._site is not None:
            await self._site.close(0.0)

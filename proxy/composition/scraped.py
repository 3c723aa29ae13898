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
    """The listeners ``metrics_listen`` of *settings*, at which *scraping* answers; none without *settings*."""

    def __init__(self, scraping: Scraping, callers: Callers, settings: ServerSettings | None, via: str, means: Means) -> None:
        self._site: BoundedSite | None = None
        self.listenings: tuple[Listening, ...] = ()
        if settings is None or not settings.metrics_listen:
            return
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
        site = BoundedSite(front, means.reactor, _MOST, settings.idle_timeout, self._full)
        self._site = site
        self.listenings = tuple(
            Listening(each, site, means.reactor, site.make_room, means.observing) for each in settings.metrics_listen
        )

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

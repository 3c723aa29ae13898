"""Where clients come in: the site, the listeners, and how they are closed."""

from __future__ import annotations

from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from proxy.composition.aside import Aside
from proxy.composition.figures import WebFigures
from proxy.composition.means import Means
from proxy.composition.process import affordable, for_dashboards, raise_descriptor_limit
from proxy.composition.serving import Serving
from proxy.core.amounts import duration
from proxy.core.health import Phase
from proxy.host.listening import Listening
from proxy.mechanism.patience import within
from proxy.mechanism.waiting import WaitingRoom
from proxy.settings import Settings
from proxy.web.connections import BoundedSite
from proxy.web.serving import Front

#: Connections of the listeners for metrics.
_SCRAPERS = 64
#: Seconds between two log lines that say that there is no room for more clients.
_TELL_EVERY = 60.0


class Readiness:
    """Whether requests are taken; probes are told."""

    def __init__(self) -> None:
        self._stopping = False

    @property
    def phase(self) -> Phase:
        return Phase.STOPPING if self._stopping else Phase.SERVING

    def end(self) -> None:
        """Nothing new should come from now on."""
        self._stopping = True


class Web:
    """The site that the front of *serving* answers for, with the listeners of *settings* if there is any *listen*."""

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        serving: Serving,
        readiness: Readiness,
        means: Means,
        room: WaitingRoom,
        *,
        listen: tuple[str, ...],
    ) -> None:
        self._room = room
        self.readiness = readiness
        self._present = serving
        #: All that still answers, the present one among it.
        self._serving = {serving}
        self._reactor = means.reactor
        self._drain_time = settings.server.drain_time
        self._told_full: float | None = None
        self._descriptors = raise_descriptor_limit()
        self._wanted = settings.server.max_connections
        limit, idle = self._limit(settings), settings.server.idle_timeout
        self._site = site = BoundedSite(serving.front, means.reactor, limit, idle, self._full)
        self.listenings = tuple(Listening(each, site, means.reactor, site.make_room, means.observing) for each in listen)
        self.scraped = Aside(settings.server.metrics_listen if listen else (), _SCRAPERS, means)
        self.watched = Aside(settings.server.dashboard_listen if listen else (), self._watching(settings), means, room)
        self._serve_aside(settings, serving)
        listenings = {
            "listen": self.listenings,
            "metrics_listen": self.scraped.listenings,
            "dashboard_listen": self.watched.listenings,
        }
        means.metrics.watch(WebFigures(lambda: [each.front for each in self._serving], listenings))

    @property
    def front(self) -> Front:
        """What answers requests that come now."""
        return self._present.front

    @property
    def in_progress(self) -> int:
        """How many responses are in progress."""
        return sum(front.in_progress for each in self._serving for front in each.fronts)

    def _limit(self, settings: Settings) -> int:
        """How many requests may be answered at once; as many as there may wait for upstream do so from now on."""
        upstream = sum(each.max_connections for each in settings.upstreams)
        limit = affordable(settings.server.max_connections, self._descriptors, upstream + self._watching(settings))
        # Whoever asks for what is cached has a place, however many wait for upstream.
        self._room.limit_to(min(settings.server.max_waiting, limit - limit // 4))
        return limit

    def serve(self, settings: Settings, serving: Serving) -> None:
        """Have *serving* answer from the next request on; responses in progress are not touched."""
        self._present = serving
        self._serving.add(serving)
        self._drain_time = settings.server.drain_time
        self._wanted = settings.server.max_connections
        self._site.serve(serving.front, self._limit(settings), settings.server.idle_timeout)
        self._serve_aside(settings, serving)
        self.tell_limit()

    def _serve_aside(self, settings: Settings, serving: Serving) -> None:
        via = serving.identity.via
        self.scraped.serve(settings.server, serving.scraping, serving.callers, via)
        front = self.watched.serve(settings.server, serving.apart, serving.callers, via)
        if front is not None:
            serving.beside.append(front)

    def _watching(self, settings: Settings) -> int:
        """How many connections the listeners of the dashboard have."""
        return for_dashboards(self._descriptors) if settings.server.dashboard_listen else 0

    def forget(self, serving: Serving) -> None:
        """Told that *serving* answers nothing any more."""
        self._serving.discard(serving)
        serving.close()

    def _full(self, full: bool) -> None:
        """Accept nothing more, or go on accepting."""
        for listening in self.listenings:
            if full:
                listening.hold()
            else:
                listening.go_on()
        now = self._reactor.seconds()
        if full and (self._told_full is None or now - self._told_full >= _TELL_EVERY):
            self._told_full = now
            self.log.warn(
                "all client connections are taken: further clients wait; server.max_connections is {limit}",
                limit=self._site.limit,
            )

    def tell_limit(self) -> None:
        """Log how many clients there may be, if they are fewer than is configured."""
        if self._site.limit < self._wanted:
            self.log.warn(
                "server.max_connections is lowered to {limit}: this process may have {descriptors} open files (LimitNOFILE)",
                limit=self._site.limit,
                descriptors=self._descriptors,
            )

    async def close(self) -> None:
        """Let responses in progress go on until the deadline, then end every connection."""
        for each in self._serving:
            each.end_streams()
        self._site.wind_down()
        self.scraped.wind_down()
        self.watched.wind_down()
        until = self._reactor.seconds() + self._drain_time
        await self._drain()
        for site in (self._site, self.watched):
            await site.close(max(0.0, until - self._reactor.seconds()))
        await self.scraped.close()
        for each in list(self._serving):
            await each.uploads.settled()
            self.forget(each)

    async def _drain(self) -> None:
        left = self.in_progress
        if not left:
            return
        self.log.info("stopping: {left} responses may go on for {time}", left=left, time=duration(self._drain_time))
        quiet = DeferredList([front.quiet() for each in self._serving for front in each.fronts], consumeErrors=True)
        await within(self._drain_time, quiet, self._reactor)
        if self.in_progress:
            self.log.warn("stopping: {left} responses are cut off", left=self.in_progress)

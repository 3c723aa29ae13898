"""The running proxy: in which order its parts are built, started and stopped.  Each is built by :mod:`proxy.composition`.

What the configuration says is in a *generation* (:mod:`proxy.composition.generation`).  `ProxyService.succeed` puts another one
in its place: requests that come from then on are answered by that one, and what is under way ends with the one that began it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxy.access.rights import Rights
from proxy.accounts.passwords import SERVER_COST, HashingCost
from proxy.administration.parts import IndexParts, Observed, Proxied
from proxy.administration.statistics import Evaluating
from proxy.composition.caches import sweep
from proxy.composition.commands import Commands, build_commands
from proxy.composition.exposed import tell_exposed
from proxy.composition.figures import ServiceFigures, SpaceFigures
from proxy.composition.generation import Founded, Generation, PresentOperations, build_generation
from proxy.composition.indexes import IndexKind
from proxy.composition.lasting import build_lasting
from proxy.composition.preloading import Preloading
from proxy.composition.probing import Probing
from proxy.composition.reaching import Reaching
from proxy.composition.reloading import Reloading
from proxy.composition.starting import ConfigSource
from proxy.composition.watching import build_watch
from proxy.composition.web import Readiness, Web
from proxy.core.amounts import duration
from proxy.core.health import Phase
from proxy.core.troubles import Trouble
from proxy.errors import ConfigError
from proxy.host.lag import LagMeter
from proxy.host.listening import Listening
from proxy.host.rotation import Rotation
from proxy.host.supervisor import Watchdog, tell_ready, tell_stopping
from proxy.interfaces import Clock, IReceiving
from proxy.mechanism.clocks import steady
from proxy.mechanism.flight import swallow
from proxy.mechanism.rotating import Rotating
from proxy.mechanism.waiting import WaitingRoom
from proxy.model import EMPTY
from proxy.policy.policy import STANDARD, Policy
from proxy.settings import Settings, WarmSettings
from proxy.statistics.metrics import Figure
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.operations import Health
from proxy.web.serving import Front

if TYPE_CHECKING:
    from proxy.administration.operations import Administration
    from proxy.host.following import Following


class ProxyService(MultiService):
    """The running proxy.  Starting it starts the threads and the listeners; stopping it drains responses up to the deadline.

    Unless it is *serving*, nothing listens, nothing is evicted and nobody watches: it is for who works on its data directory.
    When it is *reading*, it listens and works on a copy of what there is, beside the proxy whose data directory it is.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        clock: Clock,
        *,
        policy: Policy = STANDARD,
        rights: Rights | None = None,
        serving: bool = True,
        reading: bool = False,
        kinds: Mapping[str, IndexKind] = EMPTY,
        source: ConfigSource | None = None,
        access_log: bool = True,
        hashing_cost: HashingCost = SERVER_COST,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._serving = serving and not reading
        self._lasting = build_lasting(settings, reactor, clock, reading=reading, hashing_cost=hashing_cost)
        self.storage, self.caches, self.claims = self._lasting.storage, self._lasting.caches, self._lasting.claims
        means = self._lasting.means
        self._rotation = Rotation(self._rotating, reactor, clock)
        statistics, space = self._lasting.statistics, SpaceFigures(self.storage, self.caches)
        evaluating = Evaluating(statistics.book, clock)
        self.waiting = WaitingRoom(settings.server.max_waiting, reactor)
        of_present = (self._look_at_indexes, self._look_at_issuers)
        looks = (self._look_at_commands, self._rotation.look, self.waiting.look, statistics.look, space.look, *of_present)
        self._watch = build_watch(self.storage, self.caches, means, lambda: self.present.access, *looks)
        readiness = Readiness()
        audit = self._lasting.stores.audit
        self.reloading = None if source is None else Reloading(source, self, audit, means.rotation, reactor)
        self._reaching = Reaching(lambda: self.listenings, lambda: self.present.access)
        self._commands: Commands = build_commands(
            PresentOperations(lambda: self.present), self.storage, means, serving=self._serving
        )
        self._founded = Founded(
            policy=policy,
            rights=rights,
            kinds=kinds,
            observed=Observed(
                look=self._watch.look,
                answered=lambda: means.metrics.answers() if self._serving else None,
                saved=means.metrics.saved,
                statistics=evaluating.overview,
                since=means.clock() if self._serving else None,
            ),
            health=Health(lambda: readiness.phase, self._watch.look),
            carrying=self._commands.carrying,
            room=self.waiting,
            space=space.state,
            sessions=BrowserSessions(reactor),
            access_log=access_log,
            reading=reading,
            others={
                "statistics": evaluating.statistics,
                **self._reaching.operations,
                **(EMPTY if self.reloading is None else self.reloading.operations),
            },
        )
        self.present = build_generation(settings, self._lasting, self._founded)
        #: Generations that end what they have begun, each with what fires when it has; and what is being closed after that.
        self._quiet: dict[Generation, Deferred[None]] = {}
        self._closing: set[Deferred[None]] = set()
        listen = settings.server.listen if serving else ()
        self._web = Web(settings, self.present.serving, readiness, means, self.waiting, listen=listen)
        self.probing = Probing(
            settings.server.probe_listen if self._serving else (),
            reactor,
            lambda: readiness.phase,
            lambda: self._watch.troubles,
        )
        self._watchdog = Watchdog(reactor)
        means.metrics.watch(space)
        means.metrics.watch(self._figures)
        self._cleaning: Deferred[None] = succeed(None)
        self._follows = False
        self._following: Following | None = None
        self.listenings, self.admin_sockets = self._web.listenings, self._commands.sockets
        self.metrics_listenings, self.dashboard_listenings = self._web.scraped.listenings, self._web.watched.listenings
        lag, preloading = LagMeter(reactor, means.metrics), Preloading(reactor, means.work)
        regular = (self._watch, statistics.counting, lag, preloading) if self._serving else ()
        for each in (*self._all_listenings, *self.admin_sockets, *regular):
            each.setServiceParent(self)

    # -- what holds at present -----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return self.present.settings

    @property
    def stopping(self) -> bool:
        """Whether it has begun to stop."""
        return self._web.readiness.phase is Phase.STOPPING

    @property
    def front(self) -> Front:
        """What answers requests."""
        return self._web.front

    @property
    def administration(self) -> Administration:
        """What operators may ask for."""
        return self.present.administration

    @property
    def indexes(self) -> Mapping[str, IndexParts]:
        """The indexes, by name."""
        return self.present.indexes.parts

    @property
    def proxied(self) -> Mapping[str, Proxied]:
        """Those that ask upstreams themselves."""
        return self.present.indexes.proxied

    @property
    def receiving(self) -> Mapping[str, IReceiving]:
        """What takes uploads."""
        return self.present.indexes.receiving

    def first_uploader(self, index: str, project: str) -> str | None:
        """Who uploaded first to *project* of *index*."""
        return self.present.indexes.first_uploader(index, project)

    def own_index_url(self) -> str:
        """The default index, with a password by which this process may read everything.  Raises ConfigError."""
        return self._reaching.url()

    # -- another configuration -----------------------------------------------------------------------------------------------

    def follow(self, settings: WarmSettings | None) -> None:
        """Keep ready what *settings* name, and what settings that succeed them name.

        Raises ConfigError when this service listens nowhere it could be asked.
        """
        self._follows = True
        self._replace_following(self._built_following(settings))

    def _built_following(self, settings: WarmSettings | None) -> Following | None:
        if settings is None:
            return None
        # Few services do, and a resolver's modules take a while to load.
        from proxy.composition.warming import build_following

        async def perform(operation: str, **arguments: Any) -> Any:
            return await self.administration.perform(operation, **arguments)

        return build_following(settings, self._reaching, perform, self._reactor)

    def _replace_following(self, following: Following | None) -> None:
        before, self._following = self._following, following
        if before is not None:
            swallow(maybeDeferred(before.disownServiceParent))
        if following is not None:
            following.setServiceParent(self)

    def succeed(self, settings: Settings) -> Deferred[None]:
        """Have *settings* hold from the next request on.  Fires when all that was begun before has ended.

        What needs a new process, such as ``listen`` and ``data_dir``, has to be in *settings* as it is.  Raises ConfigError;
        then everything is as before, as it is while this service stops.
        """
        if self.stopping:
            raise ConfigError("this proxy is stopping: its next start reads the configuration")
        before = self.present
        warms_anew = self._follows and settings.warm != before.settings.warm
        warming = self._built_following(settings.warm) if warms_anew else None
        self.present = build_generation(settings, self._lasting, self._founded)
        self.present.hold()
        self._web.serve(settings, self.present.serving)
        if self.running and self._serving:
            self.present.start()
            tell_exposed(settings)
        if warms_anew:
            self._replace_following(warming)
        self._quiet[before] = Deferred.fromCoroutine(before.quiet())
        return Deferred.fromCoroutine(self._end(before, self._quiet[before]))

    async def _end(self, generation: Generation, quiet: Deferred[None]) -> None:
        """Close what only *generation* holds, when it is *quiet*."""
        try:
            await quiet
        except CancelledError:
            return  # the service stops, and closes everything
        del self._quiet[generation]
        self._web.forget(generation.serving)
        left = generation.holdings.leave()
        left.stop()
        closing = Deferred.fromCoroutine(left.close())
        self._closing.add(closing)
        await closing
        self._closing.discard(closing)

    def hung_up(self) -> None:
        """Read the configuration again, as is wanted by who sends SIGHUP."""
        if self.reloading is not None:
            self.reloading.on_signal()

    # -- start and stop ------------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        sweep(self.storage)
        if self._serving:
            self.caches.begin()
            self._web.tell_limit()
            tell_exposed(self.settings)
            self._cleaning = self.caches.tidy()
            self.present.start()
        super().startService()
        self.probing.start()
        if self._serving:
            self._reactor.callWhenRunning(tell_ready)
            self._watchdog.start()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._take_leave()
        try:
            closed = super().stopService()
            if closed is not None:
                await closed
            await self._web.close()
            self._commands.close()
            self._cleaning.cancel()
            self._watch.close()
            await self._close_generations()
            await self._lasting.close()
        finally:
            self._commands.stop()
            self._lasting.stop()
            await self.probing.stop()
            self._watchdog.stop()

    async def _take_leave(self) -> None:
        """Let balancers and the service manager know that it stops, and go on until balancers have noticed."""
        self._web.readiness.end()
        self.probing.report()
        server = self.settings.server
        if self._serving:
            tell_stopping(server.stop_pause + server.drain_time)
            if server.stop_pause:
                self.log.info("not ready any more: stopping in {time}", time=duration(server.stop_pause))
                await deferLater(self._reactor, server.stop_pause)

    async def _close_generations(self) -> None:
        ending = list(self._quiet)
        for quiet in list(self._quiet.values()):
            quiet.cancel()
        left = [each.holdings.leave() for each in (*ending, self.present)]
        for each in left:
            each.stop()
        await self.caches.files.close()
        for each in left:
            await each.close()
        for closing in list(self._closing):
            await closing

    @property
    def _all_listenings(self) -> Sequence[Listening]:
        return (*self.listenings, *self.metrics_listenings, *self.dashboard_listenings)

    # -- what is looked at regularly -----------------------------------------------------------------------------------------

    def _rotating(self) -> Sequence[Rotating[Any]]:
        """The files that may be replaced while this runs."""
        return [*self.present.rotating, *(file for each in self._all_listenings for file in each.rotating)]

    def _figures(self) -> Iterator[Figure]:
        present = self.present
        return ServiceFigures(present.indexes, self.caches, present.clients, present.access, self._lasting.means)()

    async def _look_at_commands(self) -> Sequence[Trouble]:
        return await self._commands.look()

    async def _look_at_issuers(self) -> Sequence[Trouble]:
        return () if self.present.exchange is None else await self.present.exchange.look()

    async def _look_at_indexes(self) -> Sequence[Trouble]:
        return await self.present.indexes.look()


def build(
    settings: Settings,
    reactor: Any,
    clock: Clock = time.time,
    *,
    policy: Policy = STANDARD,
    rights: Rights | None = None,
    serving: bool = True,
    reading: bool = False,
    kinds: Mapping[str, IndexKind] = EMPTY,
    source: ConfigSource | None = None,
    access_log: bool = True,
    hashing_cost: HashingCost = SERVER_COST,
) -> ProxyService:
    """The service for *settings*; without *serving* all of it but what listens, for those who work on its data directory alone.

    With *reading* it listens beside the proxy that works on the data directory, and changes nothing there.

    *policy* says what clients may see, *rights* what each of them may do, *kinds* how indexes of other kinds are built, or of
    the same ones; *source* is where the settings were read from, if they may be read again; *access_log* is whether each
    request is logged; *hashing_cost* is of new passwords.  *clock* tells the wall time; *reactor* goes by a steady one from
    now on.  Raises ConfigError for what can never be right.
    """
    steady(reactor)
    return ProxyService(
        settings,
        reactor,
        clock,
        policy=policy,
        rights=rights,
        serving=serving,
        reading=reading,
        kinds=kinds,
        source=source,
        access_log=access_log,
        hashing_cost=hashing_cost,
    )

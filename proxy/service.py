"""The running proxy: in which order its rooms are built, started and stopped.  Each is built by :mod:`proxy.composition`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxy.access.principals import WARM
from proxy.access.rights import Rights
from proxy.composition.accounts import build_access, has_own_readers
from proxy.composition.caches import build_caches, sweep
from proxy.composition.claims import build_claims, carried_claims
from proxy.composition.commands import build_commands
from proxy.composition.exposed import tell_exposed
from proxy.composition.figures import ServiceFigures, SpaceFigures
from proxy.composition.group import GroupKind
from proxy.composition.hosted import HostedKind
from proxy.composition.indexes import IndexKind, build_indexes
from proxy.composition.means import build_means
from proxy.composition.probing import Probing
from proxy.composition.process import calm_collector
from proxy.composition.proxied import ProxyKind
from proxy.composition.statistics import build_statistics
from proxy.composition.storage import open_storage, read_storage
from proxy.composition.upstreams import build_clients
from proxy.composition.watching import build_watch
from proxy.composition.web import build_web
from proxy.core.amounts import duration
from proxy.core.troubles import Trouble
from proxy.host.lag import LagMeter
from proxy.host.rotation import Rotation
from proxy.host.supervisor import tell_ready, tell_stopping
from proxy.interfaces import Clock
from proxy.mechanism.clocks import steady
from proxy.mechanism.rotating import Rotating
from proxy.mechanism.waiting import WaitingRoom
from proxy.model import EMPTY
from proxy.policy.policy import STANDARD, Policy
from proxy.settings import Settings, WarmSettings

if TYPE_CHECKING:
    from proxy.composition.ci import BuiltExchange


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
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._settings = settings
        self._serving = serving and not reading
        self._means = build_means(reactor, clock)
        self.storage = (read_storage if reading else open_storage)(settings.server, self._means)
        self.caches = build_caches(
            settings.server, settings.indexes, self.storage, self._means, divided=has_own_readers(settings)
        )
        self._statistics = build_statistics(self.storage, self._means, reading=reading)
        self._clients = build_clients(settings, self.storage.place.name, self._means)
        proxied = ProxyKind(settings, self.storage, self.caches, self._clients, policy, self._means)
        self.claims = build_claims(
            settings,
            self.caches.claims,
            self.caches.records,
            lambda index: self.storage.lists(index, self._means.work),
            self._means.work,
            clock,
        )
        hosted = HostedKind(settings, self.storage, self.caches, policy, self._means, self.claims, reading=reading)
        groups = GroupKind(settings, self.storage, self.claims, self._means)
        built_in = {"proxy": proxied.build, "hosted": hosted.build, "group": groups.build}
        self._indexes = build_indexes(settings.indexes, {**built_in, **kinds})
        self.indexes, self.proxied, self.receiving = self._indexes.parts, self._indexes.proxied, self._indexes.receiving
        self.first_uploader = self._indexes.first_uploader
        self._access = build_access(settings, self.storage, self._means, self.first_uploader, reading=reading)
        self._exchange = self._built_exchange()
        self._rotation = Rotation(self._rotating, reactor, clock)
        issuers = () if self._exchange is None else (self._exchange.look,)
        space = SpaceFigures(self.storage, self.caches)
        self.waiting = WaitingRoom(settings.server.max_waiting, reactor)
        others = (self._look_at_commands, self._rotation.look, self.waiting.look, self._statistics.look, space.look, *issuers)
        self._watch = build_watch(self.storage, self.caches, self._indexes, self._means, *others)
        self._means.metrics.watch(space)
        self._means.metrics.watch(ServiceFigures(self._indexes, self.caches, self._clients, self._access, self._means))
        look = self._watch.look
        carried = partial(carried_claims, settings, self.caches.claims, self.claims)
        self._commands = build_commands(
            self._indexes,
            self.storage,
            self.caches,
            carried,
            self._access,
            self._means,
            self._clients,
            self.claims,
            self._statistics.book,
            look,
            serving=self._serving,
        )
        self.administration = self._commands.administration
        self._web = build_web(
            settings,
            self._indexes,
            self.caches,
            self._clients.identity,
            self._means,
            look,
            self._access,
            rights or self._access.rights,
            self.storage,
            None if self._exchange is None else self._exchange.exchange,
            self.claims,
            self._statistics.book,
            self.waiting,
            serving=serving,
        )
        self.front = self._web.front
        self.probing = Probing(
            settings.server.probe_listen if self._serving else (),
            reactor,
            lambda: self._web.readiness.phase,
            lambda: self._watch.troubles,
        )
        self._cleaning: Deferred[None] = succeed(None)
        self.listenings, self.admin_sockets = self._web.listenings, self._commands.sockets
        lag = LagMeter(reactor, self._means.metrics)
        regular = (self._watch, self._statistics.counting, lag) if self._serving else ()
        self.metrics_listenings = self._web.scraped.listenings
        for each in (*self.listenings, *self.metrics_listenings, *self.admin_sockets, *regular):
            each.setServiceParent(self)

    def follow(self, settings: WarmSettings) -> None:
        """Keep ready what *settings* name.  Raises ConfigError when this service listens nowhere it could be asked."""
        # Few services do, and a resolver's modules take a while to load.
        from proxy.composition.warming import build_following

        build_following(settings, self.listenings, self._access, self.administration, self._reactor).setServiceParent(self)

    def own_index_url(self) -> str:
        """The default index at the first listener, with a password by which this process may read everything."""
        return self._access.entrusted(self.listenings[0].local_url(), WARM)

    def startService(self) -> None:
        calm_collector()
        sweep(self.storage)
        if self._serving:
            self.caches.begin()
            self._web.tell_limit()
            tell_exposed(self._settings)
            self._cleaning = self.caches.tidy()
            self._indexes.start()
        super().startService()
        self.probing.start()
        if self._serving:
            self._reactor.callWhenRunning(tell_ready)

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
            self._indexes.stop()
            await self.caches.files.close()
            await self._indexes.close()
            await self._clients.close()
            await self.caches.close()
            if self._exchange is not None:
                await self._exchange.close()
            await self._access.close()
            await self._statistics.close()
            await self.storage.close()
        finally:
            self._access.stop()
            self._commands.stop()
            self._means.stop()
            self._statistics.stop()
            self.storage.stop()
            await self.probing.stop()

    async def _take_leave(self) -> None:
        """Let balancers and the service manager know that it stops, and go on until balancers have noticed."""
        self._web.readiness.end()
        self.probing.report()
        server = self._settings.server
        if self._serving:
            tell_stopping(server.stop_pause + server.drain_time)
            if server.stop_pause:
                self.log.info("not ready any more: stopping in {time}", time=duration(server.stop_pause))
                await deferLater(self._reactor, server.stop_pause)

    def _rotating(self) -> Sequence[Rotating[Any]]:
        """The files that may be replaced while this runs."""
        of_listeners = (file for each in (*self.listenings, *self.metrics_listenings) for file in each.rotating)
        return [
            *self._clients.rotating,
            *of_listeners,
            *self._access.rotating,
            *([] if self._exchange is None else self._exchange.rotating),
        ]

    def _built_exchange(self) -> BuiltExchange | None:
        if self._settings.ci is None:
            return None
        # Few services have one, and what verifies signatures takes a while to load.
        from proxy.composition.ci import build_exchange

        access = self._access
        return build_exchange(self._settings.ci, self._clients.identity, access.jobs, access.audit, self._means)

    async def _look_at_commands(self) -> Sequence[Trouble]:
        return await self._commands.look()


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
) -> ProxyService:
    """The service for *settings*; without *serving* all of it but what listens, for those who work on its data directory alone.

    With *reading* it listens beside the proxy that works on the data directory, and changes nothing there.

    *policy* says what clients may see, *rights* what each of them may do, *kinds* how indexes of other kinds are built, or of
    the same ones.  *clock* tells the wall time; *reactor* goes by a steady one from now on.  Raises ConfigError for what can
    never be right.
    """
    steady(reactor)
    return ProxyService(settings, reactor, clock, policy=policy, rights=rights, serving=serving, reading=reading, kinds=kinds)

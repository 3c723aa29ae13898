"""The composition: the one place that names concrete classes and puts the house together."""

from __future__ import annotations

import gc
import random
import resource
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.logger import Logger

import proxy
from proxy.access.forwarded import TrustedProxies
from proxy.administration.operations import Administration
from proxy.administration.parts import IndexParts, Parts
from proxy.cache.documents import DocumentCache
from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.cache.migration import LEDGER, LEDGER_COPY
from proxy.cache.pages import PageCache
from proxy.cache.pinned import PinnedBook
from proxy.cache.projects import ProjectList
from proxy.cache.records import DOCUMENTS, PROJECTS, HeadedRecords, remove_missing
from proxy.cache.refreshed import Terms
from proxy.cache.room import Room
from proxy.cache.usage import UsageBook
from proxy.core.troubles import Reason, Trouble
from proxy.errors import ConfigError, StorageFailed
from proxy.host.adminsocket import AdminSocket
from proxy.host.listening import Listening
from proxy.host.supervisor import tell_ready
from proxy.host.watch import Watch
from proxy.interfaces import Clock, IUpstreams
from proxy.mechanism.clocks import steady
from proxy.mechanism.offload import Offload
from proxy.model import Condition, DocumentReply, Validators
from proxy.policy.policy import STANDARD, Policy
from proxy.repository.documents import Documents, ProvenancePlaces
from proxy.repository.hosts import FileHosts
from proxy.repository.metadata import Sidecars
from proxy.repository.presence import Presence
from proxy.repository.proxying import ProxyRepository
from proxy.repository.sources import Offering, Sources
from proxy.settings import MIB, IndexSettings, ServerSettings, Settings
from proxy.statistics.metrics import Metrics
from proxy.storage.lists import ListFiles
from proxy.storage.local import LocalFiles
from proxy.storage.memory import RecentRecords
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.place import Place
from proxy.storage.records import DiskRecords
from proxy.storage.spare import SpareRecords
from proxy.upstream.http.identity import Identity
from proxy.upstream.offline import Offline
from proxy.upstream.pool.upstream import Upstream
from proxy.upstream.pool.upstreams import Upstreams
from proxy.web.admin import Admin, site
from proxy.web.callers import Callers
from proxy.web.connections import RESERVE, BoundedSite
from proxy.web.documents import JsonDocuments
from proxy.web.files import Files
from proxy.web.hot import HotRequests
from proxy.web.operations import Operations
from proxy.web.pages import Pages
from proxy.web.patience import Patience
from proxy.web.renderings import Renderings
from proxy.web.routes import UrlSpace
from proxy.web.serving import Front
from proxy.web.site import ROUTES, Routes

#: Threads that wait for the disk, and threads that parse, render and compress.
_DISK_THREADS = 8
_WORK_THREADS = 2
#: Memory for pages and documents that cannot be written (bytes), and indexes named in one line.
_UNWRITTEN = 32 * MIB
_NAMED = 10
#: How ``page_memory`` is divided.
_FOR_RENDERINGS, _FOR_PARSED, _FOR_PINS, _FOR_HOT, _FOR_SMALL_FILES, _FOR_DOCUMENTS = 0.35, 0.25, 0.1, 0.1, 0.15, 0.05


#: Descriptors of the process itself (database, log, threads), those of a client that is sent a file, and how few clients there
#: may be in the end.
_OWN_DESCRIPTORS, _DESCRIPTORS_EACH, _LEAST_CONNECTIONS = 48, 2, 4
#: Seconds between two log lines that say that there is no room for more clients.
_TELL_EVERY = 60.0


class ProxyService(MultiService):
    """The running proxy.  Starting it starts the threads and the listeners; stopping it drains responses up to the deadline."""

    log = Logger()

    def __init__(
        self, settings: Settings, reactor: Any, clock: Clock, *, policy: Policy = STANDARD, serving: bool = True
    ) -> None:
        super().__init__()
        self._policy = policy
        server = settings.server
        self._reactor = reactor
        self._drain_time = server.drain_time
        self._stopping = False
        self._serving = serving
        self._told_full: float | None = None
        self.metrics = Metrics()
        self._disk = Offload(reactor, _DISK_THREADS, "disk")
        self._work = Offload(reactor, _WORK_THREADS, "work")
        self._clock = clock
        self._place = Place(server.data_dir, clock, reactor.seconds)
        # SQLite wants one thread each.
        self._database_threads = [Offload(reactor, 1, name) for name in ("records", "ledger")]
        self._databases = records, ledger = self._open_databases(server.data_dir, *self._database_threads)
        self._records = SpareRecords(records, RecentRecords(_UNWRITTEN))
        self.store = LocalFiles(server.data_dir, self._disk, self.metrics, self._place.prepare, self._place.failed)
        via = f"pypiproxy-{self._place.name}"
        self.ledger = pins = Ledger(ledger, int(server.page_memory * _FOR_PINS), self._work)
        self.usage = UsageBook(self.store, self._disk, clock)
        self.kept = PinnedBook(ledger, pins, self.store)
        self.room = self._room(server)
        self._files = FileCache(self.store, self._disk, self.metrics, self.usage.used, self.room, later=reactor.callLater)
        identity = Identity(user_agent=_user_agent(server.contact), via=via)
        self.clients = {
            each.name: Upstream(
                each,
                reactor=reactor,
                offload=self._work,
                identity=identity,
                rng=random.Random(),  # noqa: S311  # jitter, no secret
                clock=clock,
            )
            for each in settings.upstreams
        }
        self._cleaning: Deferred[None] = succeed(None)
        self._closing: list[PageCache | Documents | Sidecars | ProxyRepository | Watch] = []
        self._data_dir = server.data_dir
        self._hosts = FileHosts(settings.upstreams)
        page_memory = int(server.page_memory * _FOR_PARSED / max(1, len(settings.indexes)))
        self.indexes = {index.name: self._index(index, pins, page_memory) for index in settings.indexes}
        self._watch = Watch(
            [self._look_at_place, self._look_at_databases, self._look_at_commands, self._look_at_upstreams],
            reactor,
            self.metrics.degraded,
        )
        self._closing.append(self._watch)
        self.administration = Administration(
            Parts(
                indexes=self.indexes,
                store=self.store,
                records=records,
                pins=pins,
                kept=self.kept,
                usage=self.usage,
                disk=self._disk,
                work=self._work,
                reactor=reactor,
                clock=clock,
                look=self._watch.look,
                evicting=self.room.limited,
                answered=lambda: self.metrics.answers() if serving else None,
            )
        )
        default = next((index.name for index in settings.indexes if index.default), None)
        self._routes = Routes(
            {name: index.repository for name, index in self.indexes.items()},
            Pages(Renderings(self._work, int(server.page_memory * _FOR_RENDERINGS))),
            Files(int(server.page_memory * _FOR_SMALL_FILES), self.usage.used),
            JsonDocuments(self._work, int(server.page_memory * _FOR_DOCUMENTS)),
            Operations(lambda: not self._stopping, self._watch.look, self.metrics.exposition),
            identity,
        )
        hot = HotRequests(clock, via, int(server.page_memory * _FOR_HOT))
        callers = Callers(TrustedProxies(server.trusted_proxies))
        self.front = Front(
            self._routes,
            hot,
            callers,
            reactor,
            self._disk,
            via=via,
            patience=Patience(stall_timeout=server.stall_timeout),
            space=UrlSpace(ROUTES, self.indexes, default),
            recorder=self.metrics,
        )
        self.metrics.in_progress.set_function(lambda: self.front.in_progress)
        upstream = sum(each.max_connections for each in settings.upstreams)
        self._descriptors = _raise_descriptor_limit()
        limit = _affordable(server.max_connections, self._descriptors, upstream)
        self._lowered = limit < server.max_connections
        self._site = BoundedSite(self.front, reactor, limit, server.idle_timeout, self._full)
        self._admin = Admin(self.administration.operations)
        self.listenings = [
            Listening(description, self._site, reactor, self._site.make_room) for description in server.listen if serving
        ]
        self.admin_sockets = (
            [AdminSocket(server.data_dir, site(self._admin, reactor), reactor, self._place.is_ours)] if serving else []
        )
        for each in (*self.listenings, *self.admin_sockets, *([self._watch] if serving else [])):
            each.setServiceParent(self)

    def _open_databases(self, data_dir: Path, for_records: Offload, for_ledger: Offload) -> tuple[DiskRecords, MirroredRecords]:
        """The database of what can be fetched again, and that of what cannot."""
        clock, steady, ours = self._clock, self._reactor.seconds, self._place.is_ours
        return (
            DiskRecords(data_dir / "records", for_records, clock=clock, steady=steady, ours=ours, recorder=self.metrics),
            MirroredRecords(
                data_dir / LEDGER,
                data_dir / LEDGER_COPY,
                for_ledger,
                clock=clock,
                steady=steady,
                ours=ours,
                recorder=self.metrics,
            ),
        )

    async def _look_at_place(self) -> Sequence[Trouble]:
        return await self._disk.run(self._place.look)

    async def _look_at_databases(self) -> Sequence[Trouble]:
        records, ledger = self._databases
        looks = [Deferred.fromCoroutine(records.look()), Deferred.fromCoroutine(ledger.look())]
        reasons = {name: await look for name, look in zip((records.name, ledger.name), looks, strict=True)}
        if not any(reasons.values()):
            try:
                await self.ledger.mend()
            except StorageFailed as error:
                reasons[LEDGER] = str(error)
        troubles = [_database_trouble(name, why) for name, why in reasons.items() if why is not None]
        return [*troubles, *await self._disk.run(self._place.news)]

    async def _look_at_commands(self) -> Sequence[Trouble]:
        return [trouble for each in self.admin_sockets if (trouble := await each.look()) is not None]

    async def _look_at_upstreams(self) -> Sequence[Trouble]:
        down = [name for name, index in self.indexes.items() if index.upstreams.condition() is Condition.DOWN]
        if not down:
            return []
        names = ", ".join(down[:_NAMED]) + (", …" if len(down) > _NAMED else "")
        words = f"no upstream answers for {names}: what is cached is served; pypiproxy upstreams says why"
        return [Trouble(Reason.UPSTREAM, words)]

    def _room(self, server: ServerSettings) -> Room:
        there = self.store.capacity()
        if server.min_free is not None and there is not None and server.min_free > there:
            self._place.close()
            raise ConfigError(
                f"server.min_free = {server.min_free:,} bytes: the file system of {server.data_dir} has {there:,} bytes in all"
            )
        return Room(
            self.store,
            self.usage,
            self.kept,
            self._disk,
            self._reactor,
            max_size=server.max_size,
            min_free=server.min_free,
            recorder=self.metrics,
            clock=self._clock,
        )

    def _index(self, index: IndexSettings, pins: Ledger, page_memory: int) -> IndexParts:
        pool: Offline | Upstreams = Offline(index.name) if index.offline else self._pool(index)
        terms = Terms(index.limits, self._reactor, self._clock, self.metrics)
        pages = PageCache(
            index.name,
            pool,
            self._records,
            self._work,
            terms,
            page_memory,
            pins.sightings,
        )
        documents = self._documents(index, pool, pages, terms)
        metadata = Sidecars(self._files, pins, self._work, self._clock, self._reactor, self.metrics)
        self._closing += [pages, documents, metadata]

        sources = Sources(name=index.name, upstreams=pool, pages=pages, files=self._files, ledger=pins)

        def repository(policy: Policy, *, prefetch: bool) -> ProxyRepository:
            presence = Presence(self.store, self._work) if index.offline else None
            offering = Offering(policy=policy, hosts=self._hosts, presence=presence, prefetch=prefetch)
            return ProxyRepository(sources, offering, metadata, documents, self._work, self._clock, self.metrics)

        offered = repository(self._policy, prefetch=index.prefetch and not index.offline)
        self._closing.append(offered)
        return IndexParts(offered, repository(Policy(), prefetch=False), pages, documents, pool)

    def _pool(self, index: IndexSettings) -> Upstreams:
        return Upstreams(
            index,
            [self.clients[name] for name in index.upstreams],
            reactor=self._reactor,
            offload=self._work,
            recorder=self.metrics,
            clock=self._clock,
        )

    def _documents(self, index: IndexSettings, pool: IUpstreams, pages: PageCache, terms: Terms) -> Documents:
        name = index.name

        places = ProvenancePlaces(name)

        def provenance(key: str, known: Validators | None) -> Awaitable[DocumentReply]:
            return pool.companion(places.wanted(key), known)

        def records(kind: str) -> HeadedRecords:
            return HeadedRecords(kind, name, self._records, self._work)

        documents = records(DOCUMENTS)
        lists = ListFiles(self._data_dir / "lists" / name, self._work, self._place.prepare)
        return Documents(
            DocumentCache(pool, pool.document, documents, terms),
            DocumentCache(pool, provenance, documents, terms),
            places,
            ProjectList(name, pool, pages, records(PROJECTS), lists, self._work, self._policy, terms),
        )

    def startService(self) -> None:
        if self._serving and self._lowered:
            self.log.warn(
                "server.max_connections is lowered to {limit}: this process may have {descriptors} open files (LimitNOFILE)",
                limit=self._site.limit,
                descriptors=self._descriptors,
            )
        _calm_collector()
        if self._serving:
            self._cleaning = Deferred.fromCoroutine(remove_missing(self._records))
            self._cleaning.addErrback(lambda failure: failure.trap(CancelledError, StorageFailed) and None)
        swept = Deferred.fromCoroutine(self.store.sweep())
        swept.addErrback(lambda failure: self.log.failure("partial files could not be swept", failure))
        if self._serving:
            self.room.start()  # who works on the data directory alone evicts nothing
        super().startService()
        if self._serving:
            self._reactor.callWhenRunning(tell_ready)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        try:
            await self._close()
        finally:
            # A thread that is left would keep the process alive for ever.
            for each in (self._work, self._disk, *self._database_threads):
                each.stop()

    async def _close(self) -> None:
        closed = super().stopService()
        if closed is not None:
            await closed
        self._site.wind_down()
        until = self._reactor.seconds() + self._drain_time
        await self._drain()
        await self._site.close(max(0.0, until - self._reactor.seconds()))
        self._admin.close()
        self._cleaning.cancel()
        for each in self._closing:
            each.close()
        await self._files.close()
        pools = [Deferred.fromCoroutine(index.upstreams.close()) for index in self.indexes.values()]
        await DeferredList(pools, consumeErrors=True)
        await DeferredList([Deferred.fromCoroutine(client.close()) for client in self.clients.values()], consumeErrors=True)
        await self.room.stop()
        await self.ledger.sightings.write()
        with suppress(StorageFailed):
            await self.ledger.mend()
        await self.store.close()
        for database in self._databases:
            await database.close()
        self._place.close()

    async def _drain(self) -> None:
        """Let responses in progress go on until they end or the deadline comes."""
        left = self.front.in_progress
        if not left:
            return
        self.log.info("stopping: {left} responses may go on for {seconds} s", left=left, seconds=self._drain_time)
        quiet = self.front.quiet()
        deadline = self._reactor.callLater(self._drain_time, quiet.cancel)
        try:
            await quiet
        except CancelledError:
            self.log.warn("stopping: {left} responses are cut off", left=self.front.in_progress)
        if deadline.active():
            deadline.cancel()

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


def build(
    settings: Settings, reactor: Any, clock: Clock = time.time, *, policy: Policy = STANDARD, serving: bool = True
) -> ProxyService:
    """The service for *settings*; without *serving* all of it but what listens, for those who work on its data directory alone.

    *policy* says what clients may see.  *clock* tells the wall time; *reactor* goes by a steady one from now on.  Raises
    ConfigError for what can never be right.
    """
    steady(reactor)
    return ProxyService(settings, reactor, clock, policy=policy, serving=serving)


def _database_trouble(name: str, why: str) -> Trouble:
    return Trouble(Reason.DATABASE, f"the database {name} takes nothing ({why}): what is new is kept in memory; check the disk")


def _user_agent(contact: str | None) -> str:
    return f"pypiproxy/{proxy.__version__}" + (f" (+{contact})" if contact else "")


def _calm_collector() -> None:
    """Keep the garbage collector from looking at everything again and again.

    A parsed page of 40,000 files is 40,000 objects without a cycle among them; a full collection that visits them stops the
    reactor for some 50 ms (docs/libraries.md).  What is there now stays for good, and young garbage is looked for less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _raise_descriptor_limit() -> int:
    """Every client, upstream connection and open file is a descriptor: take as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # a sandbox may forbid it, and fewer will do
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _affordable(wanted: int, descriptors: int, upstream: int) -> int:
    """How many of *wanted* client connections can have their descriptors, of which *upstream* connections need some too."""
    left = descriptors - _OWN_DESCRIPTORS - upstream - RESERVE
    return max(_LEAST_CONNECTIONS, min(wanted, left // _DESCRIPTORS_EACH))

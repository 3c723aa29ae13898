"""What a scrape of ``/-/metrics`` reads of a running service: gauges, from what is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from proxy.composition.accounts import AccessRoom
from proxy.composition.caches import Caches
from proxy.composition.indexes import Indexes
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.composition.upstreams import Clients
from proxy.core.troubles import Trouble
from proxy.errors import StorageFailed
from proxy.host.listening import Listening
from proxy.statistics import definitions as d
from proxy.statistics.address_labels import OTHER
from proxy.statistics.metrics import Figure, Metrics
from proxy.web.dashboard.state import SpaceState
from proxy.web.serving import Front


class SpaceFigures:
    """The store and its file system.  What free space there is is looked at regularly, in a thread."""

    def __init__(self, storage: Storage, caches: Caches) -> None:
        self._files = storage.files
        self._room = caches.room
        self._free: int | None = None

    async def look(self) -> Sequence[Trouble]:
        """Look how much is free; what is wrong with the disk, others tell."""
        self._free = None
        with suppress(StorageFailed):
            self._free = await self._files.free()
        return ()

    def state(self) -> SpaceState:
        """What is known of it now, without a look."""
        counted = self._room.counted
        stored, files = (None, None) if counted is None else (counted.size, counted.files)
        return SpaceState(stored, files, self._room.max_size, self._free)

    def __call__(self) -> Iterator[Figure]:
        if self._free is not None:
            yield d.DISK_FREE, (), self._free
        if self._room.counted is not None:
            yield d.STORE_BYTES, (), self._room.counted.size
            yield d.STORE_FILES, (), self._room.counted.files


class ServiceFigures:
    """All else: upstreams, queues, work under way, threads."""

    def __init__(self, indexes: Indexes, caches: Caches, clients: Clients, access: AccessRoom, means: Means) -> None:
        self._indexes = indexes
        self._files = caches.files
        self._clients = clients
        self._accounts = access.accounts
        self._metrics: Metrics = means.metrics
        self._pools = {
            d.ThreadPool.DISK: means.disk,
            d.ThreadPool.WORK: means.work,
            d.ThreadPool.CHECKING: means.checking,
            d.ThreadPool.ROTATION: means.rotation,
            d.ThreadPool.PASSWORDS: access.stores.hashing,
        }

    def __call__(self) -> Iterator[Figure]:
        yield d.DOWNLOADS, (), self._files.downloads
        yield d.QUEUE_LENGTH, ("passwords",), self._accounts.waiting
        for kind in d.FlightKind:
            if kind is d.FlightKind.REQUEST:
                continue  # is read where clients are answered
            flights = [each for built in self._indexes.built.values() for each in built.under_way.get(kind, ())]
            yield d.FLIGHTS, (kind.value,), sum(map(len, flights))
            yield d.WAITERS, (kind.value,), sum(each.waiting for each in flights)
        for pool, threads in self._pools.items():
            yield d.THREAD_QUEUE, (pool.value,), threads.waiting
            yield d.THREADS_BUSY, (pool.value,), threads.busy
        for name, client in self._clients.by_name.items():
            state = client.state()
            yield d.UPSTREAM_UP, (name,), client.works
            yield d.QUEUE_LENGTH, (f"upstream:{name}",), state.waiting
            for address in state.addresses:
                label = self._metrics.address_label(name, address)
                if label != OTHER:
                    yield d.UPSTREAM_ADDRESS_UP, (name, label), address not in state.resting
            if client.certificate_expires is not None:
                yield d.CERTIFICATE_EXPIRY, (f"upstream {name}",), client.certificate_expires


class WebFigures:
    """Clients, and the certificates that they are presented at *listenings*, by the key that these are set by."""

    def __init__(self, fronts: Callable[[], Sequence[Front]], listenings: Mapping[str, Sequence[Listening]]) -> None:
        self._fronts = fronts
        self._listenings = listenings

    def __call__(self) -> Iterator[Figure]:
        fronts = self._fronts()
        yield d.IN_PROGRESS, (), sum(each.in_progress for each in fronts)
        yield d.FLIGHTS, (d.FlightKind.REQUEST.value,), sum(each.sharing.under_way for each in fronts)
        yield d.WAITERS, (d.FlightKind.REQUEST.value,), sum(each.sharing.waiting for each in fronts)
        for key, listenings in self._listenings.items():
            for number, each in enumerate(listenings, 1):
                if each.expires is not None:
                    yield d.CERTIFICATE_EXPIRY, (f"{key} {number}",), each.expires

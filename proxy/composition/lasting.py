"""What of a service lasts as long as its process, whatever its configuration becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from proxy.accounts.passwords import HashingCost
from proxy.composition.accounts import AccountStores, LoginRoom, build_account_stores, divides_bytes
from proxy.composition.caches import Caches, build_caches
from proxy.composition.claims import build_claims, hosted_names, merged_names, neighbours_of, owned_patterns
from proxy.composition.indexes import BuiltIndex
from proxy.composition.means import Means, build_means
from proxy.composition.shared import SharedParts
from proxy.composition.statistics import StatisticsRoom, build_statistics
from proxy.composition.storage import Storage, open_storage, read_storage
from proxy.interfaces import Clock
from proxy.repository.claiming import Claims
from proxy.settings import Settings
from proxy.upstream.http.identity import Identity
from proxy.upstream.pool.upstream import Upstream

if TYPE_CHECKING:
    from proxy.composition.ci import BuiltExchange


class SharedRooms(Struct, frozen=True, kw_only=True):
    """What generations share as long as their configurations agree about it."""

    identities: SharedParts[Identity] = field(default_factory=SharedParts)
    clients: SharedParts[Upstream] = field(default_factory=SharedParts)
    indexes: SharedParts[BuiltIndex] = field(default_factory=SharedParts)
    logins: SharedParts[LoginRoom] = field(default_factory=SharedParts)
    exchanges: SharedParts[BuiltExchange] = field(default_factory=SharedParts)


class Lasting(Struct, frozen=True, kw_only=True):
    """All of it.  *shared* are the parts that one generation takes over from another."""

    means: Means
    storage: Storage
    caches: Caches
    claims: Claims
    stores: AccountStores
    statistics: StatisticsRoom
    shared: SharedRooms = field(default_factory=SharedRooms)

    def configure(self, settings: Settings) -> None:
        """Work within *settings* from now on."""
        caches, server = self.caches, settings.server
        caches.claims.configure(owned_patterns(settings.indexes), merged_names(settings))
        self.claims.configure(neighbours_of(settings))
        caches.pinned.configure(hosted_names(settings))
        proxies = [each.name for each in settings.indexes if each.kind == "proxy"]
        caches.private.configure(proxies, divided=divides_bytes(settings))
        caches.room.configure(server.max_size, server.min_free)
        self.stores.configure(settings.access)

    async def close(self) -> None:
        """Write what is in memory only, and close files and databases."""
        await self.caches.close()
        await self.stores.close()
        await self.statistics.close()
        await self.storage.close()

    def stop(self) -> None:
        """End the threads."""
        self.stores.hashing.stop()
        self.means.stop()
        self.statistics.stop()
        self.storage.stop()


def build_lasting(settings: Settings, reactor: Any, clock: Clock, *, reading: bool, hashing_cost: HashingCost) -> Lasting:
    """What lasts of a service that begins with *settings*.  Raises ConfigError."""
    means = build_means(reactor, clock)
    storage = (read_storage if reading else open_storage)(settings.server, means)
    caches = build_caches(settings, storage, means, divided=divides_bytes(settings))
    statistics = build_statistics(storage, means, reading=reading)
    claims = build_claims(
        settings, caches.claims, caches.records, lambda index: storage.lists(index, means.work), means.work, clock
    )
    stores = build_account_stores(settings.access, storage, means, reading=reading, hashing_cost=hashing_cost)
    return Lasting(means=means, storage=storage, caches=caches, claims=claims, stores=stores, statistics=statistics)

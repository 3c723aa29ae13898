"""What is looked at regularly: the parts of a service that may fail while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.composition.caches import Caches
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.core.troubles import Trouble
from proxy.host.watch import Look, Watch


def build_watch(
    storage: Storage,
    caches: Caches,
    means: Means,
    *others: Look,
) -> Watch:
    """A watch over all of these, and over what *others* look at."""

    async def place() -> Sequence[Trouble]:
        return await means.disk.run(storage.place.look)

    async def databases() -> Sequence[Trouble]:
        troubles = await storage.look() or await caches.mend()
        return [*troubles, *await means.disk.run(storage.place.news)]

    return Watch([place, databases, *others], means.reactor, means.metrics.degraded)

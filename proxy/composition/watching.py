"""What is looked at regularly: the parts of a service that may fail while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.composition.accounts import AccessRoom
from proxy.composition.caches import Caches
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.core.troubles import Trouble
from proxy.host.watch import Look, Watch


def build_watch(
    storage: Storage,
    caches: Caches,
    means: Means,
    access: Callable[[], AccessRoom],
    *others: Look,
) -> Watch:
    """A watch over all of these, over the present *access*, and over what *others* look at."""

    async def place() -> Sequence[Trouble]:
        return await means.disk.run(storage.place.look)

    async def databases() -> Sequence[Trouble]:
        troubles = await storage.look() or await caches.mend()
        return [*troubles, *await means.disk.run(storage.place.news)]

    async def rights() -> Sequence[Trouble]:
        return [*await caches.look_at_claims(), *await access().look(means.reactor)]

    return Watch([place, databases, rights, *others], means.reactor, means.metrics.degraded)

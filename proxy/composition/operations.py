"""What operators may ask for, put together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from proxy.administration.accounts import Accounting
from proxy.administration.claiming import Claiming
from proxy.administration.hosting import Hosting
from proxy.administration.operations import Administration
from proxy.administration.parts import Observed, Working, chosen_hosted
from proxy.bundle.cache import CarriedClaims, IndexCache
from proxy.bundle.hosted_tree import HOSTED
from proxy.bundle.saving import Saving
from proxy.bundle.taking import Taking
from proxy.bundle.targets import Targets
from proxy.cache.records import PAGES, HeadedRecords
from proxy.composition.accounts import AccessRoom
from proxy.composition.caches import Caches, stores_of
from proxy.composition.claims import carried_claims
from proxy.composition.indexes import Indexes
from proxy.composition.means import Means
from proxy.composition.moving import opening
from proxy.composition.storage import Storage
from proxy.composition.upstreams import Clients
from proxy.interfaces import IOwnership, Operation
from proxy.mechanism.offload import Offload
from proxy.model import EMPTY
from proxy.moving.operation import Importer
from proxy.settings import Settings


def build_administration(
    settings: Settings,
    indexes: Indexes,
    storage: Storage,
    caches: Caches,
    access: AccessRoom,
    means: Means,
    clients: Clients,
    claims: IOwnership,
    observed: Observed,
    carrying: Offload,
    others: Mapping[str, Operation] = EMPTY,
) -> Administration:
    """The operations on *indexes*, and *others*; *observed* is what is known of the running service.

    *access* has users and tokens, *carrying* is a thread for bundles.
    """
    carried = partial(carried_claims, settings, caches.claims, claims)
    return Administration(
        indexes.parts,
        stores_of(settings.server, storage, caches),
        Working(disk=means.disk, work=means.work, reactor=means.reactor, clock=means.clock),
        observed,
        {
            "import": _taking(indexes, storage, caches, carried, carrying, means).take,
            "backup": _saving(storage, caches, carrying, means).backup,
            "hosted_import": Importer(partial(chosen_hosted, indexes.parts), opening(clients, means), claims).run,
            **Hosting(indexes.parts, means.work).operations,
            **Claiming(indexes.parts, caches.claims, means.clock).operations,
            **Accounting(indexes.parts, access.logins.users, access.stores.tokens, access.accounts, means.clock).operations,
            **others,
        },
        indexes.default,
        access.audit,
    )


def _saving(storage: Storage, caches: Caches, carrying: Offload, means: Means) -> Saving:
    def scratch() -> Path:
        # What is left there by a crash is swept at the next start.
        storage.place.prepare(storage.directory / "partial")
        return Path(tempfile.mkdtemp(prefix="backup.", dir=storage.directory / "partial"))

    return Saving(
        ledger=storage.ledger,
        records=storage.records,
        files=storage.files,
        usage=caches.usage,
        hosted=storage.directory / HOSTED,
        scratch=scratch,
        offload=carrying,
        clock=means.clock,
        reactor=means.reactor,
    )


def _taking(
    indexes: Indexes,
    storage: Storage,
    caches: Caches,
    carried: Callable[[str], CarriedClaims],
    carrying: Offload,
    means: Means,
) -> Taking:
    def cache(name: str) -> IndexCache:
        pages = HeadedRecords(PAGES, name, caches.records, carrying)
        return IndexCache(name, pages, caches.ledger, caches.pinned, storage.files, carrying, claims=carried(name))

    def targets(name: str) -> Targets:
        leaves = indexes.parts[name].repository.leaves
        return Targets(
            name,
            {leaf: cache(leaf) for leaf in leaves if leaf in indexes.proxied},
            {leaf: hosted for leaf in leaves if (hosted := indexes.parts[leaf].hosted) is not None},
            carrying,
            carried(name),
        )

    return Taking(
        targets={name: targets(name) for name in indexes.parts},
        default=indexes.default,
        replaced=lambda index, project: indexes.proxied[index].pages.replaced(project),
        stored=caches.room.committed,
        reactor=means.reactor,
    )

"""The operations by name: what the admin interface serves, and what commands perform themselves when no proxy runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

from proxy.administration.auditing import audited
from proxy.administration.parts import IndexParts, Observed, Stores, Working, chosen_proxied
from proxy.administration.pinning import Pinning
from proxy.administration.purging import Purging
from proxy.administration.stock import Stock
from proxy.administration.verifying import Verifying
from proxy.interfaces import IAuditLog, Operation, Report
from proxy.model import EMPTY


class Administration:
    """All operations on *indexes* and *stores*, and *others*; *default* is the index that clients get without naming one.

    *audit* is told of those that change something.

    Each takes a callable for what it has to say on its way, and arguments by name.  They
    raise ProxyError: BadRequest for arguments that make no sense, NotFound for what is not there.
    """

    def __init__(
        self,
        indexes: Mapping[str, IndexParts],
        stores: Stores,
        working: Working,
        observed: Observed,
        others: Mapping[str, Operation] = EMPTY,
        default: str | None = None,
        audit: IAuditLog | None = None,
    ) -> None:
        self.indexes = indexes
        self.stores = stores
        self.working = working
        stock, purging = Stock(indexes, stores, working, observed, default), Purging(indexes, stores, working.clock)
        operations: dict[str, Operation] = {
            "upstreams": self.upstreams,
            "stats": stock.stats,
            "ls": stock.ls,
            "recent": stock.recent,
            "purge": purging.purge,
            "purge_index": purging.purge_index,
            "purge_unused": purging.purge_unused,
            "refresh": purging.refresh,
            "verify": Verifying(indexes, stores, working).verify,
            **Pinning(indexes, stores).operations,
            **others,
        }
        self.operations: Mapping[str, Operation] = operations if audit is None else audited(operations, audit)

    async def perform(self, operation: str, **arguments: Any) -> Any:
        """What *operation* gives; what it has to say on its way is not heard.  Raises ProxyError."""
        return await self.operations[operation](lambda said: None, **arguments)

    async def upstreams(self, report: Report, index: str | None = None) -> list[dict[str, Any]]:
        """How the upstreams of each index stand, in order of preference."""
        indexes = chosen_proxied(self.indexes, index)
        for each in indexes.values():
            await each.upstreams.look()
        return [{"index": name, **asdict(state)} for name, each in indexes.items() for state in each.upstreams.states()]

"""The parts of a service that operations work on."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from proxy.cache.kept import KeptBook
from proxy.cache.pages import PageCache
from proxy.cache.usage import UsageBook
from proxy.errors import NotFound
from proxy.interfaces import IRepository
from proxy.upstream.pool import Upstreams


@frozen
class IndexParts:
    """One index."""

    repository: IRepository
    pages: PageCache
    upstreams: Upstreams


@frozen(kw_only=True)
class Parts:
    """All that a data directory is made of."""

    indexes: Mapping[str, IndexParts]
    usage: UsageBook
    kept: KeptBook

    def chosen(self, index: str | None) -> Mapping[str, IndexParts]:
        """The index of that name, or all of them.  Raises NotFound."""
        if index is None:
            return self.indexes
        if index not in self.indexes:
            raise NotFound(f"there is no index named {index!r} here; there is {', '.join(sorted(self.indexes))}")
        return {index: self.indexes[index]}

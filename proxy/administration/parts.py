"""The parts of a service that operations work on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from proxy.cache.ledger import Ledger
from proxy.cache.pages import PageCache
from proxy.cache.pinned import PinnedBook
from proxy.cache.usage import UsageBook
from proxy.core.troubles import Trouble
from proxy.errors import BadRequest, NotFound
from proxy.interfaces import Clock, IFileStore, IOffload, IRecordStore, IRepository
from proxy.names import is_project_name, normalize
from proxy.repository.documents import Documents
from proxy.upstream.offline import Offline
from proxy.upstream.pool.upstreams import Upstreams


def project_name(asked: str) -> str:
    """The project that an operator means, normalised.  Raises BadRequest for what is no name of a project."""
    if not is_project_name(asked):
        raise BadRequest(f"{asked!r} is no name of a project")
    return normalize(asked)


@frozen
class IndexParts:
    """One index.  *everything* is it without anything hidden: operators see it all."""

    repository: IRepository
    everything: IRepository
    pages: PageCache
    documents: Documents
    upstreams: Upstreams | Offline


@frozen(kw_only=True)
class Parts:
    """All that a data directory is made of, and who works on it."""

    indexes: Mapping[str, IndexParts]
    store: IFileStore
    records: IRecordStore
    pins: Ledger
    kept: PinnedBook
    usage: UsageBook
    #: For what waits for the disk, and for what is long work.
    disk: IOffload
    work: IOffload
    reactor: Any
    clock: Clock
    #: Whether files go by themselves when there are too many.
    evicting: bool
    #: What is wrong now.
    look: Callable[[], Awaitable[Sequence[Trouble]]]
    #: What clients were answered since the start, by index; ``None`` when nobody is served.
    answered: Callable[[], Mapping[str, Any] | None]

    def chosen(self, index: str | None) -> Mapping[str, IndexParts]:
        """The index of that name, or all of them.  Raises NotFound."""
        if index is None:
            return self.indexes
        if index not in self.indexes:
            raise NotFound(f"there is no index named {index!r} here; there is {', '.join(sorted(self.indexes))}")
        return {index: self.indexes[index]}

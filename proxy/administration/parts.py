"""What operations work on: the indexes of a service, its stores, its threads and clocks, and what is observed of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxy.cache.ledger import Ledger
from proxy.cache.pages import PageCache
from proxy.cache.pinned import PinnedBook
from proxy.cache.usage import UsageBook
from proxy.core.near import no_index
from proxy.core.troubles import Trouble
from proxy.errors import BadRequest, NotFound
from proxy.interfaces import Clock, IFileStore, IOffload, IRecordStore, IRepository
from proxy.names import is_project_name, normalize
from proxy.repository.documents import Documents
from proxy.upstream.offline import Offline
from proxy.upstream.pool.upstreams import Upstreams

if TYPE_CHECKING:
    # Few services have hosted indexes, and what these need takes a while to load.
    from proxy.hosted.catalogue import Catalogue
    from proxy.hosted.checking import Checking
    from proxy.hosted.editing import Editing
    from proxy.hosted.promoting import Promoting
    from proxy.hosted.receiving import Receiving


def project_name(asked: str) -> str:
    """The project that an operator means, normalised.  Raises BadRequest for what is no name of a project."""
    if not is_project_name(asked):
        raise BadRequest(f"{asked!r} is no name of a project")
    return normalize(asked)


class Proxied(Struct, frozen=True):
    """What a proxy index has besides: what it keeps of its upstreams, and these."""

    pages: PageCache
    documents: Documents
    upstreams: Upstreams | Offline
    #: Whether the name of a project (normalised) belongs to a hosted index that shares a group with this one, so that upstream
    #: is not told of it.  Raises StorageFailed while that cannot be told.
    reserved: Callable[[str], Awaitable[bool]]


class Hosted(Struct, frozen=True):
    """What a hosted index has besides."""

    editing: Editing
    promoting: Promoting
    checking: Checking
    receiving: Receiving

    @property
    def catalogue(self) -> Catalogue:
        """What is in its directory."""
        return self.editing.catalogue


class IndexParts(Struct, frozen=True):
    """One index.  *everything* is it without anything hidden: operators see it all.

    *proxied* is ``None`` for an index that asks no upstream itself, *hosted* for one without files of its own.
    """

    repository: IRepository
    everything: IRepository
    proxied: Proxied | None = None
    hosted: Hosted | None = None


def chosen(indexes: Mapping[str, IndexParts], index: str | None) -> Mapping[str, IndexParts]:
    """Of *indexes* the one named *index*, or all of them.  Raises NotFound."""
    if index is None:
        return indexes
    if index not in indexes:
        raise NotFound(no_index(index, indexes))
    return {index: indexes[index]}


def proxied(indexes: Mapping[str, IndexParts]) -> dict[str, Proxied]:
    """Those of *indexes* that ask upstreams themselves."""
    return {name: each.proxied for name, each in indexes.items() if each.proxied is not None}


def chosen_proxied(indexes: Mapping[str, IndexParts], index: str | None) -> dict[str, Proxied]:
    """Of *indexes* the proxy index named *index*, or all of them.  Raises NotFound, BadRequest for one of another kind."""
    found = proxied(chosen(indexes, index))
    if index is not None and not found:
        hosted = any(each.hosted is not None for each in chosen(indexes, index).values())
        other = f"; its files are deleted with pypiproxy delete {index}" if hosted else ""
        raise BadRequest(f"the index {index} asks no upstream itself: name a proxy index{other}")
    return found


def chosen_hosted(indexes: Mapping[str, IndexParts], index: str) -> Hosted:
    """Of *indexes* the hosted one named *index*.  Raises NotFound, BadRequest for one of another kind."""
    found = chosen(indexes, index)[index].hosted
    if found is None:
        names = [name for name, each in indexes.items() if each.hosted is not None]
        there = f"hosted indexes here: {', '.join(names)}" if names else "no index here is hosted"
        raise BadRequest(f"the index {index} has no files of its own: {there}")
    return found


class Stores(Struct, frozen=True, kw_only=True):
    """What a data directory holds."""

    files: IFileStore
    records: IRecordStore
    ledger: Ledger
    pinned: PinnedBook
    usage: UsageBook
    #: Whether files are evicted when there are too many.
    evicting: bool
    directory: Path
    #: Bytes that all files may have together, ``None``: any number.
    max_size: int | None


class Working(Struct, frozen=True, kw_only=True):
    """The threads and clocks that operations work with: *disk* is for what waits for the disk, *work* for what takes long."""

    disk: IOffload
    work: IOffload
    reactor: Any
    clock: Clock


class Observed(Struct, frozen=True, kw_only=True):
    """What is observed of the running service."""

    #: Finds out what is wrong now.
    look: Callable[[], Awaitable[Sequence[Trouble]]]
    #: What clients were answered since the start, by index; ``None`` when nobody is served.
    answered: Callable[[], Mapping[str, Any] | None]
    #: Bytes that clients were sent from the cache since the start.
    saved: Callable[[], int]
    #: What statistics say of the last so many seconds, with so many rows in each table.  Raises BadRequest.
    statistics: Callable[[float, int], Awaitable[Mapping[str, Any]]]
    #: When the service was started (seconds since 1970), ``None`` when nobody is served.
    since: float | None

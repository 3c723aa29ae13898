"""Claims, and which indexes they matter to: the members of the same groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from proxy.cache.claims import ClaimBook
from proxy.cache.records import PAGES, PROJECTS, HeadedRecords
from proxy.interfaces import Clock, IOffload, IOwnership, IRecordStore, IVersionedRecords
from proxy.repository.claiming import Claims, Kept, Neighbourhood, Neighbours, neighbourhood
from proxy.settings import IndexSettings, Settings
from proxy.storage.lists import ListFiles

if TYPE_CHECKING:
    from proxy.bundle.cache import CarriedClaims


def _groups(settings: Settings) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The leaves of each index that consists of others, and the names that it unites."""
    for each in settings.indexes:
        if each.members:
            yield settings.leaves(each.name), each.merge


def hosted_names(settings: Settings) -> frozenset[str]:
    """The hosted indexes."""
    return frozenset(each.name for each in settings.indexes if each.kind == "hosted")


def reserving(settings: Settings, index: str) -> frozenset[str]:
    """The hosted indexes whose claims matter to *index*: itself, what it consists of, and those that are in a group with it."""
    beside = {each for leaves, _ in _groups(settings) if index in leaves for each in leaves}
    return hosted_names(settings) & {*settings.leaves(index), *beside}


def owned_patterns(indexes: Iterable[IndexSettings]) -> Mapping[str, Collection[str]]:
    """The patterns of names that each hosted one of *indexes* owns."""
    return {each.name: each.owns for each in indexes if each.kind == "hosted"}


def neighbours_of(settings: Settings) -> Neighbourhood:
    """The indexes beside each hosted one, in the groups of *settings*."""
    return neighbourhood(_groups(settings), hosted_names(settings))


def merged_names(settings: Settings) -> Mapping[str, Collection[str]]:
    """The names that every group with a hosted index merges, by that index."""
    merged: dict[str, frozenset[str]] = {}
    for leaves, names in _groups(settings):
        for index in hosted_names(settings).intersection(leaves):
            merged[index] = merged.get(index, frozenset(names)).intersection(names)
    return merged


def build_book(settings: Settings, records: IVersionedRecords) -> ClaimBook:
    """The claims in *records*, with what the hosted indexes of *settings* own."""
    return ClaimBook(records, owned_patterns(settings.indexes), merged_names(settings))


def carried_claims(settings: Settings, book: ClaimBook, claims: IOwnership, index: str) -> CarriedClaims:
    """The claims that bundles of *index* carry."""
    from proxy.bundle.cache import CarriedClaims  # which are for commands

    return CarriedClaims(book, claims, reserving(settings, index))


def build_claims(
    settings: Settings,
    book: ClaimBook,
    records: IRecordStore,
    lists: Callable[[str], ListFiles],
    offload: IOffload,
    clock: Clock,
) -> Claims:
    """The claims in *book*; *records* and *lists*, by index, tell what proxy indexes are known to serve."""

    def kept(index: str) -> Kept:
        pages, projects = (HeadedRecords(kind, index, records, offload) for kind in (PAGES, PROJECTS))
        return Kept(pages, projects, lists(index))

    return Claims(book, Neighbours(neighbours_of(settings), kept, offload), clock)

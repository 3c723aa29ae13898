"""Claims, and which indexes they matter to: the members of the same groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proxy.administration.parts import Proxied
from proxy.composition.caches import Caches
from proxy.composition.means import Means
from proxy.repository.claiming import Claims, Neighbours, neighbourhood
from proxy.settings import Settings


def _groups(settings: Settings) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The leaves of each group, and the names that it unites."""
    for each in settings.indexes:
        if each.group is not None:
            yield settings.leaves(each.name), each.group.merge


def hosted_names(settings: Settings) -> frozenset[str]:
    """The hosted indexes."""
    return frozenset(each.name for each in settings.indexes if each.kind == "hosted")


def reserving(settings: Settings, index: str) -> Sequence[str]:
    """The hosted indexes that are in a group with *index*: what belongs to them is not asked for there."""
    hosted = hosted_names(settings)
    return sorted({each for leaves, _ in _groups(settings) if index in leaves for each in leaves} & hosted)


def build_claims(settings: Settings, caches: Caches, cached: Mapping[str, Proxied], means: Means) -> Claims:
    """The claims of the hosted indexes of *settings*; *cached* has the proxy indexes by the time a claim is made."""
    neighbours = Neighbours(neighbourhood(_groups(settings), hosted_names(settings)), cached.get, means.work)
    return Claims(caches.claims, neighbours, means.clock)

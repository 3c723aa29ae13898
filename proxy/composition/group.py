"""The index kind ``group``: one index out of others."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.administration.parts import IndexParts
from proxy.composition.claims import hosted_names
from proxy.composition.indexes import BuiltIndex
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.interfaces import IOwnership, IRepository
from proxy.repository.group import GroupRepository
from proxy.repository.grouplist import GroupList
from proxy.repository.membership import Membership
from proxy.settings import IndexSettings, Settings


class GroupKind:
    """Builds the groups of *settings*; *claims* say which names belong to their hosted members."""

    def __init__(self, settings: Settings, storage: Storage, claims: IOwnership, means: Means) -> None:
        self._settings = settings
        self._hosted = hosted_names(settings)
        self._storage = storage
        self._claims = claims
        self._means = means

    def build(self, index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
        """The group that *index* describes."""
        leaves: dict[str, IndexParts] = {}
        for name, member in members.items():
            for leaf, parts in member.leaves or ((name, member.parts),):
                leaves.setdefault(leaf, parts)
        membership = Membership(
            index.name,
            tuple(name for name in leaves if name in self._hosted),
            tuple(name for name in leaves if name not in self._hosted),
            frozenset(index.merge),
            self._claims,
        )
        projects = GroupList(index.name, self._storage.lists(index.name, self._means.work), self._means.work, self._means.clock)

        def group(those: Mapping[str, IRepository]) -> GroupRepository:
            return GroupRepository(membership, those, projects, self._means.work, self._means.reactor.seconds)

        offered = group({name: each.repository for name, each in leaves.items()})
        everything = group({name: each.everything for name, each in leaves.items()})
        return BuiltIndex(IndexParts(offered, everything), closing=(projects,), leaves=tuple(leaves.items()))

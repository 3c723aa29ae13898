"""Who may read the metrics, where that is not everybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from proxy.access.principals import Principal


class Scrapers:
    """Those that *principals* name, as grants name them (``user:prometheus`` …); *groups* are the users by group.

    A token with rights of its own, or one that was confined to a part of an index, stands in for nobody here.
    """

    def __init__(self, principals: Iterable[str], groups: Mapping[str, Collection[str]]) -> None:
        self._principals = frozenset(principals)
        self._groups = {name: frozenset(users) for name, users in groups.items()}

    def includes(self, principal: Principal) -> bool:
        """Whether *principal* is one of them."""
        if principal.own is not None or principal.narrowed:
            return False
        return not principal.subjects(self._groups).isdisjoint(self._principals)

"""Tables bounded in bytes that forget what was least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedTable(Generic[K, V]):
    """Values by key whose weights (bytes) add up to at most *limit*.  A value heavier than the limit is not kept at all.

    An entry weighs what *weigh* says of its value when it is put, and what *weigh_key* says of its key.
    """

    def __init__(self, limit: int, weigh: Callable[[V], int], weigh_key: Callable[[K], int] = lambda key: 0) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weigh_key = weigh_key
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def get(self, key: K) -> V | None:
        entry = self._values.get(key)
        if entry is None:
            return None
        self._values.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V) -> None:
        self.discard(key)
        weight = self._weigh(value) + self._weigh_key(key)
        self.weight += weight
        self._values[key] = value, weight
        while self.weight > self._limit:
            _, (_, forgotten) = self._values.popitem(last=False)
            self.weight -= forgotten

    def discard(self, key: K) -> None:
        entry = self._values.pop(key, None)
        if entry is not None:
            self.weight -= entry[1]

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.weight = 0


class DividedTable(Generic[K, V]):
    """Two tables that are used as one: *kept* for values that *counts* says yes to, *others* for the rest.

    What clients can make any number of, such as names that do not exist, then never pushes out what is good.
    """

    def __init__(self, kept: BoundedTable[K, V], others: BoundedTable[K, V], counts: Callable[[V], bool]) -> None:
        self._kept = kept
        self._others = others
        self._counts = counts

    def __len__(self) -> int:
        return len(self._kept) + len(self._others)

    @property
    def weight(self) -> int:
        return self._kept.weight + self._others.weight

    def get(self, key: K) -> V | None:
        value = self._kept.get(key)
        return value if value is not None else self._others.get(key)

    def put(self, key: K, value: V) -> None:
        self.discard(key)
        (self._kept if self._counts(value) else self._others).put(key, value)

    def discard(self, key: K) -> None:
        self._kept.discard(key)
        self._others.discard(key)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._others.clear()


class Told:
    """Who has been told something already: the last few hundred."""

    #: What may be remembered, and what one name weighs at the least (bytes).
    _MEMORY, _WEIGHT = 64 * 1024, 128

    def __init__(self) -> None:
        self._told: BoundedTable[str, bool] = BoundedTable(self._MEMORY, lambda told: self._WEIGHT, len)

    def is_first(self, name: str) -> bool:
        """Whether *name* has not been told yet, as far as that is remembered; from now on it has."""
        first = self._told.get(name) is None
        if first:
            self._told.put(name, True)
        return first

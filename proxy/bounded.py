"""A table bounded in bytes that forgets what was least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedTable(Generic[K, V]):
    """Values by key whose *weights* (bytes) add up to at most *limit*.  A value heavier than the limit is not kept at all."""

    def __init__(self, limit: int, weigh: Callable[[V], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._values: OrderedDict[K, V] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self.discard(key)
        self.weight += self._weigh(value)
        self._values[key] = value
        while self.weight > self._limit:
            _, forgotten = self._values.popitem(last=False)
            self.weight -= self._weigh(forgotten)

    def discard(self, key: K) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self.weight -= self._weigh(value)

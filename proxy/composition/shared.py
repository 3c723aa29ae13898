"""Parts that several generations of a service share, each known by what it was made of.

A generation takes a part by its key: it is made if no other generation has one.  Who leaves a part that nobody else holds has
to close it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedParts(Generic[T]):
    """All parts of one kind that any generation holds."""

    def __init__(self) -> None:
        self._parts: dict[Hashable, T] = {}
        self._holders: Counter[Hashable] = Counter()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._parts

    def at(self, key: Hashable) -> T:
        """The part called *key*, which somebody holds."""
        return self._parts[key]

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """Hold the part called *key*, which *make* makes if nobody holds one.  Raises as *make*."""
        if key not in self._parts:
            self._parts[key] = make()
        self._holders[key] += 1
        return self._parts[key]

    def held_once(self, keys: Iterable[Hashable]) -> list[T]:
        """Those of *keys* that one alone holds."""
        return [self._parts[key] for key in keys if self._holders[key] == 1]

    def leave(self, keys: Iterable[Hashable]) -> list[T]:
        """Hold the parts called *keys* no longer.  Returns those that nobody holds any more."""
        left = []
        for key in keys:
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                left.append(self._parts.pop(key))
        return left


class HeldParts(Generic[T]):
    """The parts out of *shared* that one generation holds."""

    def __init__(self, shared: SharedParts[T]) -> None:
        self._shared = shared
        self._keys: dict[Hashable, None] = {}
        #: Those that were made for this generation, in their order.
        self.made: list[T] = []

    def take(self, key: Hashable, make: Callable[[], T]) -> T:
        """The part called *key*; *make* makes it if nobody has one.  Raises as *make*."""
        if key in self._keys:
            return self._shared.at(key)
        is_new = key not in self._shared
        part = self._shared.take(key, make)
        self._keys[key] = None
        if is_new:
            self.made.append(part)
        return part

    @property
    def alone(self) -> list[T]:
        """Those that no other generation holds."""
        return self._shared.held_once(self._keys)

    def leave(self) -> list[T]:
        """Hold nothing any more.  Returns what nobody else holds, in the order in which it was taken."""
        keys, self._keys = self._keys, {}
        return self._shared.leave(keys)

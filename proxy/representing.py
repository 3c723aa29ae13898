"""How values are shown where somebody prints or logs them: without what is secret or too long to read."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct


def repr_without(*hidden: str) -> Callable[[Struct], str]:
    """A ``__repr__`` for a struct that leaves out its fields named *hidden*."""

    def shown(self: Struct) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in hidden)
        return f"{type(self).__name__}({', '.join(fields)})"

    return shown

"""What is made when it is first asked for.

A start loads what every service needs, and no more: its time and the memory of an idle proxy are those of the modules that are
loaded.  What only some requests or commands need is a `Late`, made by a function that imports what it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Late(Generic[Made]):
    """Calling it gives what *make* makes, which is made once.

    *load*, if there is one, loads what that imports in a thread.
    """

    def __init__(self, make: Callable[[], Made], load: Callable[[], Awaitable[object]] | None = None) -> None:
        self._make = make
        self._load = load
        #: What was made, ``None`` before that.
        self.made: Made | None = None

    def __call__(self) -> Made:
        if self.made is None:
            self.made = self._make()
        return self.made

    async def loaded(self) -> Made:
        """The same, for who may wait: the reactor does not wait for what is imported."""
        if self.made is None and self._load is not None:
            await self._load()
        return self()

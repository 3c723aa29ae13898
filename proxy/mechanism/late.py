"""What is made when it is first asked for.

A start loads what every service needs, and no more: its time and the memory of an idle proxy are those of the modules that are
loaded.  What only some requests or commands need is a `Late`, made by a function that imports what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Late(Generic[Made]):
    """Calling it gives what *make* makes, which is made once."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        #: What was made, ``None`` before that.
        self.made: Made | None = None

    def __call__(self) -> Made:
        if self.made is None:
            self.made = self._make()
        return self.made

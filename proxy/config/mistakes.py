"""Mistakes of a configuration, gathered so that one ConfigError names all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from proxy.errors import ConfigError


class Mistakes:
    """The mistakes that were found so far, in the words in which they are reported."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, found: Iterable[str]) -> None:
        """Add what was *found*."""
        self._found += found

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Add what the block raises as ConfigError about the value that is set at *where*, and go on behind the block."""
        try:
            yield
        except ConfigError as error:
            self._found.append(f"{where} = {error}")

    def refuse(self) -> None:
        """Raise ConfigError if there are mistakes."""
        if not self._found:
            return
        heading = [] if len(self._found) == 1 else [f"{len(self._found)} mistakes in the configuration:"]
        raise ConfigError("\n  ".join([*heading, *self._found]))

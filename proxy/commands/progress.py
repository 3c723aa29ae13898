"""How far a long command is: pages, files and bytes so far, on standard error; and interrupting it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from proxy.commands.speaking import quiet
from proxy.core.amounts import size

#: Seconds between two words: on a terminal, where they take each other's place, and elsewhere.
_ON_TERMINAL, _ELSEWHERE = 0.2, 30.0


class Counting:
    """Says how far it is, no more often than people read, and never with ``--quiet``.

    It is a context that leaves the line of a terminal clean.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._due = time.monotonic() + (_ON_TERMINAL if self._terminal else _ELSEWHERE)
        self._shown = False

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)

    def tell(self, pages: int, files: int, count: int, what: str = "pages") -> None:
        """So many *pages* (or *what* they are) and *files* so far, and *count* bytes."""
        now = time.monotonic()
        if now < self._due or quiet():
            return
        self._due = now + (_ON_TERMINAL if self._terminal else _ELSEWHERE)
        line = f"{pages:,} {what}, {files:,} files, {size(count)}"
        if self._terminal:
            self._shown = True
            click.echo(f"\r\x1b[K{line}", err=True, nl=False)
        else:
            click.echo(line, err=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM interrupts like Ctrl-C, so that what was begun is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are none of its business
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

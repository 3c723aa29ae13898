"""What does not fit on the disk: a window in memory that moves with the slowest reader, and patience with that one.

A reader that comes too late for the window cannot join any more, and one that holds the others up for :data:`PATIENCE` seconds
is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from proxy.errors import Overloaded
from proxy.mechanism.spool.reader import SpoolReader
from proxy.mechanism.spool.steps import Later
from proxy.mechanism.spool.window import Window
from proxy.settings import MIB

#: Bytes kept in memory when the disk takes no more.
WINDOW = 4 * MIB
#: How long a reader may hold up others on a full disk (seconds): it is dropped if it takes less than a window in that time.
PATIENCE = 3.0


class Passing:
    """Bytes of *name* from *start* on.

    *readers* are those of now, *visible* tells the position up to which they may see the file, and *drop* takes one of
    them off.  *later* times the patience; without it there is no end to it.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        start: int,
        readers: AbstractSet[SpoolReader],
        visible: Callable[[], int],
        drop: Callable[[Collection[SpoolReader]], None],
        later: Later | None,
    ) -> None:
        self._name = name
        #: Where the bytes on the disk end.
        self.begin = start
        self._readers = readers
        self._visible = visible
        self._drop = drop
        self._later = later
        self._window = Window(start)
        self._impatience: IDelayedCall | None = None

    @property
    def has_all(self) -> bool:
        """Whether nothing has been forgotten yet: a new reader finds every byte."""
        return self._window.start == self.begin

    @property
    def end(self) -> int:
        """The position behind the last byte."""
        return self._window.start + len(self._window)

    def append(self, chunk: bytes) -> None:
        self._window.append(chunk)

    def read(self, position: int, stop: int) -> bytes:
        """Bytes from *position* to *stop*, neither of which has been forgotten."""
        return self._window.read(position, stop)

    def is_full(self) -> bool:
        """Whether upstream has to wait, once what every reader has passed is forgotten (all that may be seen, without any).

        Nothing is forgotten before there is a window of it: a small file can be looked at as a whole when it ends.
        """
        if len(self._window) <= WINDOW:
            return False
        visible = self._visible()
        passed = min((reader.position for reader in self._readers), default=visible)
        self._window.move(min(passed, visible))
        if len(self._window) <= WINDOW:
            return False
        self._be_impatient()
        return True

    def _be_impatient(self) -> None:
        """Give those some time for whom upstream waits while others have all there is, and drop them then."""
        if self._impatience is not None or self._later is None or not self._starving():
            return
        then = {reader: reader.position for reader in self._readers}

        def look() -> None:
            self._impatience = None
            if len(self._window) > WINDOW and (starving := self._starving()):
                slow = {each for each, position in then.items() if each.position - position < WINDOW}
                self._give_up((self._readers & slow) - starving)

        self._impatience = self._later(PATIENCE, look)

    def _starving(self) -> set[SpoolReader]:
        """The readers that have all there is, if there are others."""
        visible = self._visible()
        starving = {reader for reader in self._readers if reader.position >= visible}
        return starving if len(starving) < len(self._readers) else set()

    def _give_up(self, slow: AbstractSet[SpoolReader]) -> None:
        for reader in slow:
            self.log.warn(
                "no room in the data directory for {name}, and a client that is too slow holds the others up: it is dropped. "
                "Make room, or set max_size or min_free so that files make room for others.",
                name=self._name,
            )
            reader.drop(Overloaded(f"there is no room to store {self._name}, and you are too slow for the others: ask again"))
        self._drop(slow)

    def end_patience(self) -> None:
        """Nobody is waited for any more."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

"""Those who wait for an arriving file to begin, those who read it, and who of them is told of what."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.mechanism.spool.reader import SpoolReader
from proxy.mechanism.waiters import Waiters


class Audience:
    """All who want one file."""

    def __init__(self) -> None:
        self.readers: set[SpoolReader] = set()
        self._waiting: Waiters[None] = Waiters()
        self._listeners: list[Callable[[], None]] = []
        #: Whether those who waited for the beginning are becoming readers right now.
        self.joining = False

    def is_empty(self) -> bool:
        """Whether nobody waits and nobody reads."""
        return not self._waiting and not self.readers

    def wait(self) -> Deferred[None]:
        """Fires when the file begins, or with its failure."""
        return self._waiting.wait()

    def begin(self) -> None:
        """Tell those who wait that there is something to read."""
        self.joining = True
        self._waiting.wake(None)
        self.joining = False

    def fail(self, failure: Failure) -> None:
        """Tell those who wait that there will be nothing."""
        self._waiting.wake(failure)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call *listener* at the next change, once."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Do not call *listener*."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def change(self) -> None:
        """There is more to see, or the end has come."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

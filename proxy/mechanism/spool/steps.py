"""What has been received and waits to be written: how much is gathered, for how long, and when upstream has to pause.

The first chunk is due at once, and so is one that follows after :data:`PACE`; of what comes faster, :data:`STEP` bytes are
gathered first: each step costs a worker thread a job, and every reader as much as a small file does.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from proxy.settings import KIB, MIB

#: Bytes that may wait for the disk before upstream is asked to pause, and at which it may go on.
QUEUE_HIGH = 1 * MIB
QUEUE_LOW = 512 * KIB
#: Bytes to gather before they are written and shown, and for how long at most (seconds).
STEP = 512 * KIB
PACE = 0.02

#: Calls a function after so many seconds, as ``IReactorTime.callLater`` does.
Later = Callable[[float, Callable[[], None]], IDelayedCall]


class Steps:
    """The queue.  *due_again* is called when what was too little has waited for long enough; without *later* nothing waits."""

    def __init__(self, later: Later | None, due_again: Callable[[], None]) -> None:
        self._later = later
        self._due_again = due_again
        self._chunks: list[bytes] = []
        self._resting: IDelayedCall | None = None
        self._hurried = False
        #: Bytes that wait or are being written.
        self.held = 0

    def add(self, chunk: bytes) -> None:
        """Have *chunk* wait."""
        self._chunks.append(chunk)
        self.held += len(chunk)

    def due(self) -> bool:
        """Whether there is something to write, and it is enough, or has waited for long enough."""
        return bool(self._chunks) and (self._resting is None or self._hurried or self.held >= STEP)

    def take(self) -> bytes:
        """All that waits; it is held until it is :meth:`written`.  For a moment nothing is due but a whole step."""
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        if self._resting is None and self._later is not None:
            self._resting = self._later(PACE, self._rested)
        return chunk

    def written(self, count: int) -> None:
        """*count* bytes that were taken need not be held any more."""
        self.held -= count

    def hurry(self) -> None:
        """Let all be due at once, until :meth:`calm`: somebody waits for the end of it."""
        self._hurried = True

    def calm(self) -> None:
        """No more will come, or it begins anew: nothing waits."""
        self._hurried = False
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def forget(self) -> None:
        """Drop all that waits."""
        self._chunks.clear()
        self.held = 0

    def _rested(self) -> None:
        self._resting = None
        self._due_again()

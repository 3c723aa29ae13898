"""Files that a command has opened and handed over: read or written in a worker thread, until that is to end."""

from __future__ import annotations

import io
import os
import select
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from proxy.mechanism.flight import Routine, swallow, uninterrupted
from proxy.settings import MIB

T = TypeVar("T")

#: Seconds between two words on how far it is.
_SAY_EVERY = 1.0

#: How long a read or write waits before it looks whether it is to end (milliseconds).
_LOOK_EVERY = 200


class Handed(io.RawIOBase):
    """What is behind *descriptor*, which it owns, until it is told to stop.  Blocks: for a worker thread."""

    def __init__(self, descriptor: int, *, writing: bool = False) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._stopped = threading.Event()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
        # A pipe that is ready takes so much without waiting for its reader.
        self._piece = MIB if stat.S_ISREG(os.fstat(descriptor).st_mode) else select.PIPE_BUF

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._wait()
        return os.readv(self._descriptor, [buffer])

    def write(self, data: Any) -> int:
        """Write all of *data*."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            self._wait()
            rest = rest[os.write(self._descriptor, rest[: self._piece]) :]
        return size

    def stop(self) -> None:
        """Have reads and writes fail from now on.  Called from any thread."""
        self._stopped.set()

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _wait(self) -> None:
        while not self._stopped.is_set():
            if self._poll.poll(_LOOK_EVERY):
                return
        raise InterruptedError("it was interrupted")


async def until_cancelled(handed: Handed, work: Routine[T]) -> T:
    """What *work* on *handed* gives; when the wait is cancelled, it ends at its next read or write."""
    working = uninterrupted(work)
    try:
        return await working
    except CancelledError:
        handed.stop()
        raise


@contextmanager
def saying(say: Callable[[], object], reactor: IReactorTime) -> Iterator[None]:
    """Call *say* once a second in the block, not at its beginning."""
    calls = LoopingCall(say)
    calls.clock = reactor
    swallow(calls.start(_SAY_EVERY, now=False))
    try:
        yield
    finally:
        calls.stop()

"""Commands that need the reactor: run until their work is done, interrupted by the signals that end a program."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react


def until_done(work: Callable[[Any], Awaitable[int]]) -> None:
    """Run *work* on the reactor and exit with the status it gives.  SIGINT and SIGTERM cancel it."""

    def begin(reactor: Any) -> Deferred[None]:
        running: Deferred[int] = Deferred.fromCoroutine(_status(work, reactor))

        def heed() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: reactor.callFromThread(running.cancel))

        reactor.callWhenRunning(heed)  # when the reactor runs it has just set handlers of its own
        return running.addCallback(_exit)

    react(begin)


async def _status(work: Callable[[Any], Awaitable[int]], reactor: Any) -> int:
    try:
        return await work(reactor)
    except BrokenPipeError:  # nobody reads on, as after "| head"; what is still in the buffer has no way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _exit(status: int) -> None:
    raise SystemExit(status)

"""Waiting for no longer than so many seconds."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime


async def within(seconds: float, work: Coroutine[Any, Any, Any] | Deferred[Any], reactor: IReactorTime) -> bool:
    """Wait for *work*, and return whether it ended in time: after *seconds* it is cancelled.  Raises what *work* raises."""
    working = ensureDeferred(work)
    deadline = reactor.callLater(seconds, working.cancel)
    try:
        await working
    except CancelledError:
        if deadline.active():
            raise
        return False
    finally:
        if deadline.active():
            deadline.cancel()
    return True

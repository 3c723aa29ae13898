"""The two clocks: one tells what time it is, which somebody may set; the other one how much has passed, which nobody can.

Whatever is compared within one run of the proxy (timers, pauses, latencies, the age of a page) goes by ``reactor.seconds``, the
steady one.  Whatever is written down, read by others, or said to have happened at some moment goes by a :class:`Clock`.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python import runtime


def steady(reactor: Any) -> None:
    """Let *reactor* go by a clock that nobody can set.  May be called more than once.

    Twisted's reactors go by the wall clock, but for those that bring a steady one, such as asyncio's.  The new clock begins at
    the time of day: calls that wait already stay due when they were.
    """
    if reactor.seconds is runtime.seconds:
        ahead = time.time() - time.monotonic()
        reactor.seconds = lambda: time.monotonic() + ahead

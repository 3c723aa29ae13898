"""A thread that does nothing until a test has it begin: what waits by then does so at one moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred


class Queue:
    """What is to be done in the thread of the records waits until it is told to begin.  See :class:`IOffload`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        done: Deferred[Any] = Deferred()
        self._waiting.append((done, lambda: function(*args)))
        return await done

    def begin(self) -> None:
        while self._waiting:
            done, call = self._waiting.pop(0)
            if not done.called:
                try:
                    result = call()
                except Exception:  # noqa: BLE001  # whoever waits is told, as by the thread
                    done.errback()
                else:
                    done.callback(result)

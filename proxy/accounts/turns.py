"""Work that is done one piece at a time, so that who brings much of it delays nobody but itself."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred

from proxy.errors import Overloaded

#: Pieces of one origin that may wait.
_LONGEST = 64


class Turns:
    """One piece of work at a time; origins with more to do take turns."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Deferred[None]]] = OrderedDict()
        self._busy = False

    @asynccontextmanager
    async def of(self, origin: str) -> AsyncIterator[None]:
        """Wait for a turn of *origin*, which lasts as long as the block.  Raises Overloaded if too much of it waits already."""
        if self._busy:
            queue = self._waiting.setdefault(origin, deque())
            if len(queue) >= _LONGEST:
                raise Overloaded(f"{_LONGEST} credentials from {origin} wait to be examined already: ask again")
            turn: Deferred[None] = Deferred(lambda turn: self._leave(origin, turn))
            queue.append(turn)
            await turn
        self._busy = True
        try:
            yield
        finally:
            self._next()

    def _leave(self, origin: str, turn: Deferred[None]) -> None:
        queue = self._waiting[origin]
        queue.remove(turn)
        if not queue:
            del self._waiting[origin]

    def _next(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        origin, queue = self._waiting.popitem(last=False)
        turn = queue.popleft()
        if queue:
            self._waiting[origin] = queue  # behind the others
        turn.callback(None)

"""Work that is done one piece at a time, so that who brings much of it delays nobody but itself."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred

from proxy.errors import Overloaded

#: Pieces of one origin that may wait.
_LONGEST = 64


#: What waits of one origin: by name, the one whose turn comes first is first.
_Waiting = OrderedDict[str, deque[Deferred[None]]]


class Turns:
    """One piece of work at a time; origins with more to do take turns, and so do the names of one origin."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._busy = False

    @property
    def waiting(self) -> int:
        """Pieces of work that wait."""
        return sum(len(queue) for names in self._waiting.values() for queue in names.values())

    @asynccontextmanager
    async def of(self, origin: str, name: str) -> AsyncIterator[None]:
        """Wait for a turn of *name* at *origin*, which lasts as long as the block.

        Raises Overloaded if too much of *origin* waits already.
        """
        if self._busy:
            names = self._waiting.setdefault(origin, OrderedDict())
            if sum(map(len, names.values())) >= _LONGEST:
                raise Overloaded(f"{_LONGEST} credentials from {origin} wait to be examined already: ask again")
            turn: Deferred[None] = Deferred(lambda turn: self._leave(origin, name, turn))
            names.setdefault(name, deque()).append(turn)
            await turn
        self._busy = True
        try:
            yield
        finally:
            self._next()

    def _leave(self, origin: str, name: str, turn: Deferred[None]) -> None:
        names = self._waiting[origin]
        names[name].remove(turn)
        if not names[name]:
            del names[name]
        if not names:
            del self._waiting[origin]

    def _next(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        origin, names = self._waiting.popitem(last=False)
        name, queue = names.popitem(last=False)
        turn = queue.popleft()
        if queue:
            names[name] = queue  # behind the others
        if names:
            self._waiting[origin] = names
        turn.callback(None)

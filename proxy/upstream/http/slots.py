"""How much may be asked of one upstream at once: connections, a bounded queue for them, and requests a second.

Theory of operation.  Files may hold at most three quarters of the places, so that long downloads never starve pages.  A full
queue is an outage of this upstream, not a pile of waiting clients: a request whose clients have all left gives up its position
in the queue, and a place whose response makes no progress is given up to those who wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from proxy.core.amounts import duration
from proxy.mechanism.flight import wanted
from proxy.settings import KIB, UpstreamSettings
from proxy.upstream.http.failures import Failed, Fault

#: The part of an upstream's connections that files may take.
_FOR_FILES = 0.75
#: While others wait, a response has to bring so many bytes in so many seconds to keep its place.
LEAST_PROGRESS, WITHIN = 5 * KIB, 5.0
#: Seconds between two looks at the places while requests wait for one.
_LOOK_EVERY = 1.0


class Slot:
    """A place among the connections.  Its holder keeps :attr:`take_away` and :attr:`received` up to date."""

    def __init__(self, leave: Callable[[Slot], None], file: bool, now: float) -> None:
        self.file = file
        self.began = now
        #: Called when the place is to be given up to others.
        self.take_away: Callable[[Failed], None] = lambda why: None
        #: Bytes of the response so far; ``None`` while its reader wants no more.
        self.received: Callable[[], int | None] = lambda: 0
        self.last_bytes = 0
        self.last_progress = now
        self._leave = leave
        self._left = False

    def begin(self, now: float) -> None:
        """Another request is sent from it."""
        self.began = self.last_progress = now
        self.received = lambda: 0
        self.last_bytes = 0

    def leave(self) -> None:
        """Give it up.  May be called more than once."""
        if not self._left:
            self._left = True
            self._leave(self)


class _Waiting(Struct, eq=False):
    turn: Deferred[Slot]
    file: bool
    wanted: Callable[[], bool]
    #: Its position among all that ever waited.
    number: int


class Slots:
    """The places of the upstream of *settings*."""

    def __init__(self, settings: UpstreamSettings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._most_files = max(1, int(settings.max_connections * _FOR_FILES))
        self._places: set[Slot] = set()
        self._file_places = 0
        self._pages: deque[_Waiting] = deque()
        self._files: deque[_Waiting] = deque()
        self._number = 0
        self._handing_on = False
        self._next_turn = 0.0
        self._in_turn = 0
        self._look: Any = None
        self._last_answer = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that have a place."""
        return len(self._places) - self._in_turn

    @property
    def waiting(self) -> int:
        """Requests that wait for a place or for their turn."""
        return len(self._pages) + len(self._files) + self._in_turn

    async def take(self, *, file: bool, pace: float = 0.0) -> Slot:
        """Wait for a place, which its holder has to leave.  Raises Failed when too many wait already.

        *pace*: seconds to leave between two requests, beyond what ``max_rate`` asks.  Raises CancelledError when all who wanted
        the answer have left before it was asked for.
        """
        place = self._occupy(file) if self._free(file) else await self._free_place(file)
        if pace or self._settings.max_rate is not None:
            try:
                await self._turn(pace)
            except BaseException:
                place.leave()
                raise
            place.begin(self._reactor.seconds())
        return place

    def answering(self) -> None:
        """An answer has begun: upstream works, and who has none yet is late."""
        self._last_answer = self._reactor.seconds()

    async def _free_place(self, file: bool) -> Slot:
        """Wait until others leave one."""
        if self.waiting >= self._settings.max_queue:
            self._drop_unwanted()
        if self.waiting >= self._settings.max_queue:
            words = f"has {self.waiting} requests waiting already ({self._settings.table}.max_queue)"
            raise Failed(words, fault=Fault.NO_EVIDENCE)
        queue = self._files if file else self._pages
        self._number += 1
        entry = _Waiting(Deferred(lambda _: queue.remove(entry)), file, wanted.get(), self._number)
        queue.append(entry)
        self._watch()
        return await entry.turn

    def _free(self, file: bool) -> bool:
        if len(self._places) >= self._settings.max_connections:
            return False
        return not file or self._file_places < self._most_files

    def _occupy(self, file: bool) -> Slot:
        place = Slot(self._left, file, self._reactor.seconds())
        self._places.add(place)
        self._file_places += file
        return place

    def _left(self, place: Slot) -> None:
        self._places.discard(place)
        self._file_places -= place.file
        if self._handing_on:
            return  # whoever is handing on places looks again
        self._handing_on = True
        try:
            while (entry := self._next()) is not None:
                entry.turn.callback(self._occupy(entry.file))
        finally:
            self._handing_on = False

    def _next(self) -> _Waiting | None:
        """Whose turn it is, if there is a place: who has waited for longest, files no more than they may take."""
        while True:
            queues = [queue for queue, file in ((self._pages, False), (self._files, True)) if queue and self._free(file)]
            if not queues:
                return None
            entry = min(queues, key=lambda queue: queue[0].number).popleft()
            if entry.wanted():
                return entry
            entry.turn.errback(CancelledError())

    def _drop_unwanted(self) -> None:
        for queue in (self._pages, self._files):
            unwanted = [entry for entry in queue if not entry.wanted()]
            for entry in unwanted:
                queue.remove(entry)
                entry.turn.errback(CancelledError())

    # -- progress ----------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._look is None:
            self._look = self._reactor.callLater(_LOOK_EVERY, self._look_at_all)

    def _look_at_all(self) -> None:
        self._look = None
        now = self._reactor.seconds()
        late = sorted((place for place in self._places if self._late(place, now)), key=lambda place: place.last_bytes)
        for place in late[: len(self._pages) + len(self._files)]:
            words = f"{place.last_bytes:,} bytes came in {duration(now - place.began)} while other requests waited"
            place.take_away(Failed(words, fault=Fault.USELESS if place.last_bytes else Fault.UNANSWERED))
        if self._pages or self._files:
            self._watch()

    def _late(self, place: Slot, now: float) -> bool:
        """Whether *place* makes too little progress; before its answer begins, whether others were answered meanwhile."""
        received = place.received()
        if received is None or received - place.last_bytes >= LEAST_PROGRESS:
            place.last_bytes = place.last_bytes if received is None else received
            place.last_progress = now
            return False
        return now - place.last_progress >= WITHIN and (received > 0 or self._last_answer > place.began)

    # -- turns -------------------------------------------------------------------------------------------------------------

    async def _turn(self, pace: float) -> None:
        """Wait for this request's turn under ``max_rate``; a second's worth of requests (at least one) may go out at once."""
        rate = self._settings.max_rate
        gap = max(pace, 1.0 / rate if rate is not None else 0.0)
        if not gap:
            return
        now = self._reactor.seconds()
        turn = max(self._next_turn, now - max(1.0, gap) if not pace else now - gap)
        self._next_turn = turn + gap
        if self._next_turn > now:
            self._in_turn += 1
            try:
                await deferLater(self._reactor, self._next_turn - now)
            finally:
                self._in_turn -= 1

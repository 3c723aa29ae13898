"""The bounded pool of worker threads: where everything runs that would make the reactor wait.

Theory of operation. A cold page takes a dozen calls, most of them shorter than Twisted's way there and back, or than the
executor's of the standard library.  Here threads take the next call by themselves, and what they finish is delivered to the
reactor many at a time.  A deque's ends may be used from any thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar, cast

from msgspec import Struct, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.interfaces import IHolding, IMemory, IOffload
from proxy.settings import KIB, MIB

T = TypeVar("T")

#: What the bodies that are worked on at one time may have together (bytes).  What is made of one takes several times as much.
MEMORY = 32 * MIB
#: Bodies up to this size are worked on whatever others do (bytes).
SMALL = 256 * KIB


class _Task(Struct, eq=False):
    """One call, and who waits for it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    #: Fired with the result, in the reactor's thread; cancelled by who does not wait any more.
    done: Deferred[Any] = field(default_factory=Deferred)


@implementer(IMemory)
class Memory:
    """What work on large things may take in memory at one time: *total* bytes, held by who works on them.

    Who needs more than is left waits for the turn; who needs more than the total has it alone.  Up to *small* bytes are not
    counted: nobody waits with them.
    """

    def __init__(self, total: int, small: int = 0) -> None:
        self._total = total
        self.small = small
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()
        #: Bytes that are held now.
        self.held = 0

    async def take(self, size: int) -> Holding:
        """Wait until *size* bytes may be held."""
        size = size if size > self.small else 0
        if size and (self._waiting or not self._fits(size)):
            turn: Deferred[None] = Deferred(self._leave)
            self._waiting.append((size, turn))
            await turn
        else:
            self.held += size
        return Holding(self, size)

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[Holding]:
        """*size* bytes are held in the block."""
        holding = await self.take(size)
        try:
            yield holding
        finally:
            holding.shrink(0)

    def give_back(self, size: int) -> None:
        """Told by a holding: so much is not held any more."""
        self.held -= size
        self._next()

    def _fits(self, size: int) -> bool:
        return not self.held or self.held + size <= self._total

    def _leave(self, turn: Deferred[None]) -> None:
        self._waiting = deque(each for each in self._waiting if each[1] is not turn)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            self.held += size
            turn.callback(None)


@implementer(IHolding)
class Holding:
    """*size* bytes of *memory*."""

    def __init__(self, memory: Memory, size: int) -> None:
        self._memory = memory
        self.size = size

    async def grow(self, size: int) -> None:
        """Hold *size* bytes instead.  What is held meanwhile goes back, so that two who grow do not wait for each other."""
        if size > self.size:
            self.shrink(0)
            self.size = (await self._memory.take(size)).size

    def shrink(self, size: int) -> None:
        """Hold no more than *size* bytes from now on."""
        if size < self.size:
            given, self.size = self.size - size, size
            self._memory.give_back(given)


@implementer(IOffload)
class Offload:
    """At most *threads* threads, named *name* in stack dumps.  *memory* is shared by all who work on large things."""

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str, memory: int = MEMORY) -> None:
        self.memory = Memory(memory, SMALL)
        self.name = name
        self._reactor = reactor
        self._most = threads
        self._threads: list[Thread] = []
        #: Tasks that are not delivered yet.
        self._under_way = 0
        self._stopped = False
        self._waiting: deque[_Task] = deque()
        #: One entry for each task that waits, and at last one for each thread, which then ends.
        self._signals: SimpleQueue[bool] = SimpleQueue()
        self._finished: deque[tuple[_Task, Any]] = deque()
        self._delivering = False

    @property
    def waiting(self) -> int:
        """Calls that no thread has begun."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Threads that work on a call, as far as the reactor knows."""
        return max(0, min(self._under_way - len(self._waiting) - len(self._finished), len(self._threads)))

    def stop(self) -> None:
        """Wait for what was begun and what waits, then end the threads (blocks: called when the reactor shuts down)."""
        for each in self._end():
            each.join()

    def _end(self) -> list[Thread]:
        """Let the threads end after what waits; which these are."""
        self._stopped = True
        threads, self._threads = self._threads, []
        for _ in threads:
            self._signals.put(False)
        return threads

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return cast("T", await self._submitted(_Task(function, args), self._waiting.append))

    async def run_first(self, function: Callable[..., T], *args: Any) -> T:
        return cast("T", await self._submitted(_Task(function, args), self._waiting.appendleft))

    def _submitted(self, task: _Task, queue: Callable[[_Task], None]) -> Deferred[Any]:
        if self._stopped:
            raise RuntimeError(f"the threads named {self.name} have ended")
        if self._under_way >= len(self._threads) < self._most:
            # Who does not stop them, as a command that failed, does not wait for them either.
            thread = Thread(target=self._work, name=f"{self.name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._under_way += 1
        queue(task)
        self._signals.put(True)
        return task.done

    def _work(self) -> None:
        """In a thread: one task after another, each time whichever is first by then."""
        while self._signals.get():
            task = self._waiting.popleft()
            self._finished.append((task, _outcome(task)))
            del task  # what it holds is large, and the next one may be a long time in coming
            if not self._delivering:
                self._delivering = True
                self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        # In this order: what is finished from here on either is seen below or asks for another delivery.
        self._delivering = False
        while self._finished:
            task, result = self._finished.popleft()
            self._under_way -= 1
            if not task.done.called:
                task.done.callback(result)


class Expendable(Offload):
    """One thread for what may never end, such as a look at a file system that does not answer.

    Neither `stop` nor the end of the process waits for a call that does not end.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        super().__init__(reactor, 1, name)

    def stop(self) -> None:
        """End the thread, at once or when its call ends."""
        self._end()


def _outcome(task: _Task) -> Any:
    """What the call returns, or its failure; ``None`` when nobody waits for it any more, and then it need not begin."""
    if task.done.called:
        return None
    try:
        return task.function(*task.args)
    except BaseException:  # noqa: BLE001  # the caller is told, whatever it was, and the thread goes on
        return Failure()


@implementer(IOffload)
class Inline:
    """Runs everything at once, in the caller's thread: for commands that have nothing else to do, and for tests."""

    def __init__(self) -> None:
        self.memory = Memory(MEMORY, SMALL)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    run_first = run


def completed(question: Awaitable[T]) -> T:
    """The result of a coroutine or Deferred that waits for nothing: with :class:`Inline`, all that blocks simply blocks."""
    outcome: list[T | Failure] = []
    ensureDeferred(question).addBoth(outcome.append)  # type: ignore[arg-type]  # what is asked are coroutines and Deferreds
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result

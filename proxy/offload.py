"""The bounded pool of worker threads: where everything runs that would make the reactor wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from proxy.interfaces import IOffload

T = TypeVar("T")


@define(eq=False)
class _Task:
    """One call, and who waits for it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    done: Deferred[Any] = field(init=False)


@implementer(IOffload)
class Offload:
    """A :class:`ThreadPool` of at most *threads* threads, named *name* in stack dumps."""

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str) -> None:
        self._reactor = reactor
        self._threads = threads
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)
        self._running = 0
        self._waiting: deque[_Task] = deque()

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> None:
        """Wait for what is running, then end the threads (blocks: called when the reactor shuts down)."""
        self._pool.stop()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return cast("T", await self._task(function, args, self._waiting.append))

    async def run_first(self, function: Callable[..., T], *args: Any) -> T:
        return cast("T", await self._task(function, args, self._waiting.appendleft))

    def _task(self, function: Callable[..., Any], args: tuple[Any, ...], queue: Callable[[_Task], None]) -> Deferred[Any]:
        task = _Task(function, args)
        task.done = Deferred(lambda _: self._leave(task))
        if self._running < self._threads:
            self._begin(task)
        else:
            queue(task)
        return task.done

    def _begin(self, task: _Task) -> None:
        self._running += 1
        deferToThreadPool(self._reactor, self._pool, task.function, *task.args).addBoth(self._ended, task)

    def _ended(self, result: Any, task: _Task) -> None:
        self._running -= 1
        if self._waiting:
            self._begin(self._waiting.popleft())
        if not task.done.called:
            task.done.callback(result)

    def _leave(self, task: _Task) -> None:
        """Nobody waits for *task* any more: it need not begin."""
        if task in self._waiting:
            self._waiting.remove(task)


@implementer(IOffload)
class Inline:
    """Runs everything at once, in the caller's thread: for commands that have nothing else to do, and for tests."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    run_first = run

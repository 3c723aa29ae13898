"""The bounded pool of worker threads: where everything runs that would make the reactor wait.

Theory of operation. A cold page takes a dozen calls, most of them shorter than Twisted's way there and back.  Here threads take
the next call by themselves, and what they finish is delivered to the reactor many at a time.  A deque's ends may be used from
any thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.interfaces import IOffload

T = TypeVar("T")


@define(eq=False)
class _Task:
    """One call, and who waits for it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    #: Fired with the result, in the reactor's thread; cancelled by who does not wait any more.
    done: Deferred[Any] = field(factory=Deferred)


@implementer(IOffload)
class Offload:
    """At most *threads* threads, named *name* in stack dumps."""

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str) -> None:
        self._reactor = reactor
        self._threads = ThreadPoolExecutor(threads, name)
        self._waiting: deque[_Task] = deque()
        self._finished: deque[tuple[_Task, Any]] = deque()
        self._delivering = False

    def stop(self) -> None:
        """Wait for what was begun and what waits, then end the threads (blocks: called when the reactor shuts down)."""
        self._threads.shutdown()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return cast("T", await self._submitted(_Task(function, args), self._waiting.append))

    async def run_first(self, function: Callable[..., T], *args: Any) -> T:
        return cast("T", await self._submitted(_Task(function, args), self._waiting.appendleft))

    def _submitted(self, task: _Task, queue: Callable[[_Task], None]) -> Deferred[Any]:
        queue(task)
        self._threads.submit(self._work_on_next)
        return task.done

    def _work_on_next(self) -> None:
        """In a thread: one task, whichever is first by now."""
        task = self._waiting.popleft()
        self._finished.append((task, _outcome(task)))
        if not self._delivering:
            self._delivering = True
            self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        # In this order: what is finished from here on either is seen below or asks for another delivery.
        self._delivering = False
        while self._finished:
            task, result = self._finished.popleft()
            if not task.done.called:
                task.done.callback(result)


def _outcome(task: _Task) -> Any:
    """What the call returns, or its failure; ``None`` when nobody waits for it any more, and then it need not begin."""
    if task.done.called:
        return None
    try:
        return task.function(*task.args)
    except Exception:  # noqa: BLE001  # the caller is told, whatever it was
        return Failure()


@implementer(IOffload)
class Inline:
    """Runs everything at once, in the caller's thread: for commands that have nothing else to do, and for tests."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    run_first = run

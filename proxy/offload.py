"""The bounded pool of worker threads: where everything runs that would make the reactor wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from proxy.interfaces import IOffload

T = TypeVar("T")


@implementer(IOffload)
class Offload:
    """A :class:`ThreadPool` of at most *threads* threads, named *name* in stack dumps."""

    def __init__(self, reactor: IReactorFromThreads, threads: int, name: str) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name=name)

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> None:
        """Wait for what is running, then end the threads (blocks: called when the reactor shuts down)."""
        self._pool.stop()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        result: T = await deferToThreadPool(self._reactor, self._pool, function, *args)
        return result


@implementer(IOffload)
class Inline:
    """Runs everything at once, in the caller's thread: for commands that have nothing else to do, and for tests."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

"""What the first page and the first file need besides is loaded soon after the start, so that they do not wait for it.

It is loaded in a worker thread, a module at a time.  What is not among it, such as the dashboard, is for services that use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.interfaces import IOffload

#: Seconds after the start: whoever waits for it has been answered by then.
_AFTER = 1.0
#: What they import, those that others of them import first: each takes a few milliseconds.
MODULES = (
    "proxy.upstream.http.connecting",
    "proxy.upstream.http.reuse",
    "proxy.upstream.http.body",
    "packaging.version",
    "packaging.specifiers",
    "packaging.tags",
    "packaging.utils",
    "proxy.simple.requires_python",
    "proxy.simple.from_json",
    "isal.igzip",
    "zstandard",
)


class Preloading(Service):
    """Loads :data:`MODULES` in a thread of *offload*."""

    log = Logger()

    def __init__(self, reactor: Any, offload: IOffload) -> None:
        self._reactor = reactor
        self._offload = offload
        self._timer: IDelayedCall | None = None
        self._loading: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        self._timer = self._reactor.callLater(_AFTER, self._begin)

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._loading is not None:
            self._loading.cancel()

    def _begin(self) -> None:
        self._loading = Deferred.fromCoroutine(self._load())
        self._loading.addErrback(self._failed)

    async def _load(self) -> None:
        for module in MODULES:
            await self._offload.run(import_module, module)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("what pages and files need cannot be loaded: install pypiproxy again", failure)

"""How far the reactor is behind: a timer that is due once a second, and how much later it was called."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall

from proxy.core.events import ReactorLagged
from proxy.interfaces import IRecorder

#: Seconds between two measurements.
INTERVAL = 1.0


class LagMeter(Service):
    """Reports to *recorder* while it runs."""

    def __init__(self, reactor: Any, recorder: IRecorder) -> None:
        self._reactor = reactor
        self._recorder = recorder
        self._due = 0.0
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._wait()

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._due = self._reactor.seconds() + INTERVAL
        self._timer = self._reactor.callLater(INTERVAL, self._called)

    def _called(self) -> None:
        self._recorder.record(ReactorLagged(max(0.0, self._reactor.seconds() - self._due)))
        self._wait()

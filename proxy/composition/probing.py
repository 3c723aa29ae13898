"""The listener for probes, and what the reactor reports to it.

It stays as it is when a configuration is replaced: it asks for the phase and the troubles of whatever serves at the moment.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.health import HealthReport, Phase
from proxy.core.troubles import Trouble
from proxy.host.listening import bound, endpoint, url_of
from proxy.host.probes import ProbeServer

#: Seconds between two reports.
_EVERY = 1.0


class Probing:
    """Answers probes at the endpoints *descriptions* with what *phase* and *troubles* say, which the reactor asks regularly.

    Without *descriptions* it does nothing.  Stopping it is the last step of a stop.
    """

    log = Logger()

    def __init__(
        self,
        descriptions: Sequence[str],
        reactor: Any,
        phase: Callable[[], Phase],
        troubles: Callable[[], Sequence[Trouble]],
    ) -> None:
        self._descriptions = tuple(descriptions)
        self._reactor = reactor
        self._phase = phase
        self._troubles = troubles
        self._ports: list[IListeningPort] = []
        # The steady clock of the reactor may be asked by any thread.
        self._clock: Callable[[], float] = reactor.seconds
        self._report = HealthReport(self._clock(), Phase.STARTING)
        self._server = ProbeServer(lambda: self._report, self._clock, lambda error: reactor.callFromThread(self._tell, error))
        self._loop = LoopingCall(self.report)
        self._loop.clock = reactor

    @property
    def urls(self) -> tuple[str, ...]:
        """Where probes are answered, of each port that is open."""
        return tuple(url_of(description, port) for description, port in zip(self._descriptions, self._ports, strict=False))

    def report(self) -> None:
        """Pass on what is true now."""
        if self._descriptions:
            self._report = HealthReport(self._clock(), self._phase(), tuple(each.words for each in self._troubles()))

    def _tell(self, error: Exception) -> None:
        self.log.failure("bug: a probe was not answered", Failure(error))

    def open(self) -> None:
        """Bind now, unless that is done.  Raises ConfigError."""
        for description in self._descriptions[len(self._ports) :]:
            factory = Factory()
            factory.noisy = False
            port: Any = bound(description, endpoint(description, self._reactor), factory)
            port.stopReading()  # it is another thread that accepts
            self._ports.append(port)

    def start(self) -> None:
        """Answer from now on.  Raises ConfigError."""
        if not self._descriptions:
            return
        self.open()
        self._server.start([socket.socket(fileno=os.dup(_descriptor(each))) for each in self._ports])
        # The first report is made when the reactor runs: until then the answer is that it starts.
        self._reactor.callWhenRunning(self._loop.start, _EVERY)
        for url in self.urls:
            self._reactor.callWhenRunning(self.log.info, "answering probes on {url}", url=url)

    async def stop(self) -> None:
        """Answer no more."""
        if self._loop.running:
            self._loop.stop()
        self._server.stop()
        ports, self._ports = self._ports, []
        for port in ports:
            await _closed(port)


def _descriptor(port: Any) -> int:
    number: int = port.fileno()
    return number


async def _closed(port: Any) -> None:
    closing = port.stopListening()
    if closing is not None:
        await closing

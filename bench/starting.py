"""A start beside that of bare twisted.web under twistd: until the first answer, and what the idle process takes."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from bench.scenarios import Metric, Scenario, Settings
from bench.servers import Server

#: Seconds without a request after which a server counts as idle.
IDLE = 2.0


def _start(settings: Settings, server: Server) -> Sequence[float]:
    # It has just been started, so that its files are in the system's cache and its modules are compiled.
    server.stop()
    began = time.perf_counter()
    server.start()
    _answer(server)
    took, used = time.perf_counter() - began, server.process.processor()
    time.sleep(IDLE)
    return took, used, server.process.memory() / 1e6


def _answer(server: Server) -> None:
    """Wait for any answer, whatever its status."""
    connection = http.client.HTTPConnection(urlsplit(server.base).netloc, timeout=30)
    try:
        connection.request("GET", "/-/live")
        connection.getresponse().read()
    finally:
        connection.close()


STARTING = Scenario(
    "start",
    (
        Metric("first answer", "s", goal=1.3),
        Metric("processor time until then", "s", goal=1.3),
        Metric("idle memory", "MB", goal=1.3),
    ),
    _start,
    cold=True,
    needs_wrk=False,
    against_bare=True,
)

"""What statistics and request IDs cost the hot lane: the same proxy with them and without, in turn on the same core.

There is no setting that turns them off: the one without them has a front that counts nothing and gives all requests one ID.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from bench.process import cores
from bench.scenarios import FILE_HEADERS, PAGE_HEADERS, Metric, Scenario, Settings, file_url, get
from bench.servers import Pypiproxy, Server
from bench.upstream import SMALL_FILE, SMALL_PAGE
from bench.wrk import Wrk

#: Clients of the hot lane, and how often the two take turns.
_CLIENTS, _TURNS = 8, 6


class Uncounted(Pypiproxy):
    """This project without statistics of requests and without request IDs."""

    name = "pypiproxy-uncounted"
    program = """\
from proxy.composition import serving
from proxy.mechanism.request_ids import RequestIds
from proxy.statistics.recorders import UNRECORDED

class OneId(RequestIds):
    def __init__(self):
        self.new = "-".__str__

    def of(self, raw, trusted):
        return "-"

made = serving.Front
serving.Front = lambda *parts, **others: made(*parts, **{**others, "visits": UNRECORDED, "ids": OneId()})
from proxy.cli import main
main()
"""


def _cost(server: Server, url: str, headers: Mapping[str, str], seconds: int) -> float:
    """Seconds of processor time per request."""
    get(url, headers)
    used = _processor(server)
    load = Wrk(url, headers, _CLIENTS, seconds).result()
    if load.errors or not load.requests:
        raise RuntimeError(f"{server.name}: {load.errors} errors, {load.requests} requests")
    return (_processor(server) - used) / load.requests


def _processor(server: Server) -> float:
    """Seconds of processor time so far, to the nanosecond: the clock of another process, see clock_getcpuclockid(3)."""
    return time.clock_gettime((~server.process.pid << 3) | 2)


def _counting(name: str, url: Callable[[Server], str], headers: Mapping[str, str]) -> Scenario:
    def measure(settings: Settings, server: Server) -> Sequence[float]:
        other = Uncounted(settings.upstream.base, cores()[1], settings.place / Uncounted.name)
        other.start()
        try:
            costs: dict[Server, list[float]] = {server: [], other: []}
            addresses = {each: url(each) for each in costs}
            for turn in range(_TURNS):
                for each in (server, other) if turn % 2 else (other, server):
                    costs[each].append(_cost(each, addresses[each], headers, settings.seconds))
        finally:
            other.stop()
        counted, uncounted = (statistics.median(costs[each]) for each in (server, other))
        return counted * 1e6, uncounted * 1e6, uncounted / counted

    return Scenario(
        name,
        (
            Metric("processor time a request, with both", "µs"),
            Metric("processor time a request, without", "µs"),
            Metric("requests a second, with ÷ without (at least 0.95)", "", more_is_better=True),
        ),
        measure,
        alone=True,
        long=True,
    )


COUNTING = (
    _counting("statistics and request IDs, hot page of 35 files", lambda server: server.page(SMALL_PAGE[0]), PAGE_HEADERS),
    _counting("statistics and request IDs, hot file 10 kB", lambda server: file_url(server, SMALL_FILE), FILE_HEADERS),
)

"""Health checks under load: how long they take, and whether they are true, while clients ask for what is not cached.

Other processes send them, one after the other and each on a connection of its own, as a load balancer does.  They share their
core with the clients and with the upstream, and the proxy shares its core with whatever else the machine does, so the figures
include the time that each waits for its core.  How much that is, is measured at the same moment: an idle process, on the core
of the proxy, answers the same checks in the same way.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from msgspec import Struct, field

from bench.herd import request
from bench.process import cores
from bench.scenarios import FILE_HEADERS, PAGE_HEADERS, Metric, Scenario, Settings, file_url, get
from bench.servers import Server
from bench.upstream import BIG_FILE, BIG_PAGE, COLD_PAGES, HUGE_PAGE, ROOT, SMALL_PAGE
from proxy.core.health import HealthReport, Phase
from proxy.host.probes import ProbeServer

#: Clients that ask at the same moment, and seconds before each answer of the upstream.
CLIENTS, DELAY = 1_500, 0.05
#: Connections of the proxy that is full: so many wait for upstream, and so many take nothing of what they are sent.
CONNECTIONS, WAITING, STALLED = 80, 60, 20
#: Seconds for which the proxy stays full; an upstream that is slower than that.
FULL_FOR, SLOW = 6.0, 9.0
#: Seconds after which clients that have no answer have failed.
_DEADLINE = 120.0
#: When an agent that was answered 503 asks again, which the answer says too (seconds).
_COMES_BACK = 2.0
#: How a prober begins its next check: as often as a few load balancers together.
_PAUSE = 0.002


class Probes(Struct):
    """What a prober has seen: the milliseconds of each check, and how many answers were not true."""

    taken: list[float] = field(default_factory=list)
    wrong: int = 0

    def figures(self) -> Sequence[float]:
        """Median, 99th percentile and maximum (milliseconds), how many there were, and how many were wrong."""
        if len(self.taken) < 100:
            raise RuntimeError(f"only {len(self.taken)} checks were answered")
        return statistics.median(self.taken), self.within, max(self.taken), len(self.taken), self.wrong

    @property
    def within(self) -> float:
        """The 99th percentile (milliseconds)."""
        return statistics.quantiles(self.taken, n=100)[98]


def probe(base: str) -> None:
    """Check *base* until standard input ends, with a line of output after the first check; then print what was seen."""
    parts, seen = urlsplit(base), Probes()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(_PAUSE):
            for path, expected in (("/-/ready", (b"ready\n", b"degraded: ")), ("/-/live", (b"alive\n",))):
                began = time.perf_counter()
                with socket.create_connection((parts.hostname, parts.port), _DEADLINE) as connection:
                    connection.sendall(request(base + path, {"Connection": "close"}))
                    answer = b"".join(iter(lambda: connection.recv(65536), b""))
                seen.taken.append((time.perf_counter() - began) * 1000)
                _, _, body = answer.partition(b"\r\n\r\n")
                seen.wrong += not (answer.startswith(b"HTTP/1.1 200 ") and body.startswith(expected))
                if len(seen.taken) == 1:
                    print(flush=True)
    print(json.dumps([seen.taken, seen.wrong]))


def answer_idly(core: int) -> None:
    """Answer probes on *core*, and do nothing else, until standard input ends; print the port."""
    os.sched_setaffinity(0, {core})
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    server = ProbeServer(lambda: HealthReport(time.monotonic(), Phase.SERVING), time.monotonic, print)
    server.start([listening])
    sys.stdin.read()
    server.stop()


@contextmanager
def _compared(server: Server) -> Iterator[tuple[Probes, Probes]]:
    """What probers see of *server*, and of an idle process, until the end of the context; it is there then."""
    command = [sys.executable, "-c", f"from bench.probing import answer_idly; answer_idly({cores()[1]})"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as idle:
        assert idle.stdout is not None
        other = f"http://127.0.0.1:{int(idle.stdout.readline())}"
        with _probed(server.probes) as seen, _probed(other) as compared:
            yield seen, compared


@contextmanager
def _probed(base: str) -> Iterator[Probes]:
    """What a prober sees of *base* until the end of the context, and is there then."""
    seen = Probes()
    command = [sys.executable, "-c", f"from bench.probing import probe; probe({base!r})"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as prober:
        assert prober.stdout is not None
        prober.stdout.readline()
        yield seen
        out, _ = prober.communicate()
    seen.taken, seen.wrong = json.loads(out)


def _connected(server: Server, count: int) -> list[socket.socket]:
    parts = urlsplit(server.base)
    return [socket.create_connection((parts.hostname, parts.port), _DEADLINE) for _ in range(count)]


def _statuses(connections: Iterable[socket.socket]) -> list[bytes]:
    """The status of the answer on each of *connections*, once all have begun."""
    found = []
    with selectors.DefaultSelector() as selector:
        for each in connections:
            selector.register(each, selectors.EVENT_READ)
        until = time.monotonic() + _DEADLINE
        while selector.get_map():
            if time.monotonic() > until:
                raise RuntimeError(f"{len(selector.get_map())} answers are missing after {_DEADLINE:.0f} s")
            for key, _ in selector.select(1.0):
                assert isinstance(key.fileobj, socket.socket)
                found.append(key.fileobj.recv(65536)[9:12])
                selector.unregister(key.fileobj)
    return found


def _all_passed(server: Server, waiting: dict[socket.socket, str]) -> int:
    """Wait until each agent has the page that it is *waiting* for; how often one was told to come back, and did.

    Raises RuntimeError for any other answer than the page, or that there is none, and after :data:`_DEADLINE`.
    """
    told = 0
    late: list[tuple[float, str]] = []
    until = time.monotonic() + _DEADLINE
    with selectors.DefaultSelector() as selector:
        for each in waiting:
            selector.register(each, selectors.EVENT_READ)
        while waiting or late:
            now = time.monotonic()
            if now > until:
                raise RuntimeError(f"{len(waiting) + len(late)} agents have no page after {_DEADLINE:.0f} s")
            while late and late[0][0] <= now:
                _, page = late.pop(0)
                (again,) = _connected(server, 1)
                again.sendall(request(page, PAGE_HEADERS))
                waiting[again] = page
                selector.register(again, selectors.EVENT_READ)
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                page, status = waiting.pop(key.fileobj), key.fileobj.recv(65536)[9:12]
                selector.unregister(key.fileobj)
                key.fileobj.close()
                if status == b"503":
                    told += 1
                    late.append((now + _COMES_BACK, page))
                elif status not in (b"200", b"404"):
                    raise RuntimeError(f"{page} was answered {status!r}")
    return told


def _burst(settings: Settings, server: Server) -> Sequence[float]:
    # Names that upstream does not have are asked for as those that it has, and pages that take long to read as others.
    names = [name for name, _ in (HUGE_PAGE, BIG_PAGE, *COLD_PAGES)] + [f"unknown-{number}" for number in range(CLIENTS)]
    settings.upstream.delay(DELAY)
    try:
        waiting = dict(zip(_connected(server, CLIENTS), map(server.page, names), strict=False))
        with _compared(server) as (seen, idle):
            began = time.perf_counter()
            for each, page in waiting.items():
                each.sendall(request(page, PAGE_HEADERS))
            told = _all_passed(server, waiting)
            took = time.perf_counter() - began
    finally:
        settings.upstream.delay(0)
    return *seen.figures(), idle.within, took, told


def _full(settings: Settings, server: Server) -> Sequence[float]:
    server.stop()
    server.start(PYPIPROXY_SERVER__MAX_CONNECTIONS=str(CONNECTIONS))
    file, hot = file_url(server, BIG_FILE), server.page(SMALL_PAGE[0])
    get(hot, PAGE_HEADERS)
    try:
        with ExitStack() as stack:
            stalled = [stack.enter_context(each) for each in _connected(server, STALLED)]
            for each in stalled:
                each.sendall(request(file, FILE_HEADERS))
            _statuses(stalled)
            settings.upstream.delay(SLOW)
            for number, each in enumerate(_connected(server, WAITING)):
                stack.enter_context(each).sendall(request(server.page(f"unknown-{number}"), PAGE_HEADERS))
            refused = served = asked = 0
            with _compared(server) as (seen, idle):
                until = time.monotonic() + FULL_FOR
                while time.monotonic() < until:
                    first, second = _connected(server, 2)
                    with first, second:
                        first.sendall(request(server.page("another"), PAGE_HEADERS))
                        second.sendall(request(hot, PAGE_HEADERS))
                        refused += first.recv(65536)[9:12] == b"503"
                        served += second.recv(65536)[9:12] == b"200"
                        asked += 1
            if not refused:
                raise RuntimeError("it was not full")
    finally:
        settings.upstream.delay(0)
    return *seen.figures(), idle.within, served, asked - served


_SEEN = (
    Metric("median of the checks", "ms"),
    Metric("99 % of the checks within", "ms"),
    Metric("longest check", "ms"),
    Metric("checks", ""),
    Metric("wrong checks", ""),
    Metric("99 % of those of an idle process within", "ms"),
)
PROBING = (
    Scenario(
        f"health checks during {CLIENTS:,} cold requests",
        (*_SEEN, Metric("until all agents have their page", "s"), Metric("requests repeated after 503", "")),
        _burst,
        cold=True,
        needs_wrk=False,
        alone=True,
    ),
    Scenario(
        "health checks without a free connection",
        (*_SEEN, Metric("hot pages served meanwhile", "", more_is_better=True), Metric("hot pages refused", "")),
        _full,
        cold=True,
        needs_wrk=False,
        alone=True,
        long=True,
    ),
)

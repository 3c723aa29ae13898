"""What is measured: each scenario is one kind of load on one server, and the figures it yields."""

from __future__ import annotations

import gzip
import http.client
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from msgspec import Struct, field

from bench.herd import Outcome, herd
from bench.servers import LOGIN, Server
from bench.upstream import ALL_PROJECTS, BIG_FILE, BIG_PAGE, HUGE_PAGE, SMALL_FILE, SMALL_PAGE, Sized, Upstream
from bench.wrk import Wrk
from tests.support.wheels import data_of

#: What pip sends, to the letter where it bears on the work.
_AGENT = (
    'pip/26.3 {"ci":true,"cpu":"x86_64","distro":{"id":"bookworm","libc":{"lib":"glibc","version":"2.36"},'
    '"name":"Debian GNU/Linux","version":"12"},"implementation":{"name":"CPython","version":"3.11.2"},'
    '"installer":{"name":"pip","version":"26.3"},"openssl_version":"OpenSSL 3.0.17 1 Jul 2025","python":"3.11.2",'
    '"setuptools_version":"66.1.1","system":{"name":"Linux","release":"6.1.0"}}'
)
PAGE_HEADERS = {
    "User-Agent": _AGENT,
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
    "Accept-Encoding": "gzip, deflate",
    "Cache-Control": "max-age=0",
}
FILE_HEADERS = {"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
_LOGGED_IN = {"Authorization": LOGIN}


class Metric(Struct, frozen=True):
    """One figure.  *goal* is the ratio to the reference's figure that the project wants to reach."""

    name: str
    unit: str
    more_is_better: bool = False
    goal: float | None = None


class Settings(Struct, frozen=True):
    """How long, and with what, to measure."""

    upstream: Upstream
    seconds: int
    #: Clients that ask at the same moment.
    herd: int
    #: A folder for what clients need.
    place: Path
    #: What each resolving scenario's first resolution came to.
    resolved: dict[str, frozenset[str]] = field(default_factory=dict)


class Scenario(Struct, frozen=True):
    """*measure* yields one figure for each of *metrics*; a *cold* one is given a server that has just been started, empty."""

    name: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Settings, Server], Sequence[float]]
    cold: bool = False
    needs_wrk: bool = True
    #: Left out of a quick run.
    long: bool = False
    #: The reference is the upstream itself, asked directly.
    against_direct: bool = False
    #: The reference is twisted.web without anything on it, and only this project is compared with it.
    against_bare: bool = False
    #: Only this project is measured: others have nothing of the kind.
    alone: bool = False


# -- hot --------------------------------------------------------------------------------------------------------------------


def _hot(
    name: str,
    url: Callable[[Server], str],
    headers: Mapping[str, str],
    clients: int,
    goal: float | None,
    *,
    varied: bool = False,
) -> Scenario:
    """Requests of *clients* for what has just been asked for, so that it is in the cache.

    A server may remember whole requests.  *varied* ones, each with another ``User-Agent``, show what it does without.
    """

    def measure(settings: Settings, server: Server) -> Sequence[float]:
        address = url(server)
        for _ in range(2):
            size = len(_settled(address, headers))
        server.process.forget_peak()
        before, used = server.process.memory(), server.process.processor()
        load = Wrk(address, headers, clients, settings.seconds, varied=varied).result()
        used = server.process.processor() - used
        if load.errors:
            raise RuntimeError(f"{name}: {load.errors} errors from {server.name}")
        if not load.requests:
            raise RuntimeError(f"{name}: {server.name} finished no answer in {settings.seconds} s")
        if load.bytes < load.requests * size:
            raise RuntimeError(f"{name}: short answers from {server.name}")
        rate = load.bytes_rate / 1e6 if by_bytes else load.rate
        costs = used / load.requests * 1e6
        return rate, load.p99 * 1e3, costs, server.process.peak() / 1e6, (server.process.peak() - before) / 1e6

    by_bytes = name.startswith("hot file 100 MB")
    return Scenario(
        name,
        (
            Metric("rate", "MB/s" if by_bytes else "requests/s", more_is_better=True, goal=goal),
            Metric("p99", "ms"),
            Metric("processor time a request", "µs"),
            Metric("peak memory", "MB"),
            Metric("memory growth", "MB"),
        ),
        measure,
        long=varied or clients == 1,
    )


def _settled(url: str, headers: Mapping[str, str]) -> bytes:
    """The body of *url*.  A server may fail while it writes what it has just fetched; hot begins when it is done with that."""
    for _ in range(5):
        try:
            return get(url, headers)
        except RuntimeError:
            time.sleep(0.5)
    return get(url, headers)


def _page(project: str) -> Callable[[Server], str]:
    return lambda server: server.page(project)


def _file(sized: Sized) -> Callable[[Server], str]:
    return lambda server: file_url(server, sized)


def _guarded_page(project: str) -> Callable[[Server], str]:
    return lambda server: server.guarded_page(project)


def _guarded_file(sized: Sized) -> Callable[[Server], str]:
    return lambda server: _linked(server.guarded_page(sized.project), _LOGGED_IN)


# -- cold -------------------------------------------------------------------------------------------------------------------


def _warm(settings: Settings, server: Server) -> None:
    """Have every part of the server run once, on other projects than those that are measured."""
    get(server.page(SMALL_PAGE[0]), PAGE_HEADERS)
    get(file_url(server, SMALL_FILE), FILE_HEADERS)
    settings.upstream.forget()


def _cold_page(settings: Settings, server: Server) -> Sequence[float]:
    _warm(settings, server)
    outcomes = herd(server.page(BIG_PAGE[0]), PAGE_HEADERS, settings.herd, None)
    return settings.upstream.asked(), _slowest(outcomes) * 1e3, _wrong(outcomes)


def _cold_file(settings: Settings, server: Server) -> Sequence[float]:
    _warm(settings, server)
    url = file_url(server, BIG_FILE)
    settings.upstream.forget()
    server.process.forget_peak()
    before = server.process.memory()
    outcomes = herd(url, FILE_HEADERS, settings.herd, data_of(BIG_FILE.size))
    growth = server.process.peak() - before
    first = [each.first_byte if each.first_byte is not None else float("inf") for each in outcomes]
    return (
        settings.upstream.asked(),
        statistics.median(first) * 1e3,
        max(first) * 1e3,
        _slowest(outcomes),
        growth / 1e6,
        _wrong(outcomes),
    )


def _slowest(outcomes: Sequence[Outcome]) -> float:
    return max(each.done if each.done is not None else float("inf") for each in outcomes)


def _wrong(outcomes: Sequence[Outcome]) -> int:
    return sum(not each.right for each in outcomes)


def _huge_page(settings: Settings, server: Server) -> Sequence[float]:
    """A cold page of 40,000 files, while others ask for a small one."""
    _warm(settings, server)
    others = Wrk(server.page(SMALL_PAGE[0]), PAGE_HEADERS, 4, settings.seconds + 2)
    outcomes = herd(server.page(HUGE_PAGE[0]), PAGE_HEADERS, 1, None)
    load = others.result()
    return _slowest(outcomes), load.p99 * 1e3, load.slowest * 1e3


def _all_projects(settings: Settings, server: Server) -> Sequence[float]:
    """The list of all projects, tens of megabytes, once cold and three times hot.

    Nothing is asked for before: some servers fetch the list together with the first page.
    """
    settings.upstream.list_names(ALL_PROJECTS)
    try:
        settings.upstream.forget()
        server.process.forget_peak()
        before = server.process.memory()
        took: list[float] = []
        for _ in range(4):
            began = time.perf_counter()
            body = get(server.index, PAGE_HEADERS)
            took.append(time.perf_counter() - began)
            document = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
            if (listed := document.count(b'"name"')) < ALL_PROJECTS:
                raise RuntimeError(f"{server.name} lists {listed} projects")
        return took[0], statistics.median(took[1:]), (server.process.peak() - before) / 1e6, settings.upstream.asked()
    finally:
        settings.upstream.list_names(0)


SCENARIOS = (
    _hot("hot small page", _page(SMALL_PAGE[0]), PAGE_HEADERS, 16, 0.6),
    _hot("hot small page, varied requests", _page(SMALL_PAGE[0]), PAGE_HEADERS, 16, 0.6, varied=True),
    _hot("hot small page, with a password", _guarded_page(SMALL_PAGE[0]), PAGE_HEADERS | _LOGGED_IN, 16, None),
    _hot("hot 2 MB page", _page(BIG_PAGE[0]), PAGE_HEADERS, 16, 0.8),
    _hot("hot file 10 kB, 1 client", _file(SMALL_FILE), FILE_HEADERS, 1, None),
    _hot("hot file 10 kB, 8 clients", _file(SMALL_FILE), FILE_HEADERS, 8, 0.4),
    _hot("hot file 10 kB, 8 clients, varied requests", _file(SMALL_FILE), FILE_HEADERS, 8, 0.4, varied=True),
    _hot("hot file 10 kB, with a password, 8 clients", _guarded_file(SMALL_FILE), FILE_HEADERS | _LOGGED_IN, 8, None),
    _hot("hot file 100 MB, 1 client", _file(BIG_FILE), FILE_HEADERS, 1, None),
    _hot("hot file 100 MB, 8 clients", _file(BIG_FILE), FILE_HEADERS, 8, 0.8),
    Scenario(
        "cold page, herd",
        (Metric("upstream requests", ""), Metric("slowest client", "ms"), Metric("wrong answers", "")),
        _cold_page,
        cold=True,
        needs_wrk=False,
    ),
    Scenario(
        "cold file 100 MB, herd",
        (
            Metric("upstream requests", ""),
            Metric("first byte, median", "ms"),
            Metric("first byte, slowest", "ms"),
            Metric("slowest client", "s"),
            Metric("memory growth", "MB"),
            Metric("wrong answers", ""),
        ),
        _cold_file,
        cold=True,
        needs_wrk=False,
    ),
    Scenario(
        "cold page of 40,000 files",
        (Metric("its client", "s"), Metric("p99 of others", "ms"), Metric("slowest of others", "ms")),
        _huge_page,
        cold=True,
        long=True,
    ),
    Scenario(
        "list of 800,000 projects",
        (Metric("cold", "s"), Metric("hot", "s"), Metric("memory growth", "MB"), Metric("upstream requests", "")),
        _all_projects,
        cold=True,
        needs_wrk=False,
        long=True,
    ),
)


# -- single requests ----------------------------------------------------------------------------------------------------------


def get(url: str, headers: Mapping[str, str]) -> bytes:
    """The body of *url* as it came.  Raises RuntimeError for any other status than 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("GET", parts.path, headers=dict(headers))
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{url}: {response.status} {response.reason}")
        return body
    finally:
        connection.close()


def file_url(server: Server, sized: Sized) -> str:
    """Where *server* says that the file is."""
    return _linked(server.page(sized.project), {})


def _linked(url: str, headers: Mapping[str, str]) -> str:
    """The URL of the first file on the page at *url*."""
    page = json.loads(get(url, PAGE_HEADERS | {"Accept-Encoding": "identity", **headers}))
    return urljoin(url, str(page["files"][0]["url"]))

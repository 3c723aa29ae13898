"""Cold small pages by the hundred, and hot ones beside a large file that arrives."""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from bench.herd import herd
from bench.scenarios import FILE_HEADERS, PAGE_HEADERS, Metric, Scenario, Settings, file_url, get
from bench.servers import Server
from bench.upstream import BIG_FILE, COLD_PAGES, SMALL_FILE, SMALL_PAGE
from bench.wrk import Wrk
from tests.support.wheels import data_of

#: Connections over which cold pages are asked for.
_CONNECTIONS = 16
#: Bytes a second at which the large file arrives: long enough for the others to be measured.
_ARRIVAL = 30_000_000


def _pages(settings: Settings, server: Server) -> Sequence[float]:
    """Pages of projects that nobody has asked for, each once, with what the server fetches ahead of its clients."""
    return _once(settings, server, server.page)


def _pages_alone(settings: Settings, server: Server) -> Sequence[float]:
    """The same without what servers fetch ahead."""
    return _once(settings, server, server.asked_page)


def _once(settings: Settings, server: Server, page: Callable[[str], str]) -> Sequence[float]:
    get(page(SMALL_PAGE[0]), PAGE_HEADERS)
    settings.upstream.forget()
    urls = deque(page(project) for project, _ in COLD_PAGES)
    wrong: list[str] = []
    used = server.process.processor()
    began = time.perf_counter()
    threads = [threading.Thread(target=_ask, args=(urls, wrong)) for _ in range(_CONNECTIONS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    took = time.perf_counter() - began
    used = server.process.processor() - used
    return len(COLD_PAGES) / took, used / len(COLD_PAGES) * 1e3, settings.upstream.asked(), len(wrong)


def _ask(urls: deque[str], wrong: list[str]) -> None:
    """Ask for all of *urls*, as long as there are any, over one connection."""
    connection = http.client.HTTPConnection(urlsplit(urls[0]).netloc, timeout=60)
    try:
        while urls:
            try:
                url = urls.popleft()
            except IndexError:
                return
            connection.request("GET", urlsplit(url).path, headers=dict(PAGE_HEADERS))
            response = connection.getresponse()
            if not response.read() or response.status != 200:
                wrong.append(url)
    finally:
        connection.close()


def _beside(settings: Settings, server: Server) -> Sequence[float]:
    """A small page that is hot, while a file of 100 MB arrives for somebody else."""
    get(server.page(SMALL_PAGE[0]), PAGE_HEADERS)
    get(file_url(server, SMALL_FILE), FILE_HEADERS)
    url = file_url(server, BIG_FILE)
    settings.upstream.rate(_ARRIVAL)
    try:
        others = Wrk(server.page(SMALL_PAGE[0]), PAGE_HEADERS, 4, BIG_FILE.size // _ARRIVAL)
        (outcome,) = herd(url, FILE_HEADERS, 1, data_of(BIG_FILE.size))
        load = others.result()
    finally:
        settings.upstream.rate(None)
    if not outcome.right:
        raise RuntimeError(f"{server.name} sent a wrong file")
    return outcome.done or float("inf"), load.p99 * 1e3, load.rate


_OF_PAGES = (
    Metric("rate", "pages/s", more_is_better=True),
    Metric("processor time a page", "ms"),
    Metric("upstream requests", ""),
    Metric("wrong answers", ""),
)
_NAME = f"cold small pages, {len(COLD_PAGES)} of them"

COLD = (
    Scenario(_NAME, _OF_PAGES, _pages, cold=True, needs_wrk=False, long=True),
    Scenario(f"{_NAME}, nothing in advance", _OF_PAGES, _pages_alone, cold=True, needs_wrk=False, long=True),
    Scenario(
        "hot small page beside an arriving file of 100 MB",
        (
            Metric("the file", "s"),
            Metric("p99 of the page", "ms"),
            Metric("rate of the page", "requests/s", more_is_better=True),
        ),
        _beside,
        cold=True,
        long=True,
    ),
)

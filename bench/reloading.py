"""Reloads under load: clients that keep their connections ask 10,000 times while the configuration changes again and again."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.parse import urlsplit

from bench.scenarios import FILE_HEADERS, PAGE_HEADERS, Metric, Scenario, Settings, file_url, get
from bench.servers import Server
from bench.upstream import BIG_FILE, SMALL_FILE, SMALL_PAGE

#: Clients, and requests that each of them sends on one connection.
CLIENTS, REQUESTS = 40, 250
#: Clients that download a large file meanwhile, one time after the other.
DOWNLOADING = 2
#: Seconds between two reloads.
_PAUSE = 0.2


class _Client:
    """Asks for *urls* in turn on one connection, and counts answers that are not as the first one was."""

    def __init__(self, urls: Sequence[tuple[str, Mapping[str, str]]], expected: Mapping[str, int]) -> None:
        self._urls = urls
        self._expected = expected
        self.failed = 0
        self.longest = 0.0

    def ask(self, times: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(self._urls[0][0]).netloc, timeout=60)
        for number in range(times):
            url, headers = self._urls[number % len(self._urls)]
            began = time.monotonic()
            try:
                connection.request("GET", urlsplit(url).path, headers=dict(headers))
                answer = connection.getresponse()
                size = len(answer.read())
                self.failed += answer.status != 200 or size != self._expected[url] or answer.will_close
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
            self.longest = max(self.longest, time.monotonic() - began)
        connection.close()


def _reloaded(settings: Settings, server: Server) -> Sequence[float]:
    small = [(server.page(SMALL_PAGE[0]), PAGE_HEADERS), (file_url(server, SMALL_FILE), FILE_HEADERS)]
    big = [(file_url(server, BIG_FILE), FILE_HEADERS)]
    expected = {url: len(get(url, headers)) for url, headers in (*small, *big)}
    clients = [_Client(small, expected) for _ in range(CLIENTS)]
    downloading = [_Client(big, expected) for _ in range(DOWNLOADING)]
    settings.upstream.forget()
    reloads = 0
    with ThreadPoolExecutor(CLIENTS + DOWNLOADING) as threads:
        running = {threads.submit(each.ask, REQUESTS) for each in clients}
        running |= {threads.submit(each.ask, 5) for each in downloading}
        while wait(running, _PAUSE).not_done:
            reloads += 1
            server.reload(reloads)
    everybody = [*clients, *downloading]
    longest = max(each.longest for each in clients)
    return sum(each.failed for each in everybody), reloads, longest * 1e3, settings.upstream.asked()


RELOADING = Scenario(
    f"{CLIENTS * REQUESTS:,} requests while the configuration changes",
    (
        Metric("failed requests and closed connections", ""),
        Metric("reloads", ""),
        Metric("the longest request", "ms"),
        Metric("upstream requests", ""),
    ),
    _reloaded,
    cold=True,
    needs_wrk=False,
)

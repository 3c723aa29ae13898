"""Files on hosts that an upstream's ``file_hosts`` refuses are not offered: they would never be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from proxy.model import Page
from proxy.settings import UpstreamSettings
from proxy.upstream.http.origin import host_allowed


class Reachable(Struct, frozen=True):
    """A page without the files on hosts that are refused, and these hosts, sorted."""

    page: Page
    refused: tuple[str, ...] = ()


class FileHosts:
    """The hosts that pages of *upstreams* may send us to for files."""

    def __init__(self, upstreams: Iterable[UpstreamSettings]) -> None:
        self._limited = {each.name: each for each in upstreams if each.file_hosts is not None}

    def limit(self, upstream: str) -> bool:
        """Whether *upstream* is limited to some hosts."""
        return upstream in self._limited

    def reachable(self, page: Page, upstream: str, url: str) -> Reachable:
        """What can be had of *page*, which *upstream* has at *url*.  Takes milliseconds for thousands of files."""
        settings = self._limited[upstream]
        own = {urlsplit(settings.url).hostname, urlsplit(url).hostname}
        verdicts: dict[str, str] = {}

        def refused(file_url: str) -> str:
            """The host of *file_url* when it is refused, else nothing."""
            start = "/".join(file_url.split("/", 3)[:3])
            if start not in verdicts:
                host = urlsplit(start).hostname or ""
                verdicts[start] = "" if host in own or host_allowed(host, settings.file_hosts or ()) else host
            return verdicts[start]

        files = tuple(file for file in page.files if not refused(file.url))
        return Reachable(replace(page, files=files), tuple(sorted({host for host in verdicts.values() if host})))

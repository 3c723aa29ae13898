"""Taking projects over into a hosted index, as operators ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from msgspec.structs import asdict

from proxy.errors import BadRequest
from proxy.hosted.editing import Editing
from proxy.hosted.receiving import Receiving
from proxy.interfaces import IOwnership, Report
from proxy.moving.importing import Importing
from proxy.moving.sources import ProjectSource
from proxy.names import is_project_name, normalize
from proxy.settings import UpstreamSettings

#: Files that are fetched at once, at most.
MOST_JOBS = 32


class ImportTarget(Protocol):
    """A hosted index that projects are imported into."""

    @property
    def receiving(self) -> Receiving:
        """What takes files."""

    @property
    def editing(self) -> Editing:
        """What changes its files."""


class Importer:
    """Imports into the hosted index that *chosen* finds by its name, or raises; *opened* opens a source."""

    def __init__(
        self,
        chosen: Callable[[str], ImportTarget],
        opened: Callable[[Path | UpstreamSettings], ProjectSource],
        claims: IOwnership,
    ) -> None:
        self._chosen = chosen
        self._opened = opened
        self._claims = claims

    async def run(
        self,
        report: Report,
        index: str,
        source: str,
        projects: Sequence[str] = (),
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        dry: bool = False,
        jobs: int = 8,
    ) -> dict[str, Any]:
        """Take *projects*, or all, over from *source* (a URL or a directory) into *index*.  Raises ProxyError."""
        hosted = self._chosen(index)
        if not 1 <= jobs <= MOST_JOBS:
            raise BadRequest(f"{jobs} files at once: expected 1 to {MOST_JOBS}")
        for each in projects:
            if not is_project_name(each):
                raise BadRequest(f"{each!r} is no name of a project")
        wanted = [normalize(each) for each in projects]
        opened = self._opened(_place_of(source, username, password, token))
        try:
            run = Importing(opened, hosted.receiving, hosted.editing, self._claims, report, jobs, dry=dry)
            return asdict(await run.run(wanted))
        finally:
            await opened.close()


def _place_of(source: str, username: str | None, password: str | None, token: str | None) -> Path | UpstreamSettings:
    if "://" not in source:
        return Path(source)
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"{source!r} is no URL of an index: expected http:// or https:// and a host")
    url = source if source.endswith("/") else f"{source}/"
    return UpstreamSettings(
        name="source", url=url, username=username, password=password, token=token, max_connections=MOST_JOBS
    )

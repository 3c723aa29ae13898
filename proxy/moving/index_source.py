"""Another index as a source, through the Simple API in JSON or HTML: devpi, pypiserver, Nexus, Artifactory and any other."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import BinaryIO

import msgspec

from proxy.errors import NotFound, UpstreamFailed
from proxy.hosted.intake import IncomingFile, Intake
from proxy.hosted.notes import STATUSES, ProjectStatus, moment_of
from proxy.interfaces import IOffload, IUpstreams
from proxy.model import File, Page, PageMissing, PageUnchanged, Wanted
from proxy.moving.delivery import Delivery
from proxy.moving.sources import BytesTold, OfferedFile, OfferedProject
from proxy.names import is_project_name, normalize
from proxy.settings import MIB
from proxy.simple.project_list import write_lines

#: The longest list of projects (bytes).
_LONGEST = 64 * MIB


class _Line(msgspec.Struct):
    name: str


_line = msgspec.json.Decoder(_Line)


class IndexSource:
    """The index behind *pool*, which is called *name* there; *closing* ends what is under way."""

    def __init__(self, name: str, pool: IUpstreams, offload: IOffload, closing: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._pool = pool
        self._offload = offload
        self._closing = closing

    async def close(self) -> None:
        """End what is under way."""
        await self._closing()

    async def projects(self) -> Sequence[str]:
        """As in the port."""
        found: set[str] = set()

        async def receive(content_type: str, read: Callable[[], Awaitable[bytes]]) -> tuple[str, int | None]:
            digest, size = hashlib.sha256(), 0
            with tempfile.TemporaryFile() as body:
                while piece := await read():
                    size += len(piece)
                    if size > _LONGEST:
                        raise ValueError(f"it has more than {_LONGEST:,} bytes")
                    digest.update(piece)
                    body.write(piece)
                body.seek(0)
                found.update(await self._offload.run(_names_in, body, content_type))
            return digest.hexdigest(), None

        reply = await self._pool.projects(None, receive)
        if isinstance(reply, PageMissing):
            raise NotFound("the source has no list of projects: name the projects to import")
        return sorted(found)

    async def project(self, name: str) -> OfferedProject:
        """As in the port."""
        reply = await self._pool.page(name, None)
        if isinstance(reply, PageUnchanged):
            raise UpstreamFailed(f"the page of {name}", [])  # nobody has asked for changes
        if isinstance(reply, PageMissing):
            hint = "" if "simple/" in reply.url else "; is this the URL of its simple index, such as …/simple/ or …/+simple/?"
            raise NotFound(f"the source has no project {name}{hint}")
        page: Page = reply.page
        problems = [f"{file.filename}: the page states a digest that no file can have" for file in page.unverifiable]
        return OfferedProject(name, [self._offered(name, file) for file in page.files], _status_of(page), problems)

    def _offered(self, project: str, file: File) -> OfferedFile:
        wanted = Wanted(self._name, project, file.filename, file.url, self._name, file.digest, file.size)
        upload_time = None
        if file.upload_time is not None:
            with suppress(ValueError):
                moment_of(file.upload_time)
                upload_time = file.upload_time
        return OfferedFile(project, file.filename, wanted, file.size, file.hashes, upload_time, file.yanked)

    async def fetch(self, file: OfferedFile, intake: Intake, told: BytesTold) -> tuple[IncomingFile, float | None]:
        """As in the port."""
        delivery = Delivery(file.place, intake, told)
        await delivery.prepare()
        try:
            await self._pool.fetch(file.place, delivery)
        except BaseException:
            await delivery.discard()
            raise
        return delivery.file, _moment_of_header(delivery.facts.last_modified)


def _names_in(body: BinaryIO, content_type: str) -> set[str]:
    lines: list[bytes] = []
    write_lines(body, content_type, lines.append)
    names = (_line.decode(line).name for line in b"".join(lines).splitlines()[1:] if line)
    return {normalize(name) for name in names if is_project_name(name)}


def _status_of(page: Page) -> ProjectStatus | None:
    said = page.status or {}
    status, reason = said.get("status"), said.get("reason")
    if status not in STATUSES:
        return None
    return ProjectStatus(status, reason if isinstance(reason, str) else None)


def _moment_of_header(text: str | None) -> float | None:
    """The moment of an HTTP date."""
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None

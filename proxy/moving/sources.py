"""What a hosted index takes projects over from: another index, or a directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from proxy.hosted.intake import IncomingFile, Intake
from proxy.hosted.notes import ProjectStatus
from proxy.model import EMPTY
from proxy.representing import repr_without

#: Told of bytes that have arrived.
BytesTold = Callable[[int], None]


class OfferedFile(Struct, frozen=True):
    """A file as its source states it.  *place* means something to the source alone.

    *digests* are hex, by algorithm; *upload_time* is that of PEP 700, ``None`` where it is not known.
    """

    project: str
    filename: str
    place: Any
    size: int | None = None
    digests: Mapping[str, str] = EMPTY
    upload_time: str | None = None
    yanked: bool | str = False
    uploader: str | None = None
    attestations: tuple[Any, ...] = ()

    __repr__ = repr_without("place")


class OfferedProject(Struct, frozen=True):
    """A project (normalised *name*) of a source; *problems* are sentences about files that cannot be taken."""

    name: str
    files: Sequence[OfferedFile]
    status: ProjectStatus | None = None
    problems: Sequence[str] = ()


class ProjectSource(Protocol):
    """Where projects are taken over from."""

    async def projects(self) -> Sequence[str]:
        """The names of all projects, normalised and sorted.  Raises ProxyError."""

    async def project(self, name: str) -> OfferedProject:
        """The project *name*.  Raises ProxyError, NotFound for one that is not there."""

    async def fetch(self, file: OfferedFile, intake: Intake, told: BytesTold) -> tuple[IncomingFile, float | None]:
        """The bytes of *file*, with the time at which the source says they were last changed.  Raises ProxyError."""

    async def close(self) -> None:
        """End what is under way."""

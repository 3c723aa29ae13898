"""A directory as a source: the flat one of pypiserver, a server directory or an export of devpi, and that of a hosted index.

All distributions below it are taken, wherever they stand; links to other directories are not followed.  Upload times, yanks
and uploaders are those of a hosted index's JSON files, or of devpi's ``dataindex.json``; else the time of the file counts.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from proxy.errors import BadUpload, NotFound, StorageFailed
from proxy.hosted.folder import project_in
from proxy.hosted.intake import IncomingFile, Intake
from proxy.hosted.notes import LARGEST_NOTE, NOTE, Note, ProjectStatus, read_note, read_status, stamp
from proxy.interfaces import IOffload
from proxy.moving.sources import BytesTold, OfferedFile, OfferedProject
from proxy.names import is_distribution, normalize

#: What devpi's export says of the files of an index, in the directory of the index.
_DATA_INDEX = "dataindex.json"
_LARGEST_INDEX = 256 * 1024 * 1024
_STATUS = ".project.json"


class TreeSource:
    """The files below the directory *root*."""

    def __init__(self, root: Path, offload: IOffload) -> None:
        self._root = root
        self._offload = offload
        self._found: dict[str, OfferedProject] | None = None

    async def close(self) -> None:
        """Nothing is under way."""

    async def projects(self) -> Sequence[str]:
        """As in the port."""
        return sorted(await self._all())

    async def project(self, name: str) -> OfferedProject:
        """As in the port."""
        found = (await self._all()).get(name)
        if found is None:
            raise NotFound(f"{self._root} has no file of {name}")
        return found

    async def _all(self) -> dict[str, OfferedProject]:
        if self._found is None:
            try:
                self._found = await self._offload.run(_projects_below, self._root)
            except OSError as error:
                raise StorageFailed(
                    f"{self._root} cannot be read by the proxy: {error.strerror}; copy it to where its user may read it"
                ) from error
        return self._found

    async def fetch(self, file: OfferedFile, intake: Intake, told: BytesTold) -> tuple[IncomingFile, float | None]:
        """As in the port."""
        path: Path = file.place
        try:
            descriptor = await self._offload.run(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BadUpload(f"it cannot be read: {error.strerror}") from error
        try:
            facts = os.fstat(descriptor)
            arrival = await intake.begin(facts.st_size)
            try:
                await arrival.copy(descriptor, facts.st_size)
            except BaseException:
                await arrival.end()
                raise
        finally:
            os.close(descriptor)
        told(arrival.size)
        return arrival, facts.st_mtime


def _projects_below(root: Path) -> dict[str, OfferedProject]:
    """All projects with a file below *root*.  Raises OSError where *root* itself cannot be read."""
    os.scandir(root).close()
    files: dict[str, dict[str, OfferedFile]] = {}
    problems: dict[str, list[str]] = {}
    statuses: dict[str, ProjectStatus] = {}
    devpi = _of_devpi(root)
    for directory, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if name == _STATUS:
                status = _read(path, read_status, LARGEST_NOTE)
                if status is not None:
                    statuses[normalize(path.parent.name)] = status
                continue
            if name.startswith(".") or not is_distribution(name) or not path.is_file():
                continue
            project = project_in(name) or normalize(name.partition("-")[0])
            there = files.setdefault(project, {})
            if name in there:
                first = there[name].place
                if first.stat().st_size != path.stat().st_size or first.read_bytes() != path.read_bytes():
                    problems.setdefault(project, []).append(f"{path}: another file of that name is taken, {first}")
                continue
            there[name] = _offered(project, path, devpi.get(str(path), {}))
    return {
        project: OfferedProject(
            project, [each for _, each in sorted(there.items())], statuses.get(project), problems.get(project, ())
        )
        for project, there in files.items()
    }


def _of_devpi(root: Path) -> dict[str, Mapping[str, Any]]:
    """What an export of devpi says of files, by path; *root* is the export or the directory of one of its indexes."""
    for directory in (root, *root.parents[:2]):
        said = _read(directory / _DATA_INDEX, msgspec.json.decode, _LARGEST_INDEX)
        indexes = said.get("indexes") if isinstance(said, dict) else None
        if isinstance(indexes, dict):
            lists = [each.get("files") for each in indexes.values() if isinstance(each, dict)]
            files = [file for each in lists if isinstance(each, list) for file in each if isinstance(file, dict)]
            return {
                os.path.normpath(directory / each["relpath"]): each for each in files if isinstance(each.get("relpath"), str)
            }
    return {}


def _offered(project: str, path: Path, devpi: Mapping[str, Any]) -> OfferedFile:
    facts = path.stat()
    note: Note | None = _read(path.with_name(path.name + NOTE), read_note, LARGEST_NOTE)
    if note is not None:
        return OfferedFile(
            project,
            path.name,
            path,
            facts.st_size,
            {"sha256": note.sha256},
            note.upload_time,
            note.yanked,
            note.uploader,
            note.attestations,
        )
    mapping = devpi.get("entrymapping")
    algorithm, _, value = str(mapping.get("hash_spec", "") if isinstance(mapping, dict) else "").partition("=")
    digests = {algorithm: value} if value else {}
    upload_time, uploader = _first_upload(devpi.get("log"))
    return OfferedFile(
        project, path.name, path, facts.st_size, digests, upload_time or stamp(facts.st_mtime), uploader=uploader
    )


def _first_upload(log: Any) -> tuple[str | None, str | None]:
    """When, and by whom, a file was uploaded first by what devpi noted: ``when`` is a list of numbers, year first, in UTC."""
    for each in log if isinstance(log, list) else []:
        if isinstance(each, dict) and each.get("what") == "upload":
            who = each.get("who")
            try:
                year, month, day, hour, minute, second = each["when"][:6]
                when = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC).timestamp()
            except (KeyError, TypeError, ValueError):
                continue
            return stamp(when), who if isinstance(who, str) else None
    return None, None


def _read(path: Path, read: Any, most: int) -> Any:
    """What *read* makes of the file at *path*; ``None`` where there is none that can be read or makes sense."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
        return read(data) if len(data) <= most else None
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return None

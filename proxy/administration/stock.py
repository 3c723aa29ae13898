"""What is in a data directory: names with the bytes they stand for, and the bytes that are there.

The pins are the source of names, the tree of files that of bytes.  A name whose bytes are not there was evicted, or they were
lost; bytes without a name belong to a record that was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, frozen

from proxy.administration.parts import Parts
from proxy.cache.pins import filename_of
from proxy.cache.records import PAGES
from proxy.errors import NotFound
from proxy.interfaces import Report
from proxy.model import NO_BYTES, Pin, StoredFile
from proxy.names import normalize
from proxy.simple.legacy import version_of


@frozen(slots=True)
class Named:
    """A name, and what is known of its bytes."""

    index: str
    project: str
    name: str
    pin: Pin

    @property
    def title(self) -> str:
        """What the file or companion is called, without the digest that tells companions apart."""
        return self.name.rpartition("/")[2]

    @property
    def filename(self) -> str:
        return filename_of(self.name)

    def values(self) -> dict[str, Any]:
        """What every answer about it says."""
        return {
            "index": self.index,
            "project": self.project,
            "filename": self.title,
            "sha256": self.pin.sha256,
            "size": self.pin.size,
        }


async def names(parts: Parts, index: str | None = None, project: str | None = None) -> list[Named]:
    """All names, or those of one *index*, of one *project* (normalised); an index may not be configured any more."""
    found = []
    for place in await parts.pins.places():
        if index in (None, place[0]) and project in (None, place[1]):
            pins = await parts.pins.peek(*place)
            found += [Named(*place, name, pin) for name, pin in pins.items() if pin.sha256 != NO_BYTES]
    return found


@define
class _Sum:
    files: int = 0
    bytes: int = 0
    missing: int = 0

    def add(self, size: int | None) -> None:
        """Count a name: *size* of its bytes, ``None`` when they are not there."""
        if size is None:
            self.missing += 1
        else:
            self.files += 1
            self.bytes += size


class Stock:
    """Lists and sums."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ls(self, report: Report, project: str | None = None, index: str | None = None) -> list[dict[str, Any]]:
        """Every project with the number of its stored files and their bytes; of one *project*, every file.  Raises NotFound."""
        if index is not None:
            self._parts.chosen(index)
        wanted = None if project is None else normalize(project)
        found = await names(self._parts, index, wanted)
        stored = {file.sha256: file for file in await self._parts.usage.files()}
        if wanted is None:
            return await self._parts.work.run(_projects, found, stored)
        if not found:
            raise NotFound(f"nothing of {wanted} is stored here")
        kept = await self._parts.kept.digests()
        return [_row(each, stored.get(each.pin.sha256), each.pin.sha256 in kept) for each in sorted(found, key=_order)]

    async def recent(self, report: Report, seconds: float, index: str | None = None) -> list[str]:
        """The projects of which a file was used within the last *seconds*, sorted."""
        since = self._parts.reactor.seconds() - seconds
        used = {file.sha256 for file in await self._parts.usage.files() if file.used >= since}
        return sorted({each.project for each in await names(self._parts, index) if each.pin.sha256 in used})

    async def stats(self, report: Report, top: int = 10) -> dict[str, Any]:
        """Sums over everything; the *top* projects by bytes."""
        parts = self._parts
        found = await names(parts)
        files = await parts.usage.files()
        keys = await parts.records.keys("")
        sums = await parts.work.run(_sums, found, files, top)
        return {
            **sums,
            "free": await parts.store.free(),
            "records": len(keys),
            "pages": sum(1 for key in keys if key.startswith(f"{PAGES}/") and key.count("/") == 2),
            "answered": parts.answered(),
        }


def _order(each: Named) -> tuple[str, str, str]:
    return each.index, each.project, each.title


def _row(each: Named, stored: StoredFile | None, kept: bool) -> dict[str, Any]:
    version = version_of(each.filename)
    return {
        **each.values(),
        "version": None if version is None else str(version),
        "committed_at": each.pin.committed_at,
        "stored": stored is not None,
        "last_used": None if stored is None else stored.used,
        "pinned": kept,
    }


def _by_project(found: Sequence[Named], stored: Mapping[str, StoredFile]) -> dict[tuple[str, str], _Sum]:
    sums: dict[tuple[str, str], _Sum] = {}
    for each in found:
        there = stored.get(each.pin.sha256)
        sums.setdefault((each.index, each.project), _Sum()).add(None if there is None else there.size)
    return sums


def _project_values(place: tuple[str, str], each: _Sum) -> dict[str, Any]:
    index, project = place
    return {"index": index, "project": project, "files": each.files, "bytes": each.bytes, "missing": each.missing}


def _projects(found: Sequence[Named], stored: Mapping[str, StoredFile]) -> list[dict[str, Any]]:
    return [_project_values(place, each) for place, each in sorted(_by_project(found, stored).items())]


def _sums(found: Sequence[Named], files: Sequence[StoredFile], top: int) -> dict[str, Any]:
    stored = {file.sha256: file for file in files}
    projects = _by_project(found, stored)
    largest = sorted(projects.items(), key=lambda entry: (-entry[1].bytes, entry[0]))[: max(0, top)]
    named = {each.pin.sha256 for each in found}
    unnamed = [file for file in files if file.sha256 not in named]
    moments = [each.pin.committed_at for each in found if each.pin.sha256 in stored]
    return {
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "projects": len(projects),
        "missing": sum(each.missing for each in projects.values()),
        "unnamed": {"files": len(unnamed), "bytes": sum(file.size for file in unnamed)},
        "oldest": min(moments, default=None),
        "newest": max(moments, default=None),
        "longest_unused": min((file.used for file in files), default=None),
        "largest": [_project_values(place, each) for place, each in largest],
    }

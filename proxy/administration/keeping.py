"""What operators pin: files that are kept whatever the limits of the disk are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.administration.parts import Parts
from proxy.errors import BadRequest, NotFound
from proxy.interfaces import Operation, Report
from proxy.names import is_project_name, normalize


class Keeping:
    """Pinning on *parts*."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {"pin": self.pin, "unpin": self.unpin, "pins": self.pins}

    async def pin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, Any]]:
        """Keep what is stored of *project*, or of its version or file *which*.  Raises NotFound when that is nothing."""
        normal = _normal(project)
        names = {name: await self._parts.kept.keep(name, normal, which) for name in self._parts.chosen(index)}
        pinned = _listed(names, normal)
        if not pinned:
            raise NotFound(f"nothing of {_named(project, which)} is stored yet: fetch it through the proxy, then pin it")
        return pinned

    async def unpin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, Any]]:
        """Let it go again.  Raises NotFound when nothing of it was kept."""
        normal = _normal(project)
        names = {name: await self._parts.kept.release(name, normal, which) for name in self._parts.chosen(index)}
        unpinned = _listed(names, normal)
        if not unpinned:
            raise NotFound(f"nothing of {_named(project, which)} is pinned; pypiproxy pins lists what is")
        return unpinned

    async def pins(self, report: Report, index: str | None = None) -> list[dict[str, Any]]:
        """What is kept: with its size, its metadata included, and its last use; both ``None`` for what is not stored now."""
        chosen = self._parts.chosen(index)
        files = {file.sha256: file for file in await self._parts.usage.files()}
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for each in await self._parts.kept.kept():
            if each.index not in chosen:
                continue
            name = {"index": each.index, "project": each.project, "filename": each.filename}
            entry = found.setdefault((each.index, each.project, each.filename), {**name, "size": None, "used": None})
            file = files.get(each.sha256)
            if file is not None:
                entry["size"] = (entry["size"] or 0) + file.size
                entry["used"] = max(entry["used"] or 0.0, file.used)
        return list(found.values())


def _normal(project: str) -> str:
    if not is_project_name(project):
        raise BadRequest(f"{project!r} is no name of a project")
    return normalize(project)


def _named(project: str, which: str | None) -> str:
    return project if which is None else f"{project} {which}"


def _listed(names: Mapping[str, list[str]], project: str) -> list[dict[str, Any]]:
    return [
        {"index": index, "project": project, "filename": filename}
        for index, filenames in names.items()
        for filename in filenames
    ]

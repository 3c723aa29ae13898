"""What operators pin: files that are kept whatever the limits of the disk are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
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
        nothing = "is stored yet: fetch it through the proxy, then pin it"
        return await self._each(self._parts.kept.keep, project, which, index, nothing)

    async def unpin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, Any]]:
        """Let it go again.  Raises NotFound when nothing of it was kept."""
        nothing = "is pinned; pypiproxy pins lists what is"
        return await self._each(self._parts.kept.release, project, which, index, nothing)

    async def _each(
        self,
        change: Callable[[str, str, str | None], Awaitable[list[str]]],
        project: str,
        which: str | None,
        index: str | None,
        nothing: str,
    ) -> list[dict[str, Any]]:
        """The files that *change* changed in the chosen indexes.  Raises NotFound, with *nothing*, when there are none."""
        if not is_project_name(project):
            raise BadRequest(f"{project!r} is no name of a project")
        changed = [
            {"index": name, "project": normalize(project), "filename": filename}
            for name in self._parts.chosen(index)
            for filename in await change(name, normalize(project), which)
        ]
        if not changed:
            raise NotFound(f"nothing of {project if which is None else f'{project} {which}'} {nothing}")
        return changed

    async def pins(self, report: Report, index: str | None = None) -> list[dict[str, Any]]:
        """What is kept: with its size, its metadata included, and its last use; both ``None`` for what is not stored now."""
        chosen = self._parts.chosen(index)
        kept = [each for each in await self._parts.kept.kept() if each.index in chosen]
        files = await self._parts.usage.files_of({each.sha256 for each in kept})
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for each in kept:
            name = {"index": each.index, "project": each.project, "filename": each.filename}
            entry = found.setdefault((each.index, each.project, each.filename), {**name, "size": None, "used": None})
            file = files.get(each.sha256)
            if file is not None:
                entry["size"] = (entry["size"] or 0) + file.size
                entry["used"] = max(entry["used"] or 0.0, file.used)
        return list(found.values())

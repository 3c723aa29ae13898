"""What operators pin: files that are kept whatever the limits of the disk are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from proxy.administration.parts import IndexParts, Stores, chosen, project_name
from proxy.cache.pinned import PinnedFile
from proxy.errors import NotFound
from proxy.interfaces import Operation, Report


class Pinning:
    """Pins files of *indexes* in *stores*."""

    def __init__(self, indexes: Mapping[str, IndexParts], stores: Stores) -> None:
        self._indexes = indexes
        self._stores = stores

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {"pin": self.pin, "unpin": self.unpin, "pins": self.pins}

    async def pin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, Any]]:
        """Pin what is stored of *project*, or of its version or file *which*.  Raises NotFound when that is nothing."""
        nothing = "is stored yet: fetch it through the proxy, then pin it"
        return await self._each(self._stores.pinned.pin, project, which, index, nothing)

    async def unpin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, Any]]:
        """Unpin it.  Raises NotFound when nothing of it was pinned."""
        nothing = "is pinned; pypiproxy pins lists what is"
        return await self._each(self._stores.pinned.unpin, project, which, index, nothing)

    async def _each(
        self,
        change: Callable[[str, str, str | None], Awaitable[list[str]]],
        project: str,
        which: str | None,
        index: str | None,
        nothing: str,
    ) -> list[dict[str, Any]]:
        """The files that *change* changed in the chosen indexes.  Raises NotFound, with *nothing*, when there are none."""
        wanted = project_name(project)
        changed = [
            {"index": name, "project": wanted, "filename": filename}
            for name in chosen(self._indexes, index)
            for filename in await change(name, wanted, which)
        ]
        if not changed:
            raise NotFound(f"nothing of {project if which is None else f'{project} {which}'} {nothing}")
        return changed

    async def pins(self, report: Report, index: str | None = None) -> list[dict[str, Any]]:
        """What is pinned: with its size, its metadata included, and its last use; both ``None`` for what is not stored now.

        A file is not stored when only its metadata is.
        """
        indexes = chosen(self._indexes, index)
        pinned = [each for each in await self._stores.pinned.files() if each.index in indexes]
        files = await self._stores.usage.files_of({each.sha256 for each in pinned})
        there = {
            (each.index, each.project, each.filename) for each in pinned if each.sha256 in files and await self._is_file(each)
        }
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for each in pinned:
            name = {"index": each.index, "project": each.project, "filename": each.filename}
            entry = found.setdefault((each.index, each.project, each.filename), {**name, "size": None, "used": None})
            file = files.get(each.sha256)
            if file is not None and (each.index, each.project, each.filename) in there:
                entry["size"] = (entry["size"] or 0) + file.size
                entry["used"] = max(entry["used"] or 0.0, file.used)
        return list(found.values())

    async def _is_file(self, pinned: PinnedFile) -> bool:
        """Whether the bytes of *pinned* are the file itself, and not a companion of it."""
        entry = (await self._stores.ledger.peek(pinned.index, pinned.project)).get(pinned.filename)
        return entry is None or entry.sha256 == pinned.sha256

"""What operators pin: files that are kept whatever the limits of the disk are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from proxy.administration.parts import IndexParts, Stores, chosen, project_name
from proxy.cache.pinned import PinnedFile
from proxy.errors import BadRequest, NotFound
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
        self, report: Report, project: str, which: str | None = None, index: str | None = None, future: bool = False
    ) -> list[dict[str, Any]]:
        """Pin what is stored of *project*, or of its version or file *which*; with *future* also what is stored of it later.

        What stands for the project as such has no file name.  Raises BadRequest, and NotFound when there is nothing to pin.
        """
        if future:
            if which is not None:
                raise BadRequest(f"future files are pinned of a whole project: {project}, not {project} {which}")
            return await self._each(self._pin_project, project, None, index, "")
        nothing = "is stored yet: fetch it through the proxy, then pin it"
        return await self._each(self._stores.pinned.pin, project, which, index, nothing)

    async def _pin_project(self, index: str, project: str, which: str | None) -> list[str | None]:
        return [None, *await self._stores.pinned.pin_project(index, project)]

    async def unpin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, Any]]:
        """Unpin it.  Raises NotFound when nothing of it was pinned, BadRequest for a part of a project that is pinned whole."""
        nothing = "is pinned; pypiproxy pins lists what is"
        return await self._each(self._unpin, project, which, index, nothing)

    async def _unpin(self, index: str, project: str, which: str | None) -> list[str | None]:
        book = self._stores.pinned
        if which is not None:
            if (index, project) in await book.projects():
                raise BadRequest(
                    f"all of {project} is pinned in {index}, with what is stored of it later; unpin {project} as a whole, "
                    "then pin what is to stay"
                )
            return list(await book.unpin(index, project, which))
        of_all: list[str | None] = [None] if await book.unpin_project(index, project) else []
        return [*of_all, *await book.unpin(index, project)]

    async def _each(
        self,
        change: Callable[[str, str, str | None], Awaitable[Sequence[str | None]]],
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

        An index may not be configured any more.  A file is not stored when only its metadata is.  A project that is pinned as
        such comes before its files and has no file name.
        """
        if index is not None:
            chosen(self._indexes, index)
        pinned = [each for each in await self._stores.pinned.files() if index in (None, each.index)]
        files = await self._stores.usage.files_of({each.sha256 for each in pinned})
        there = await self._stored_themselves([each for each in pinned if each.sha256 in files])
        found: dict[tuple[str, str, str], dict[str, Any]] = {
            (name, project, ""): {"index": name, "project": project, "filename": None, "size": None, "used": None}
            for name, project in await self._stores.pinned.projects()
            if index in (None, name)
        }
        for each in pinned:
            name = {"index": each.index, "project": each.project, "filename": each.filename}
            entry = found.setdefault((each.index, each.project, each.filename), {**name, "size": None, "used": None})
            file = files.get(each.sha256)
            if file is not None and (each.index, each.project, each.filename) in there:
                entry["size"] = (entry["size"] or 0) + file.size
                entry["used"] = max(entry["used"] or 0.0, file.used)
        return [found[each] for each in sorted(found)]

    async def _stored_themselves(self, pinned: Iterable[PinnedFile]) -> set[tuple[str, str, str]]:
        """Of *pinned*, which are sorted, the files whose own bytes are among them, and not those of a companion alone."""
        found = set()
        for (index, project), those in groupby(pinned, key=lambda each: (each.index, each.project)):
            entries = await self._stores.ledger.peek(index, project)
            found |= {
                (index, project, each.filename)
                for each in those
                if (entry := entries.get(each.filename)) is None or entry.sha256 == each.sha256
            }
        return found

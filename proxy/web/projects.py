"""The list of all projects over HTTP (PEP 503, PEP 691): negotiated as pages are, sent from files.

Who may not see every project gets a list of those that it may see.  Such a list is made once for all who have the same rights,
in a file without a name; a few of them are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import BinaryIO

from msgspec import Struct

from proxy.access.principals import Principal
from proxy.cache.listing import lines_behind, write_list
from proxy.core.ranges import none_match
from proxy.errors import StorageFailed
from proxy.interfaces import IBytesSource, IOffload, IProjectsView, IRepository
from proxy.mechanism.flight import Flights, closing_after
from proxy.settings import MIB
from proxy.simple.media import MediaType, choose_coding
from proxy.simple.projects import lines_without
from proxy.storage.whole import WholeFile
from proxy.web.answers import Answer, Ask, FileBody
from proxy.web.door import Door
from proxy.web.pages import VARY, content_type, media_type, redirect
from proxy.web.renderings import CODINGS
from proxy.web.representing import represented, unchanged

#: Lists for some that are kept.
_KEPT = 16


class _Partial(Struct, frozen=True):
    """A list for some, in *file*, which is open as long as it is kept."""

    file: BinaryIO
    size: int
    etag: str


class ProjectLists:
    """The lists of every index, as *door* lets them be seen.

    *scratch* makes a file without a name, for a list that is for some; it blocks, and raises OSError.
    """

    def __init__(self, door: Door, scratch: Callable[[], BinaryIO], offload: IOffload) -> None:
        self._door = door
        self._scratch = scratch
        self._offload = offload
        self._kept: OrderedDict[Hashable, _Partial] = OrderedDict()
        self._making: Flights[_Partial] = Flights()

    async def answer(self, repository: IRepository, principal: Principal, slash: bool, ask: Ask) -> Answer:
        """Answer a request of *principal* for ``…/simple/``; *slash* is whether the path ended in one.

        HEAD is answered without the slash as well: bandersnatch finds out that way whether there is JSON, and follows no
        redirect.
        """
        if not slash and ask.method != "HEAD":
            return redirect("simple/" + (f"?{ask.query}" if ask.query else ""))
        media = media_type(ask)
        coding = choose_coding(ask.header("accept-encoding"), CODINGS)
        known = ask.header("if-none-match")
        there = await repository.projects(no_cache=ask.no_cache)
        reading = self._door.reading(principal, repository)
        if reading is not None:
            key = (repository.name, there.state, reading.standing, media, coding)
            some = await self._some(key, there, reading.visible, media, coding)
            if none_match(known, some.etag):
                return unchanged(there, some.etag, VARY)
            source = WholeFile(os.dup(some.file.fileno()), some.size, None)
            return represented(there, some.etag, VARY, content_type(media), coding, FileBody(source, None))
        etag = f'"{there.state[:32]}-{media.name.lower()}-{coding}"'
        if none_match(known, etag):
            return unchanged(there, etag, VARY)
        return represented(there, etag, VARY, content_type(media), coding, FileBody(await there.open(media, coding), None))

    def close(self) -> None:
        """Give back the files that are kept."""
        self._making.close()
        while self._kept:
            self._kept.popitem()[1].file.close()

    async def _some(
        self, key: Hashable, view: IProjectsView, visible: Callable[[str], bool], media: MediaType, coding: str
    ) -> _Partial:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        return await self._making.join(key, lambda: self._make(key, view, visible, media, coding))

    async def _make(
        self, key: Hashable, view: IProjectsView, visible: Callable[[str], bool], media: MediaType, coding: str
    ) -> _Partial:
        lines = await view.lines()
        work = self._offload.run(_written, lines, visible, media, coding, self._scratch)
        try:
            file, etag, size = await closing_after(work, lines)
        except OSError as error:
            raise StorageFailed(f"the list of projects cannot be written: {error.strerror}") from error
        made = self._kept[key] = _Partial(file, size, etag)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)[1].file.close()
        return made


def _written(
    lines: IBytesSource,
    visible: Callable[[str], bool],
    media: MediaType,
    coding: str,
    scratch: Callable[[], BinaryIO],
) -> tuple[BinaryIO, str, int]:
    """The list of the projects in *lines* that are *visible*, in a file, with its ETag and its size."""
    file = scratch()
    try:
        with lines_behind(lines.fileno()) as every:
            write_list(lines_without(every, lambda project: not visible(project)), media, coding, file)
        file.seek(0)
        digest, size = hashlib.sha256(f"{media.name} {coding}\n".encode()), 0
        while piece := file.read(MIB):
            digest.update(piece)
            size += len(piece)
    except BaseException:
        file.close()
        raise
    return file, f'"{digest.hexdigest()[:32]}"', size

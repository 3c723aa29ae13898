"""Finished pages: the bytes of each page in each media type and content coding, made once and kept in a bounded table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from proxy.core.bounded import BoundedTable
from proxy.core.views import PageView
from proxy.interfaces import IOffload
from proxy.mechanism.flight import Flights
from proxy.model import File, Page
from proxy.names import are_plain
from proxy.repository.offered import segment
from proxy.representing import repr_without
from proxy.simple.media import MediaType
from proxy.simple.render import Link, render

#: Content codings that can be made, best first (nobody's client asks for br).
CODINGS = ("zstd", "gzip")


class Rendering(Struct, frozen=True):
    """The final bytes of a page with their strong ETag (RFC 9110 section 8.8.3: another coding is another representation)."""

    state: str
    body: bytes
    etag: str

    __repr__ = repr_without("body")


#: Index, project, media type, coding, and the URL of the index that absolute URLs begin with, where a page has some.
Key = tuple[str, str, MediaType, str, str | None]


class Renderings:
    """The table, at most *memory* bytes large."""

    def __init__(self, offload: IOffload, memory: int) -> None:
        self._offload = offload
        self._table: BoundedTable[Key, Rendering] = BoundedTable(memory, lambda rendering: len(rendering.body) + 500)
        self._renders: Flights[Rendering] = Flights()

    async def get(self, index: str, view: PageView, media: MediaType, coding: str, root: str | None = None) -> Rendering:
        """The rendering of *view*, made now (in a worker thread, once for all askers) if it is not there.

        *root* is what URLs begin with that are relative to the root of the index; without it these are left out.
        """
        key = (index, view.project, media, coding, root if view.relative else None)
        rendering = self._there(key, view)
        if rendering is not None:
            return rendering
        return await self._renders.join((key, view.state), lambda: self._make(key, view))

    def at_hand(self, index: str, view: PageView, media: MediaType, coding: str) -> Rendering | None:
        """The rendering of *view* if it is in the table, and the same for whoever asks."""
        return None if view.relative else self._there((index, view.project, media, coding, None), view)

    def _there(self, key: Key, view: PageView) -> Rendering | None:
        rendering = self._table.get(key)
        return rendering if rendering is not None and rendering.state == view.state else None

    async def _make(self, key: Key, view: PageView) -> Rendering:
        page = await view.load()
        _, _, media, coding, root = key
        if view.relative:
            page = await self._offload.run_first(_rooted, page, root)
        rendering = await self._offload.run_first(_render, view.state, page, media, coding)
        self._table.put(key, rendering)
        return rendering


def _render(state: str, page: Page, media: MediaType, coding: str) -> Rendering:
    body = encoded(render(page, media, linking(page, "../../files/")), coding)
    return Rendering(state, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _rooted(page: Page, root: str | None) -> Page:
    """*page* with the URLs of provenance that are relative to the root of the index below *root*, or without them."""

    def rooted(file: File) -> File:
        if file.provenance is None or "://" in file.provenance:
            return file
        return replace(file, provenance=None if root is None else f"{root}{quote(file.provenance, safe='/+!~')}")

    return replace(page, files=tuple(map(rooted, page.files)))


def linking(page: Page, folder: str) -> Link:
    """Gives the URL of each file on *page*, where *folder* leads to the files of the index."""
    before = f"{folder}{page.project}/"
    if are_plain([file.filename for file in page.files]):  # as nearly all are, and then none is looked at alone
        return lambda file: f"{before}{segment(file)}/{file.filename}"
    return lambda file: f"{before}{segment(file)}/{quote(file.filename, safe='+!~')}"


def encoded(data: bytes, coding: str) -> bytes:
    """*data* in one of :data:`CODINGS` or ``identity``.  Blocks for milliseconds a megabyte."""
    return _CODERS[coding](data)


def _gzip(data: bytes) -> bytes:
    from isal import igzip  # loaded with the first one, in its thread

    # Level 2 takes a tenth of zlib's time for 9 % more bytes.
    return igzip.compress(data, 2, mtime=0)


def _zstd(data: bytes) -> bytes:
    import zstandard

    # The third level is smaller and faster than zlib's sixth here.
    return zstandard.ZstdCompressor(level=3).compress(data)


_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda data: data,
    "gzip": _gzip,
    "zstd": _zstd,
}

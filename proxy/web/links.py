"""One flat page with the links of all files of an index, for ``pip --find-links`` and tools that know no other index."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from msgspec import Struct

from proxy.core.bounded import BoundedTable
from proxy.core.ranges import none_match
from proxy.core.views import PageView
from proxy.errors import NotFound
from proxy.interfaces import IOffload, IRepository
from proxy.mechanism.flight import Flights
from proxy.model import Page
from proxy.settings import MIB
from proxy.simple.media import choose_coding
from proxy.simple.render import flat_page, link_lines
from proxy.web.answers import Answer, Ask
from proxy.web.door import Reading
from proxy.web.renderings import CODINGS, encoded, linking

#: Files on one page: some 300 bytes each.
_MOST = 100_000


#: What may be remembered of pages (bytes).
_MEMORY = 16 * MIB
#: What a page weighs besides its bytes.
_ENTRY = 1000


class _FlatPage(Struct, frozen=True):
    """The page, what names it, and the *state* of what it was made of."""

    body: bytes
    etag: str
    state: bytes


class FlatPages:
    """Answers with the files of an index on one page, which is made once for each state of its projects."""

    def __init__(self, offload: IOffload) -> None:
        self._offload = offload
        self._known: BoundedTable[Hashable, _FlatPage] = BoundedTable(_MEMORY, lambda page: len(page.body) + _ENTRY)
        self._makes: Flights[_FlatPage] = Flights()

    async def page(self, repository: IRepository, reading: Reading | None, ask: Ask) -> Answer:
        """Answer a request for ``links/`` of *repository*.  Raises NotFound for one that has no projects of its own.

        *reading* is what may be shown, ``None``: all.
        """
        coding = choose_coding(ask.header("accept-encoding"), CODINGS)
        key = (repository.name, coding, None if reading is None else reading.standing)
        made = await self._makes.join(key, lambda: self._current(repository, reading, coding, key))
        headers = [("Vary", "Accept-Encoding"), ("ETag", made.etag), ("Cache-Control", "no-cache")]
        if none_match(ask.header("if-none-match"), made.etag):
            return Answer(304, headers)
        headers.append(("Content-Type", "text/html; charset=utf-8"))
        if coding != "identity":
            headers.append(("Content-Encoding", coding))
        return Answer(200, headers, made.body)

    async def _current(self, repository: IRepository, reading: Reading | None, coding: str, key: Hashable) -> _FlatPage:
        """The page as it is now.  Raises NotFound."""
        views, state = await self._views(repository, reading)
        known = self._known.get(key)
        if known is not None and known.state == state:
            return known
        lines: list[bytes] = []
        count = 0
        for view in views:
            page = await view.load()
            count += len(page.files)
            if count > _MOST:
                raise NotFound(f"index {repository.name} has more than {_MOST:,} files: too many for one page")
            lines.append(await self._offload.run(_lines, page))
        body = await self._offload.run(_whole, repository.name, lines, coding)
        made = _FlatPage(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', state)
        if len(body) + _ENTRY <= _MEMORY:
            self._known.put(key, made)
        return made

    async def _views(self, repository: IRepository, reading: Reading | None) -> tuple[list[PageView], bytes]:
        """The pages of all projects that may be shown, not loaded yet, and the state of all of them.  Raises NotFound."""
        names = await repository.own()
        if names is None:
            raise NotFound(f"index {repository.name} has its files from upstream: there is no flat page of all of them")
        views, state = [], hashlib.blake2b(digest_size=16)
        for name in names if reading is None else filter(reading.visible, names):
            try:
                view = await repository.page(name)
            except NotFound:
                continue  # it was removed, or is hidden
            views.append(view)
            state.update(f"{name}/{view.state}\n".encode())
        return views, state.digest()


def _lines(page: Page) -> bytes:
    return link_lines(page, linking(page, "../files/"))


def _whole(index: str, lines: list[bytes], coding: str) -> bytes:
    return encoded(flat_page(f"Files of {index}", lines), coding)

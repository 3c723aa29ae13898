"""Documents beside pages over HTTP: the legacy API (``/pypi/<project>/json``), provenance (PEP 740), mirror age (PEP 381)."""

from __future__ import annotations

import datetime
import hashlib
from urllib.parse import quote

from msgspec import Struct

from proxy.core.bounded import BoundedTable
from proxy.core.ranges import none_match
from proxy.core.views import Document, DocumentView, LegacyName, ProvenanceName
from proxy.errors import NotFound
from proxy.interfaces import IOffload, IRepository
from proxy.model import File
from proxy.repository.offered import segment
from proxy.simple.media import choose_coding
from proxy.web.answers import Answer, Ask
from proxy.web.origin import origin
from proxy.web.renderings import CODINGS, encoded
from proxy.web.representing import represented, unchanged

#: What a representation of a document is chosen by: links in it bear the name of this host (:mod:`proxy.web.origin`).
_VARY = "Accept-Encoding, Host, X-Forwarded-Host, X-Forwarded-Proto"


class _Made(Struct, frozen=True):
    """A document in one coding, for one host."""

    state: str
    body: bytes
    etag: str


class JsonDocuments:
    """The JSON documents of every index.  *memory* bounds what is kept of finished ones, in bytes."""

    def __init__(self, offload: IOffload, memory: int) -> None:
        self._offload = offload
        self._made: BoundedTable[tuple[str, ...], _Made] = BoundedTable(
            memory, lambda made: len(made.body) + 500, lambda key: sum(map(len, key))
        )

    async def legacy(self, repository: IRepository, files: str, project: str, version: str | None, ask: Ask) -> Answer:
        """Answer a request for the legacy document of *project* (normalised), or of one *version*.

        *files* is the path that the files' URLs begin with.  These are absolute, as this API has no relative ones.
        """
        view = await repository.document(LegacyName(project, version))
        base = origin(ask) + files
        coding = choose_coding(ask.header("accept-encoding"), CODINGS)
        key = (repository.name, view.project, version or "", base, coding)
        made = self._made.get(key)
        if made is None or made.state != view.state:
            document = await view.load()
            async with self._offload.memory.of(len(document.body or b"")):
                body = await self._offload.run(_written, document, version, base, coding)
            if body is None:
                raise NotFound(f"there is no version {version} of {view.project}")
            made = _Made(view.state, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            self._made.put(key, made)
        return _answer(view, made.body, made.etag, coding, ask)

    async def provenance(self, repository: IRepository, project: str, asked: str, filename: str, ask: Ask) -> Answer:
        """Answer a request for ``…/<filename>.provenance``: it may change, so it is kept no longer than a page."""
        view = await repository.document(ProvenanceName(project, asked, filename))
        body = (await view.load()).body or b""
        return _answer(view, body, f'"{view.state[:32]}"', "identity", ask)


def last_modified(repository: IRepository) -> Answer:
    """Answer a request for ``last-modified`` (PEP 381): when the index was last in step with upstream."""
    moment = repository.last_modified()
    if moment is None:
        raise NotFound(f"no upstream of index {repository.name} has answered since the start: its age is not known yet")
    stamp = datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y%m%dT%H:%M:%S\n")
    return Answer(200, [("Content-Type", "text/plain"), ("Cache-Control", "no-store")], stamp.encode("ascii"))


def _written(document: Document, version: str | None, base: str, coding: str) -> bytes | None:
    from proxy.simple.legacy import from_page, rewritten  # loaded by the first document, in its thread

    page = document.page
    assert page is not None

    def link(file: File) -> str:
        # quoted as pip quotes links, for pip-tools compares URLs
        return f"{base}{page.project}/{segment(file)}/{quote(file.filename)}"

    body = None
    if document.body is not None:
        try:
            body = rewritten(document.body, page, link)
        except ValueError:
            body = None  # upstream has something else there
    if body is None:
        body = from_page(page, version, link)
    return None if body is None else encoded(body, coding)


def _answer(view: DocumentView, body: bytes, etag: str, coding: str, ask: Ask) -> Answer:
    if none_match(ask.header("if-none-match"), etag):
        return unchanged(view, etag, _VARY)
    return represented(view, etag, _VARY, "application/json", coding, body)

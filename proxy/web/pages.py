"""Project pages over HTTP: negotiation, conditional requests, freshness headers (PEP 503, PEP 691)."""

from __future__ import annotations

from urllib.parse import parse_qs

from proxy.core.ranges import none_match
from proxy.core.views import PageView
from proxy.errors import NotAcceptable
from proxy.interfaces import IRepository
from proxy.names import normalize
from proxy.simple.media import MediaType, choose_coding, negotiate
from proxy.web.answers import Answer, Ask, Ready
from proxy.web.origin import origin
from proxy.web.renderings import CODINGS, Rendering, Renderings
from proxy.web.representing import represented, unchanged

#: What a representation of a page or a list is chosen by.
VARY = "Accept, Accept-Encoding"


def redirect(location: str) -> Answer:
    """A 307: pip keeps 301 and 308 for ever."""
    return Answer(307, [("Location", location), ("Cache-Control", "no-store"), ("Cache-Status", "pypiproxy; detail=redirect")])


class Pages:
    """The project pages of every index."""

    def __init__(self, renderings: Renderings) -> None:
        self._renderings = renderings

    async def page(self, repository: IRepository, root: str, project: str, slash: bool, ask: Ask) -> Answer:
        """Answer a request for ``…/simple/<project>/``; *slash* is whether the path ended in one, *root* that of the index."""
        normal = normalize(project)
        if project != normal or not slash:
            up = "../" if slash else ""
            query = f"?{ask.query}" if ask.query else ""
            return redirect(f"{up}{normal}/{query}")
        media = media_type(ask)
        coding = choose_coding(ask.header("accept-encoding"), CODINGS)
        known = ask.header("if-none-match")
        view = await repository.page(normal, no_cache=ask.no_cache)
        rendering = await self._renderings.get(repository.name, view, media, coding, _secure(ask, root))
        answer = _answer(view, rendering, media, coding, known)
        if not ask.no_cache and not view.relative:
            answer.again = lambda: self._at_once(repository, normal, media, coding, known)
        return answer

    def _at_once(self, repository: IRepository, project: str, media: MediaType, coding: str, known: str | None) -> Ready | None:
        view = repository.page_at_hand(project)
        if view is None:
            return None
        rendering = self._renderings.at_hand(repository.name, view, media, coding)
        if rendering is None:
            return None
        return (rendering.etag, view.status.ttl), lambda: _answer(view, rendering, media, coding, known)


def _secure(ask: Ask, root: str) -> str | None:
    """The URL of the index at the path *root*, if clients reach it over TLS: URLs of provenance must be such (PEP 740)."""
    base = origin(ask)
    return f"{base}{root}" if base.startswith("https://") else None


def _answer(view: PageView, rendering: Rendering, media: MediaType, coding: str, known: str | None) -> Answer:
    if none_match(known, rendering.etag):
        return unchanged(view, rendering.etag, VARY)
    return represented(view, rendering.etag, VARY, content_type(media), coding, rendering.body)


def media_type(ask: Ask) -> MediaType:
    """What the client gets.  Raises NotAcceptable."""
    wish = parse_qs(ask.query).get("format", [None])[0]
    media = negotiate(ask.header("accept"), wish)
    if media is None:
        offers = ", ".join(each.value for each in MediaType)
        raise NotAcceptable(f"none of the media types asked for can be made; there are {offers}")
    return media


def content_type(media: MediaType) -> str:
    """The value of ``Content-Type``."""
    return f"{media.value}; charset=utf-8" if media is MediaType.TEXT_HTML else media.value

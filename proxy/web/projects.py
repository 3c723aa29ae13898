"""The list of all projects over HTTP (PEP 503, PEP 691): negotiated as pages are, sent from files."""

from __future__ import annotations

from proxy.core.ranges import none_match
from proxy.interfaces import IRepository
from proxy.simple.media import choose_coding
from proxy.web.answers import Answer, Ask, FileBody
from proxy.web.pages import VARY, content_type, media_type, redirect
from proxy.web.renderings import CODINGS
from proxy.web.representing import represented, unchanged


async def projects(repository: IRepository, slash: bool, ask: Ask) -> Answer:
    """Answer a request for ``…/simple/``; *slash* is whether the path ended in one.

    HEAD is answered without the slash as well: bandersnatch finds out that way whether there is JSON, and follows no redirect.
    """
    if not slash and ask.method != "HEAD":
        return redirect("simple/" + (f"?{ask.query}" if ask.query else ""))
    media = media_type(ask)
    coding = choose_coding(ask.header("accept-encoding"), CODINGS)
    there = await repository.projects(no_cache=ask.no_cache)
    etag = f'"{there.state[:32]}-{media.name.lower()}-{coding}"'
    if none_match(ask.header("if-none-match"), etag):
        return unchanged(there, etag, VARY)
    return represented(there, etag, VARY, content_type(media), coding, FileBody(await there.open(media, coding), None))

"""The list of all projects over HTTP (PEP 503, PEP 691): negotiated as pages are, sent from files."""

from __future__ import annotations

from proxy.interfaces import IRepository
from proxy.ranges import none_match
from proxy.simple.media import choose_coding
from proxy.web.answers import Answer, Ask, FileBody
from proxy.web.pages import VARY, content_type, media_type, redirect
from proxy.web.renderings import CODINGS


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
    headers = [
        VARY,
        ("ETag", etag),
        ("Cache-Control", f"max-age={there.max_age}"),
        ("Cache-Status", there.status.header()),
    ]
    if there.serial is not None:
        headers.append(("X-PyPI-Last-Serial", str(there.serial)))
    if none_match(ask.header("if-none-match"), etag):
        return Answer(304, headers, word=there.status.word)
    headers.append(("Content-Type", content_type(media)))
    if coding != "identity":
        headers.append(("Content-Encoding", coding))
    return Answer(200, headers, FileBody(await there.open(media, coding), None), word=there.status.word)

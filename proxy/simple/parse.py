"""Project pages from the bytes that upstream sent, whatever they are written in."""

from __future__ import annotations

from proxy.model import Page
from proxy.simple.from_html import html_is_complete, parse_html
from proxy.simple.from_json import parse_json
from proxy.simple.malformed import Malformed
from proxy.simple.media import media_of

__all__ = ["Malformed", "html_is_complete", "parse_page", "weight"]

#: How much more a page takes in memory than its body, and what each file takes besides (bytes).
_PER_BYTE, _PER_FILE = 6, 400

#: What a static file server says of a file whose ending it does not know (``index.v1_json``): the body has to tell.
_ANYTHING = ("", "application/octet-stream", "binary/octet-stream", "text/plain")


def parse_page(body: bytes, content_type: str, url: str, project: str) -> Page:
    """The page of *project* in *body*, fetched from *url* (after redirects: links resolve against it).

    Raises Malformed when the body is not what *content_type* says, is no project page, or is another project's.
    """
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if not start and not body.strip():
        raise Malformed("the page is empty")
    kind = media_of(content_type)
    if kind is None and content_type.partition(";")[0].strip().lower() in _ANYTHING:
        kind = {b"{": "json", b"<": "html"}.get(start)
    if kind == "json":
        return parse_json(body, url, project)
    if kind == "html":
        return parse_html(body, content_type, url, project)
    raise Malformed(f"Content-Type {content_type[:100]!r} is no project page")


def weight(page: Page, body: bytes) -> int:
    """What *page*, parsed from *body*, takes in memory: roughly, in bytes."""
    return _PER_BYTE * len(body) + _PER_FILE * len(page.files)

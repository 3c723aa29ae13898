"""Project pages from the bytes that upstream sent, whatever they are written in."""

from __future__ import annotations

from proxy.model import Page
from proxy.simple.charsets import text_of, utf8
from proxy.simple.complete import is_closed, is_complete
from proxy.simple.malformed import Malformed
from proxy.simple.media import media_of

__all__ = ["Malformed", "is_whole", "parse_page", "says_its_end", "settled_type", "weight"]

#: What a file and a version take in memory besides their bytes in the body, on a page that says what others do (bytes).
_PER_PLAIN_FILE, _PER_VERSION = 800, 70
#: How much more than its body any page takes, and what each file takes besides (bytes).
_PER_BYTE, _PER_FILE = 6, 400
#: The longest body that is looked through for what takes more (bytes).
_LOOKED_THROUGH = 4 << 20
#: Bytes of a page that tell what it is.
_START = 1024


def parse_page(body: bytes, content_type: str, url: str, project: str) -> Page:
    """The page of *project* in *body*, fetched from *url* (after redirects: links resolve against it).

    Raises Malformed when the body is not what *content_type* says, is no project page, or is another project's.
    """
    if not body or body.isspace():
        raise Malformed("the page is empty")
    kind = _kind(body, content_type)
    # Each is loaded by the first page of its kind, in the thread that parses it.
    if kind == "json":
        from proxy.simple.from_json import parse_json

        return parse_json(utf8(body), url, project)
    if kind == "html":
        from proxy.simple.from_html import parse_html

        return parse_html(text_of(body, content_type), url, project)
    raise Malformed(f"Content-Type {content_type[:100]!r} is no project page")


def settled_type(body: bytes, content_type: str) -> str:
    """*content_type*, or what *body* is when that does not say it."""
    kind = _kind(body, content_type)
    if kind is None or kind in content_type.lower():
        return content_type
    return {"json": "application/json", "html": "text/html"}[kind]


def is_whole(body: bytes, content_type: str) -> bool:
    """Whether *body*, which ended with its connection, can be whole: JSON that is not is found out when it is parsed."""
    return _kind(body, content_type) != "html" or is_complete(text_of(body, content_type))


def says_its_end(body: bytes, content_type: str) -> bool:
    """Whether *body* is whole whatever else came: HTML that closes itself.  JSON is as for :func:`is_whole`."""
    return _kind(body, content_type) != "html" or is_closed(text_of(body, content_type))


def weight(page: Page, body: bytes) -> int:
    """What *page*, parsed from *body*, takes in memory: roughly, in bytes, and rather more than less."""
    if len(body) <= _LOOKED_THROUGH and _is_plain(page, body):
        files = len(page.files) + len(page.unverifiable)
        return len(body) + _PER_PLAIN_FILE * files + _PER_VERSION * len(page.versions or ())
    return _PER_BYTE * len(body) + _PER_FILE * len(page.files)


def _is_plain(page: Page, body: bytes) -> bool:
    """Whether *page* has neither values that this proxy does not know, which may be many small ones, nor wide characters."""
    if page.extra or len(page.meta_extra) > 1 or any(file.extra for file in page.files):
        return False
    # A single byte is looked for in a hundredth of the time of two.
    return body.isascii() and not (b"\\" in body and b"\\u" in body) and not (b"&" in body and b"&#" in body)


def _kind(body: bytes, content_type: str) -> str | None:
    return media_of(content_type, utf8(body[:_START]))

"""The description of a project, as its metadata has it, made safe to show.

readme_renderer makes HTML of it as the public index does, and sanitises that.  What comes of it is read once more here, and
only the elements and attributes that are listed become part of the page: no image, no script, no style, and links to nothing
but the web and mail.
"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from twisted.web.template import Tag, tags

if TYPE_CHECKING:
    from packaging.metadata import RawMetadata

#: Bytes of metadata that are looked at, and characters of a description that are rendered.
MOST_METADATA, _LONGEST = 1_000_000, 200_000
#: Elements of a description, and how many of them may be inside of one another.
_MOST, _DEEPEST = 10_000, 100
_MARKDOWN, _RST = "text/markdown", "text/x-rst"

_ELEMENTS = frozenset(
    [
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "caption",
        "cite",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "kbd",
        "li",
        "ol",
        "p",
        "pre",
        "s",
        "samp",
        "span",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "tt",
        "u",
        "ul",
        "var",
    ]
)
_EMPTY = frozenset({"br", "hr"})
_SCHEMES = frozenset({"http", "https", "mailto"})
#: Headings of a description are below those of the page that it is on.
_LOWERED = {f"h{level}": f"h{min(6, level + 2)}" for level in range(1, 7)}


def summary_of(metadata: bytes) -> str:
    """The summary in core *metadata*, perhaps empty."""
    return _fields(metadata).get("summary", "")


def rendered(metadata: bytes) -> bytes:
    """The description in core *metadata* as HTML, empty if it is plain or not what it says.

    It may take any time and any memory: see :mod:`proxy.web.dashboard.rendering`.
    """
    raw = _fields(metadata)
    return (_html(_text(raw), raw.get("description_content_type", "")) or "").encode()


def described(metadata: bytes, html: bytes) -> list[Tag | str]:
    """The description in core *metadata*, of which *html* was made, as content of a page; empty when there is none."""
    text = _text(_fields(metadata))
    if not text:
        return []
    found = _read(html.decode("utf-8", "replace")) if html else None
    return [tags.pre(text)] if found is None else found


def _text(raw: RawMetadata) -> str:
    return raw.get("description", "").strip()[:_LONGEST]


def _fields(metadata: bytes) -> RawMetadata:
    # It takes long to load, and few starts come to need it.
    from packaging.metadata import parse_email

    try:
        return parse_email(metadata)[0]
    except Exception:  # noqa: BLE001  # a message of several parts, for example, fails an assertion in there
        return {}


def _html(text: str, content_type: str) -> str | None:
    """*text* as HTML; ``None`` if it is plain, or is not what it says."""
    # They take most of a second to load.
    media = content_type.partition(";")[0].strip().lower()
    if media == _MARKDOWN:
        from readme_renderer import markdown

        variant = "CommonMark" if "commonmark" in content_type.lower() else "GFM"
        return _untyped(markdown.render(text, variant=variant))
    if media in ("", _RST):
        from readme_renderer import rst

        return _untyped(rst.render(text))
    return None


def _untyped(found: str | None) -> str | None:
    """*found*, which ships no types."""
    return found


class _TooMuch(Exception):
    """There are too many elements."""


class _Reader(HTMLParser):
    """Collects the elements that may be shown; of others, what is in them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.top: list[Tag | str] = []
        self._open: list[tuple[str, Tag]] = []
        self._count = 0

    def _add(self, piece: Tag | str) -> None:
        if self._open:
            self._open[-1][1](piece)
        else:
            self.top.append(piece)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _ELEMENTS or (tag == "a" and not any(name == "href" and _is_safe(value) for name, value in attrs)):
            return
        self._count += 1
        if self._count > _MOST or len(self._open) >= _DEEPEST:
            raise _TooMuch
        made = Tag(_LOWERED.get(tag, tag))
        for name, value in attrs:
            if name == "href" and tag == "a" and value is not None:
                made(href=value, rel="nofollow noopener noreferrer")
            elif name in ("colspan", "rowspan") and value is not None and value.isdecimal():
                made(**{name: value})
        self._add(made)
        if tag not in _EMPTY:
            self._open.append((tag, made))

    def handle_endtag(self, tag: str) -> None:
        if any(each[0] == tag for each in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        self._add(data)


def _is_safe(url: str | None) -> bool:
    try:
        return url is not None and urlsplit(url).scheme.lower() in _SCHEMES
    except ValueError:
        return False


def _read(html: str) -> list[Tag | str] | None:
    """What may be shown of *html*; ``None`` if that is too much for a page."""
    reader = _Reader()
    try:
        reader.feed(html)
        reader.close()
    except _TooMuch:
        return None
    return reader.top

"""The description of a project, as its metadata has it, made safe to show.

readme_renderer makes HTML of it as the public index does, and sanitises that.  What comes of it is read once more here, and
only the elements and attributes that are listed become part of the page: no image, no script, no style, and links to nothing
but the web and mail.
"""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

from twisted.web.template import Tag, tags

#: Bytes of metadata that are looked at, and characters of a description that are rendered.
MOST_METADATA, _LONGEST = 1_000_000, 200_000
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
    from packaging.metadata import parse_email

    raw, _ = parse_email(metadata)
    return raw.get("summary", "")


def described(metadata: bytes) -> list[Tag | str]:
    """The description in core *metadata*, as content of a page; empty when there is none.  Takes long: not in the reactor."""
    # Few who look at the dashboard look at a description, and its modules take a while to load.
    from packaging.metadata import parse_email

    raw, _ = parse_email(metadata)
    text = raw.get("description", "").strip()[:_LONGEST]
    if not text:
        return []
    html = _html(text, raw.get("description_content_type", ""))
    return [tags.pre(text)] if html is None else _read(html)


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


class _Reader(HTMLParser):
    """Collects the elements that may be shown; of others, what is in them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.top: list[Tag | str] = []
        self._open: list[tuple[str, Tag]] = []

    def _add(self, piece: Tag | str) -> None:
        if self._open:
            self._open[-1][1](piece)
        else:
            self.top.append(piece)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _ELEMENTS:
            return
        made = Tag(_LOWERED.get(tag, tag))
        for name, value in attrs:
            if name == "href" and tag == "a" and value is not None and _is_safe(value):
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


def _is_safe(url: str) -> bool:
    try:
        return urlsplit(url).scheme.lower() in _SCHEMES
    except ValueError:
        return False


def _read(html: str) -> list[Tag | str]:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.top

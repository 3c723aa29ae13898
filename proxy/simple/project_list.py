"""The list of all projects (PEP 503, PEP 691) out of what upstream sends: lines, as :mod:`proxy.simple.projects` has them.

It takes seconds, and belongs in a worker thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import ijson

from proxy.names import is_project_name, normalize
from proxy.settings import KIB, MIB
from proxy.simple import mend
from proxy.simple.from_html import SERIAL, states_version, tree_of
from proxy.simple.from_json import api_version
from proxy.simple.links import without_secrets
from proxy.simple.malformed import Malformed
from proxy.simple.media import media_of
from proxy.simple.projects import Write, write_entries
from proxy.simple.render import NEWEST, kept

#: HTML is parsed in pieces of about this size, for the parser takes the square of the number of a tag's attributes; what does
#: not end a link for so long is none (bytes).
_PIECE = 8 * KIB
#: Bytes of a list that tell what it is.
_START = 1024
_BOM = b"\xef\xbb\xbf"
#: HTML in which no link ends for so long, and JSON in which no value does, is no list of projects (bytes).
_LONGEST_GAP = 1 * MIB
#: How deep JSON may nest at the least, and how much deeper if all that is opened is closed soon.
_DEEPEST, _LAYERS = 32, 16
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
#: An entry with no more keys than these has the ones that indexes give: a name and a serial.
_PLAIN_KEYS = 2
_ANCHOR_END = re.compile(rb"</a\s*>", re.IGNORECASE)
#: What static generators link to instead of the folder that it is in.
_INDEX = re.compile(r"(?:^|(?<=/))index\.html?$", re.IGNORECASE)
#: How web servers end a name that is too long for their listing.
_SHORTENED = "..>"


def write_lines(body: BinaryIO, content_type: str, write: Write) -> int | None:
    """Turn upstream's *body* into lines; the serial it states.  Raises Malformed when it is no list of projects."""
    start = body.read(_START)
    begin = len(_BOM) if start.startswith(_BOM) else 0
    kind = media_of(content_type, start[begin:])
    body.seek(begin)
    if kind == "json":
        try:
            meta = _json_meta(body)
            body.seek(begin)
            write_entries(meta, _json_entries(body), write)
            return mend.serial(meta.get("_last-serial"))
        except (ijson.JSONError, ValueError, OverflowError, RecursionError) as error:
            raise Malformed(f"the body is no JSON: {error}") from error
    if kind == "html":
        return _write_html(body, write)
    raise Malformed(f"Content-Type {content_type[:100]!r} is no list of projects")


def _json_meta(body: BinaryIO) -> dict[str, Any]:
    value = _value_of_meta(body)
    meta = value if isinstance(value, dict) else {}
    version = min(api_version(meta.get("api-version")), NEWEST)
    others = without_secrets(kept(meta))
    serial = mend.serial(others.pop("_last-serial", None))
    stated = {} if serial is None else {"_last-serial": serial}
    return {**others, **stated, "api-version": f"{version[0]}.{version[1]}"}


def _value_of_meta(body: BinaryIO) -> Any:
    """The value of ``meta``, which may come after the list, and ``None`` without one.  Raises Malformed without a list."""
    fed = _Fed(body)
    builder: ijson.ObjectBuilder | None = None
    listed = False
    for prefix, event, value in ijson.parse(fed, use_float=True):
        if prefix == "meta" or prefix.startswith("meta."):
            builder = builder or ijson.ObjectBuilder()
            builder.event(event, value)
        else:
            fed.went_on()
            listed = listed or (prefix == "projects" and event == "start_array")
            if listed and builder is not None:
                return builder.value
    if not listed:
        raise Malformed("the JSON has no list of projects")
    return None


def _json_entries(body: BinaryIO) -> Iterator[dict[str, Any]]:
    fed = _Fed(body)
    for entry in ijson.items(fed, "projects.item", use_float=True):
        fed.went_on()
        if isinstance(entry, dict) and isinstance(name := entry.get("name"), str) and is_project_name(name):
            yield entry if len(entry) <= _PLAIN_KEYS else without_secrets(entry)


class _Fed:
    """*body* for a parser of JSON, whose memory grows with the longest value, and with the square of the deepest."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self._held = 0
        self._depth = 0
        #: Whether what comes next stands inside of a text (0 or 1), and a backslash that what comes next belongs to.
        self._inside = 0
        self._escape = b""

    def read(self, size: int) -> bytes:
        data = self._body.read(size)
        self._held += len(data)
        if self._held > _LONGEST_GAP:
            raise Malformed(f"one of its values has more than {_LONGEST_GAP:,} bytes")
        self._look_at(data)
        return data

    def went_on(self) -> None:
        """Told that a value has ended."""
        self._held = 0

    def _look_at(self, data: bytes) -> None:
        """Follow how deep *data* nests."""
        text = self._escape + data
        self._escape = b""
        if b"\\" in text:
            text = _ESCAPED.sub(b"", text)
            if text.endswith(b"\\"):
                text, self._escape = text[:-1], b"\\"
        parts = text.split(b'"')
        brackets = b"".join(parts[self._inside :: 2]).translate(None, _NO_BRACKETS)
        self._inside ^= (len(parts) - 1) % 2
        for _ in range(_LAYERS):
            brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if self._depth + len(brackets) > _DEEPEST:
            raise Malformed("it nests too deep")
        self._depth += sum(map(brackets.count, (b"{", b"["))) - sum(map(brackets.count, (b"}", b"]")))


def _write_html(body: BinaryIO, write: Write) -> int | None:
    states = states_version(body.read(4 * KIB).decode("latin-1"))
    serial = _html_serial(body)
    meta = {"api-version": "1.0"} if serial is None else {"api-version": "1.0", "_last-serial": serial}
    entries = _Anchors(body)
    write_entries(meta, entries, write)
    if entries.others > entries.projects or (not entries.projects and not states):
        raise Malformed("most of the HTML's links are not called as the projects they lead to")
    return serial


def _html_serial(body: BinaryIO) -> int | None:
    body.seek(0, 2)
    body.seek(max(0, body.tell() - 4 * KIB))
    found = SERIAL.search(body.read().decode("latin-1"))
    body.seek(0)
    return None if found is None else int(found[1])


class _Anchors:
    """The projects that the links of an HTML list lead to: those that are called as the last folder of their path."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self.projects = 0
        self.others = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest, gap = b"", 0
        while piece := self._body.read(_PIECE):
            rest += piece
            ends = [match.end() for match in _ANCHOR_END.finditer(rest)]
            if ends:
                yield from self._entries(rest[: ends[-1]])
                rest, gap = rest[ends[-1] :], 0
            elif len(rest) > _PIECE:
                gap += len(rest) - _PIECE
                rest = rest[-_PIECE:]
                if gap > _LONGEST_GAP:
                    raise Malformed("the HTML is no list of projects")

    def _entries(self, html: bytes) -> Iterator[dict[str, Any]]:
        for anchor in tree_of(html.decode("utf-8", "replace")).css("a[href]"):
            target = _folder(anchor.attributes.get("href") or "")
            if target is None:
                continue
            name = _INDEX.sub("", anchor.text().strip()).rstrip("/")
            if name.endswith(_SHORTENED) and target.startswith(name.removesuffix(_SHORTENED)):
                name = target
            if is_project_name(name) and normalize(name) == normalize(target):
                self.projects += 1
                yield {"name": name}
            else:
                self.others += 1


def _folder(href: str) -> str | None:
    """The last folder of the path in *href*; ``None`` for a link to the list itself, in another order, or to what is above."""
    try:
        path = urlsplit(href.strip()).path
    except ValueError:
        return None
    folder = unquote(_INDEX.sub("", path).rstrip("/").rpartition("/")[2])
    return None if folder in ("", ".", "..") else folder

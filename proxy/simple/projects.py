"""The list of all projects (PEP 503, PEP 691), entry by entry: it has tens of megabytes, and is never held as objects.

It is kept as lines: the first is ``meta``, each of the others one project with all that upstream says of it, all in JSON.
Renderings are made from these lines.  Everything here blocks for seconds and belongs in a worker thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from typing import Any, BinaryIO

import ijson
import msgspec
from selectolax.lexbor import LexborHTMLParser

from proxy.names import is_project_name, normalize
from proxy.settings import KIB, MIB
from proxy.simple.from_html import SERIAL, states_version
from proxy.simple.from_json import api_version
from proxy.simple.malformed import Malformed
from proxy.simple.media import MediaType, media_of
from proxy.simple.render import NEWEST, kept

Write = Callable[[bytes], object]

_PIECE = 256 * KIB
#: HTML in which no link ends for so long is no list of projects (bytes).
_LONGEST_GAP = 1 * MIB
_ANCHOR_END = re.compile(rb"</a\s*>", re.IGNORECASE)
#: Entries that are written in one call.
_BATCH = 2000

_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct):
    name: str


_named = msgspec.json.Decoder(_Named)


def write_lines(body: BinaryIO, content_type: str, write: Write) -> int | None:
    """Turn upstream's *body* into lines; the serial it states.  Raises Malformed when it is no list of projects."""
    kind = media_of(content_type)
    if kind == "json":
        try:
            meta, entries = _json_meta(body), _json_entries(body)
            return _write(meta, entries, write)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise Malformed(f"the body is no JSON: {error}") from error
    if kind == "html":
        return _write_html(body, write)
    raise Malformed(f"Content-Type {content_type[:100]!r} is no list of projects")


def lines_of(names: Iterable[str]) -> bytes:
    """The lines for the projects *names*, of which nothing else is known."""
    chunks: list[bytes] = []
    _write({"api-version": "1.0"}, ({"name": name} for name in names), chunks.append)
    return b"".join(chunks)


def _write(meta: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], write: Write) -> int | None:
    write(_encode(meta) + b"\n")
    batch: list[bytes] = []
    for entry in entries:
        batch.append(_encode(entry) + b"\n")
        if len(batch) >= _BATCH:
            write(b"".join(batch))
            batch.clear()
    write(b"".join(batch))
    serial = meta.get("_last-serial")
    return serial if isinstance(serial, int) and not isinstance(serial, bool) else None


def _json_meta(body: BinaryIO) -> dict[str, Any]:
    meta = next(ijson.items(body, "meta", use_float=True), None)
    if not isinstance(meta, dict):
        raise Malformed("the JSON has no meta")
    version = min(api_version(meta.get("api-version")), NEWEST)
    body.seek(0)
    if not any(prefix == "projects" and event == "start_array" for prefix, event, _ in ijson.parse(body, use_float=True)):
        raise Malformed("the JSON has no list of projects")
    body.seek(0)
    return {**kept(meta), "api-version": f"{version[0]}.{version[1]}"}


def _json_entries(body: BinaryIO) -> Iterator[dict[str, Any]]:
    for entry in ijson.items(body, "projects.item", use_float=True):
        if isinstance(entry, dict) and isinstance(name := entry.get("name"), str) and is_project_name(name):
            yield entry


def _write_html(body: BinaryIO, write: Write) -> int | None:
    states = states_version(body.read(4 * KIB).decode("latin-1"))
    body.seek(0)
    serial = _html_serial(body)
    meta = {"api-version": "1.0"} if serial is None else {"api-version": "1.0", "_last-serial": serial}
    entries = _Anchors(body)
    _write(meta, entries, write)
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
    """The projects that the links of an HTML list lead to: those whose text is the last part of their path."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self.projects = 0
        self.others = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest = b""
        while piece := self._body.read(_PIECE):
            rest += piece
            ends = [match.end() for match in _ANCHOR_END.finditer(rest)]
            if ends:
                yield from self._entries(rest[: ends[-1]])
                rest = rest[ends[-1] :]
            elif len(rest) > _LONGEST_GAP:
                raise Malformed("the HTML is no list of projects")

    def _entries(self, html: bytes) -> Iterator[dict[str, Any]]:
        for anchor in LexborHTMLParser(html.decode("utf-8", "replace")).css("a[href]"):
            name = anchor.text().strip().rstrip("/")
            target = (anchor.attributes.get("href") or "").partition("#")[0].rstrip("/").rpartition("/")[2]
            if is_project_name(name) and normalize(name) == normalize(target):
                self.projects += 1
                yield {"name": name}
            else:
                self.others += 1


def write_rendering(lines: Iterable[bytes], media: MediaType, write: Write) -> None:
    """Make *lines* the document that clients get in *media*."""
    rest = iter(lines)
    meta = next(rest)
    if media is MediaType.JSON:
        write(b'{"meta":' + meta.rstrip(b"\n") + b',"projects":[')
        start = b""
        for batch in _batches(rest):
            write(start + b",".join(line.rstrip(b"\n") for line in batch))
            start = b","
        write(b"]}")
        return
    head = msgspec.json.decode(meta)
    write(_HTML_HEAD % head["api-version"].encode())
    for batch in _batches(rest):
        names = [_named.decode(line).name for line in batch]
        write("".join(f'<a href="{normalize(name)}/">{escape(name)}</a><br>\n' for name in names).encode())
    serial = head.get("_last-serial")
    write(b"</body>\n</html>\n" + (f"<!--SERIAL {serial}-->\n".encode() if isinstance(serial, int) else b""))


def _batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


_HTML_HEAD = b"""<!DOCTYPE html>
<html>
<head>
<meta name="pypi:repository-version" content="%s">
<title>Simple index</title>
</head>
<body>
"""

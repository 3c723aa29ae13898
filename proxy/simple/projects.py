"""The list of all projects (PEP 503, PEP 691) as lines: it has tens of megabytes, and is never held as objects.

The first line is ``meta``, each of the others one project with all that upstream says of it, all in JSON
(:mod:`proxy.simple.project_list` makes them of what upstream sends).  Renderings are made from these lines.  Everything here
blocks for seconds and belongs in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from typing import Any

import msgspec

from proxy.names import is_project_name, normalize
from proxy.simple.malformed import Malformed
from proxy.simple.media import MediaType

Write = Callable[[bytes], object]

#: Entries that are written in one call.
_BATCH = 2000

_encode = msgspec.json.Encoder().encode


class _Named(msgspec.Struct):
    name: str


_named = msgspec.json.Decoder(_Named)


def lines_of(names: Iterable[str]) -> bytes:
    """The lines for the projects *names*, of which nothing else is known."""
    chunks: list[bytes] = []
    write_entries({"api-version": "1.0"}, ({"name": name} for name in names), chunks.append)
    return b"".join(chunks)


def copy_lines(lines: Iterable[bytes], write: Write) -> None:
    """Write *lines* that nothing vouches for once more.  Raises Malformed when one is not what is written here."""
    key = "api-version"
    for line in lines:
        try:
            value = msgspec.json.decode(line, type=dict)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Malformed(f"a line is no JSON: {error}") from error
        text = value.get(key)
        if not isinstance(text, str) or not line.endswith(b"\n") or (key == "name" and not is_project_name(text)):
            raise Malformed(f"a line has no {key}, or not all of it")
        write(line)
        key = "name"
    if key == "api-version":
        raise Malformed("it is empty")


def write_entries(meta: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], write: Write) -> None:
    """Write the lines for *meta* and *entries*."""
    write(_encode(meta) + b"\n")
    batch: list[bytes] = []
    for entry in entries:
        batch.append(_encode(entry) + b"\n")
        if len(batch) >= _BATCH:
            write(b"".join(batch))
            batch.clear()
    write(b"".join(batch))


def names_in(lines: Iterable[bytes]) -> Iterator[str]:
    """The normalised names of the projects in *lines*."""
    rest = iter(lines)
    next(rest)
    return (normalize(_named.decode(line).name) for line in rest)


def named_lines(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each project in *lines* by its normalised name, with its line."""
    rest = iter(lines)
    next(rest)
    return ((normalize(_named.decode(line).name), line) for line in rest)


def lines_without(lines: Iterable[bytes], hidden: Callable[[str], bool]) -> Iterator[bytes]:
    """*lines* without the projects that are *hidden*, which is asked for each normalised name."""
    rest = iter(lines)
    yield next(rest)
    for line in rest:
        if not hidden(normalize(_named.decode(line).name)):
            yield line


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

"""Project pages as the bytes that clients get: JSON (PEP 691) and HTML (PEP 503; frozen by PEP 833).

Both are made piece by piece: encoding a page of 40,000 files in one call would hold the interpreter's lock throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.model import File, Page, strongest
from proxy.simple.attributes import written
from proxy.simple.media import MediaType

#: Gives the URL of a file, as documents state it.
Link = Callable[[File], str]

#: The newest version this proxy speaks; 1.5 (PEP 752) would promise namespaces.
NEWEST = (1, 4)
#: Rejected (PEP 708) or not promised (PEP 752): emitted by nobody who says 1.4.
_NEVER = ("tracks", "alternate-locations", "namespaces")
#: Files that are encoded in one call.
_BATCH = 500

_encode = msgspec.json.Encoder().encode


def render(page: Page, media: MediaType, link: Link) -> bytes:
    """*page* in *media*; *link* gives each file's URL relative to the page."""
    return _json(page, link) if media is MediaType.JSON else _html(page, link)


def api_version_of(page: Page) -> tuple[int, int]:
    """The highest version whose promises *page* keeps: from 1.1 on ``versions`` and every ``size`` are mandatory (PEP 700)."""
    if page.versions is None or any(file.size is None for file in page.files):
        return (1, 0)
    return min(page.api_version, NEWEST)


def _json(page: Page, link: Link) -> bytes:
    version = api_version_of(page)
    head: dict[str, Any] = {
        "meta": {**kept(page.meta_extra), "api-version": f"{version[0]}.{version[1]}"},
        "name": page.project,
    }
    if page.versions is not None and version >= (1, 1):
        head["versions"] = page.versions
    if page.status is not None:
        head["project-status"] = dict(page.status)
    batches = (
        _encode([_entry(file, link) for file in page.files[start : start + _BATCH]])[1:-1]
        for start in range(0, len(page.files), _BATCH)
    )
    return b"".join((_encode(kept(page.extra) | head)[:-1], b',"files":[', b",".join(batches), b"]}"))


def kept(extra: Any) -> dict[str, Any]:
    """What may be passed on of keys that this proxy does not know."""
    return {key: value for key, value in extra.items() if key not in _NEVER}


class _Entry(msgspec.Struct, omit_defaults=True, rename="kebab", gc=False):
    """A file on the page; what is ``None`` is left out."""

    filename: str
    url: str
    hashes: Mapping[str, str]
    yanked: bool | str
    requires_python: str | None = None
    size: int | None = None
    upload_time: str | None = None
    core_metadata: bool | Mapping[str, str] | None = None
    provenance: str | None = None


def _entry(file: File, link: Link) -> _Entry | dict[str, Any]:
    entry = _Entry(
        file.filename,
        link(file),
        file.hashes or {},
        file.yanked,
        file.requires_python,
        file.size,
        file.upload_time,
        file.core_metadata,
        file.provenance,
    )
    return kept(file.extra) | msgspec.to_builtins(entry) if file.extra else entry


def _html(page: Page, link: Link) -> bytes:
    version = api_version_of(page)
    title = escape(page.project)
    status = page.status or {}
    serial = page.meta_extra.get("_last-serial")
    lines = [
        "<!DOCTYPE html>",
        "<html>",
        "<head>",
        f'<meta name="pypi:repository-version" content="{version[0]}.{version[1]}">',
        *(
            f'<meta name="pypi:project-status{suffix}" content="{escape(str(status[key]))}">'
            for key, suffix in (("status", ""), ("reason", "-reason"))
            if status.get(key)
        ),
        f"<title>Links for {title}</title>",
        "</head>",
        "<body>",
        f"<h1>Links for {title}</h1>",
        *(_anchor(file, link) for file in page.files),
        "</body>",
        "</html>",
        *([f"<!--SERIAL {serial}-->"] if isinstance(serial, int) else []),
        "",
    ]
    return "\n".join(lines).encode()


def link_lines(page: Page, link: Link) -> bytes:
    """The links of the files of *page*, for a page of several projects; without provenance, which no such page has."""
    return "".join(f"{_anchor(replace(file, provenance=None), link)}\n" for file in page.files).encode()


def flat_page(title: str, lines: Iterable[bytes]) -> bytes:
    """A page of links alone."""
    shown = escape(title)
    head = f"<!DOCTYPE html>\n<html>\n<head>\n<title>{shown}</title>\n</head>\n<body>\n<h1>{shown}</h1>\n"
    return b"".join((head.encode(), *lines, b"</body>\n</html>\n"))


def _anchor(file: File, link: Link) -> str:
    digest = file.digest
    fragment = f"#{digest.algorithm}={digest.hex}" if digest is not None else ""
    attributes = ""
    if file.requires_python is not None:
        attributes += f' data-requires-python="{escape(file.requires_python)}"'
    if file.yanked is not False:
        attributes += f' data-yanked="{escape(file.yanked) if isinstance(file.yanked, str) else ""}"'
    if file.core_metadata is not None and file.core_metadata is not False:
        metadata = _core_metadata(file)
        attributes += f' data-core-metadata="{metadata}" data-dist-info-metadata="{metadata}"'
    if file.provenance is not None:
        attributes += f' data-provenance="{escape(file.provenance)}"'
    if file.size is not None:
        attributes += f' data-size="{file.size}"'
    if file.upload_time is not None:
        attributes += f' data-upload-time="{file.upload_time}"'
    if file.extra:
        attributes += written(file.extra)
    return f'<a href="{escape(link(file))}{fragment}"{attributes}>{escape(file.filename)}</a><br>'


def _core_metadata(file: File) -> str:
    """PEP 658's attribute: the strongest digest of the metadata, ``true`` where none is known."""
    digest = None if isinstance(file.core_metadata, bool | None) else strongest(file.core_metadata)
    return "true" if digest is None else f"{digest.algorithm}={digest.hex}"

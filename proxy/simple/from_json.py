"""Project pages out of JSON (PEP 691, 700, 714, 740, 792).

A page of 40,000 files is some 28 MB, and decoding that in one call would hold the interpreter's lock, and so the reactor, for
its whole duration.  So one call finds where each file's entry starts and ends, and the entries are decoded one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.model import EMPTY, File, Page
from proxy.names import is_filename, normalize
from proxy.settings import KIB
from proxy.simple import mend
from proxy.simple.links import resolve
from proxy.simple.malformed import Malformed
from proxy.simple.plain_entries import plain_file, plain_files, plain_page

#: Arrays at the top level stay undecoded, entry by entry.
_Top = list[msgspec.Raw] | dict[str, Any] | str | bool | int | float | None
_outline = msgspec.json.Decoder(dict[str, _Top])
_value = msgspec.json.Decoder()
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: Values of a page; one of 40,000 files has a sixth of that.
_MOST_VALUES = 4_000_000
#: Entries that are decoded in one call, and bytes of a page that is: so few that the interpreter's lock is not held for long.
_BATCH, _SMALL = 100, 64 * KIB
#: The key of ``meta`` that has the page's serial.
SERIAL = "_last-serial"

_VERSION = re.compile(r"\s*([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.[0-9]{1,9}){0,9}\s*")
_FILE_KEYS = frozenset(
    {
        "filename",
        "url",
        "hashes",
        "requires-python",
        "size",
        "upload-time",
        "yanked",
        "core-metadata",
        "data-dist-info-metadata",
        "dist-info-metadata",
        "provenance",
        "gpg-sig",
    }
)
#: Rejected (PEP 708), or a promise that this proxy does not make (PEP 752): passed on by nobody.
_DROPPED = frozenset({"tracks", "alternate-locations", "namespaces"})
_PAGE_KEYS = frozenset({"meta", "name", "files", "versions", "project-status"}) | _DROPPED
_META_KEYS = frozenset({"api-version"}) | _DROPPED


def parse_json(body: bytes, url: str, project: str) -> Page:
    """The page in *body*.  Raises Malformed."""
    try:
        plain = plain_page(body) if len(body) <= _SMALL else None
        document, files = plain if plain is not None else (_outline.decode(of_few_values(body)), None)
        return _page(document, files, url, normalize(project))
    except _UNDECODABLE as error:
        raise Malformed(f"the body is no JSON page: {error}") from error


def _page(document: dict[str, Any], plain: list[File] | None, url: str, project: str) -> Page:
    """The page of which *document* has all but the *plain* files; all, without these."""
    stated = document.get("meta")
    meta: dict[str, Any] = stated if isinstance(stated, dict) else {}
    version = api_version(meta.get("api-version"))
    name = document.get("name")
    if isinstance(name, str) and normalize(name) != project:
        raise Malformed(f"the page is that of another project: {name[:100]!r} instead of {project!r}")
    listed = _listed(document, url) if plain is None else plain
    if not meta and not isinstance(name, str) and not listed:
        raise Malformed("the JSON is no project page: it has no meta, no name and no file")
    files, unverifiable = mend.told_apart(listed)
    return Page(
        project=project,
        files=files,
        api_version=version,
        versions=_versions(document.get("versions"), decoded=plain is not None),
        status=mend.status(document.get("project-status")),
        extra=mend.unknown({key: _whole(value) for key, value in _others(document, _PAGE_KEYS).items()}),
        meta_extra=_meta_extra(_others(meta, _META_KEYS)),
        unverifiable=unverifiable,
    )


def _listed(document: dict[str, Any], url: str) -> list[File]:
    """The files in *document* that a client can use."""
    entries = document.get("files")
    if not isinstance(entries, list):
        raise Malformed("the JSON is no project page: it has no list of files")
    listed = [file for file in _files(entries, url) if file is not None]
    if entries and not listed and not any(bytes(raw)[:1] == b"{" for raw in entries):
        raise Malformed("the JSON is no project page: its files are no objects")
    return listed


def _files(entries: list[msgspec.Raw], url: str) -> list[File | None]:
    """The files of *entries*; ``None`` in place of those that no client could use."""
    if entries and plain_file(entries[-1]) is None:  # then few others are plain
        return [_file(_entry(raw), url) for raw in entries]
    files: list[File | None] = []
    for start in range(0, len(entries), _BATCH):
        batch = entries[start : start + _BATCH]
        files += plain_files(batch) or [plain_file(raw) or _file(_entry(raw), url) for raw in batch]
    return files


def of_few_values(body: bytes) -> bytes:
    """*body*, unless it is JSON of so many values that they would take many times its size.  Raises Malformed."""
    if len(body) > _MOST_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise Malformed(f"it has more than {_MOST_VALUES:,} values")
    return body


def _meta_extra(others: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = mend.unknown(others)
    serial = mend.serial(kept.pop(SERIAL, None))
    return kept if serial is None else {**kept, SERIAL: serial}


def api_version(value: object) -> tuple[int, int]:
    """``meta.api-version`` as numbers; what is none says nothing, as clients take it.

    Raises Malformed when it is one of another major version (PEP 629).
    """
    match = _VERSION.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None:
        return 1, 0
    if int(match[1]) != 1:
        raise Malformed(f"the page is of API version {str(value)[:100]!r}, which this proxy does not know")
    return 1, int(match[2] or 0)


def _whole(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    batches = (value[start : start + _BATCH] for start in range(0, len(value), _BATCH))
    return [each for batch in batches for each in _value.decode(b"[%b]" % b",".join(map(bytes, batch)))]


def _versions(value: Any, *, decoded: bool) -> tuple[str, ...] | None:
    return mend.versions(value if decoded else _whole(value)) if isinstance(value, list) else None


def _others(mapping: dict[str, Any], known: frozenset[str]) -> Mapping[str, Any]:
    return {key: value for key, value in mapping.items() if key not in known} if not known.issuperset(mapping) else EMPTY


def _entry(raw: msgspec.Raw) -> Any:
    """The value of *raw*; one that cannot be decoded, such as for a number of 5,000 digits, is ``None``."""
    try:
        return _value.decode(raw)
    except _UNDECODABLE:
        return None


def _file(entry: Any, page_url: str) -> File | None:
    """One file, ``None`` for an entry that no client could use."""
    if not isinstance(entry, dict):
        return None
    get = entry.get
    filename, href = get("filename"), get("url")
    if not isinstance(filename, str) or not isinstance(href, str) or not is_filename(filename):
        return None
    found = resolve(page_url, href)
    if found is None:
        return None
    metadata = mend.core_metadata(get("core-metadata"))
    if metadata is None:
        metadata = mend.core_metadata(get("dist-info-metadata", get("data-dist-info-metadata")))
    return File(
        filename=filename,
        url=found[0],
        hashes=_hashes(get("hashes"), found[1]) if found[1] else mend.digests(get("hashes")),
        requires_python=mend.requires_python(get("requires-python")),
        size=mend.stated_size(get("size")),
        upload_time=mend.upload_time(get("upload-time")),
        yanked=mend.yanked(yanked) if (yanked := get("yanked")) else False,
        core_metadata=metadata,
        provenance=mend.provenance(get("provenance")),
        extra=mend.unknown(others) if (others := _others(entry, _FILE_KEYS)) else EMPTY,
    )


def _hashes(stated: Any, fragment: str) -> Mapping[str, str]:
    """The digests of a file; those that its URL bears count where the entry has no others under these names."""
    in_url = mend.fragment(fragment)
    if in_url is not None and isinstance(stated, dict | None):
        stated = {**in_url, **(stated or {})}
    return mend.digests(stated)

"""Files on JSON pages in which nothing has to be mended, as nearly all are: decoded in one call, and checked in a few.

An entry that differs in anything (an unknown key, a relative link, another digest than sha256) is left to
:mod:`proxy.simple.from_json`, which makes the same file of every entry that is accepted here, and takes half as long again.  So
is a page that differs in anything from most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from proxy.model import File
from proxy.simple import mend
from proxy.simple.links import resolve_to_themselves, resolves_to_itself, without_plus
from proxy.simple.numbers import LARGEST

#: What file systems take is measured in bytes, and a plain URL is ASCII.
_LONGEST_NAME = 255
_SHA256_LENGTH = 64


class _Entry(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, gc=False):
    """An entry as PEP 691, 700, 714 and 740 have it, whatever the texts in it are."""

    filename: str
    url: str
    hashes: dict[str, str]
    requires_python: str | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] | None = None
    upload_time: str | None = None
    yanked: bool | str = False
    core_metadata: bool | dict[str, str] | None = None
    data_dist_info_metadata: Any = None
    dist_info_metadata: Any = None
    provenance: str | None = None
    gpg_sig: Any = None


class _Document(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, gc=False):
    """A page as PEP 691, 700 and 792 have it, whatever the texts in it are."""

    meta: dict[str, Any]
    name: str
    files: list[_Entry]
    versions: list[str]
    project_status: Any = None


_decode_page = msgspec.json.Decoder(_Document).decode
_decode = msgspec.json.Decoder(_Entry).decode
_decode_all = msgspec.json.Decoder(list[_Entry]).decode
_NOT_PLAIN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, LookupError)


def plain_files(raws: Sequence[msgspec.Raw]) -> list[File] | None:
    """The files that *raws* state, if none of them has anything that has to be mended; as :func:`plain_file`, all at once.

    A check of all of them takes little longer than one of a few.
    """
    try:
        return _files(_decode_all(b"[%b]" % b",".join(map(bytes, raws))))
    except _NOT_PLAIN:
        return None


def plain_page(body: bytes) -> tuple[dict[str, Any], list[File]] | None:
    """The page in *body*, if that has no more than most have: what it states besides its files, and these as `plain_files`.

    All of it is decoded in one call, which keeps all other threads waiting: for small pages.
    """
    try:
        page = _decode_page(body)
        files = _files(page.files)
    except _NOT_PLAIN:
        return None
    if files is None:
        return None
    stated = {"meta": page.meta, "name": page.name, "versions": page.versions, "project-status": page.project_status}
    return stated, files


def _files(entries: Sequence[_Entry]) -> list[File] | None:
    """The files of *entries*, of which there are some, if nothing has to be mended; ``None`` or one of _NOT_PLAIN if it has."""
    names, urls = [each.filename for each in entries], [each.url for each in entries]
    stated = [each.hashes for each in entries]
    stated += [each.core_metadata for each in entries if isinstance(each.core_metadata, dict)]
    digests = [each["sha256"] for each in stated]
    if {*map(len, stated)} != {1} or {*map(len, digests)} != {_SHA256_LENGTH}:
        return None
    joined = "".join(digests)
    if bytes.fromhex(joined).hex() != joined or not resolve_to_themselves(urls):
        return None
    # As for one: such URLs have no odd characters, and so the names have none.
    if "/" in "".join(names) or max(map(len, names)) > _LONGEST_NAME:
        return None
    if [url for url, name in zip(urls, names, strict=True) if not url.endswith(f"/{name}")]:
        return None
    times = mend.upload_times([each.upload_time for each in entries])
    files = []
    for each, url, time in zip(entries, urls, times, strict=True):
        if each.core_metadata is None:
            return None  # it may be stated under an earlier name
        files.append(
            File(
                each.filename,
                without_plus(url),
                each.hashes,
                mend.requires_python(each.requires_python) if each.requires_python else None,
                each.size,
                time,
                mend.yanked(each.yanked) if each.yanked else False,
                each.core_metadata,
                mend.provenance(each.provenance) if each.provenance else None,
            )
        )
    return files


def plain_file(raw: msgspec.Raw) -> File | None:
    """The file that *raw* states, if it has nothing that has to be mended."""
    try:
        entry = _decode(raw)
        name, url, hashes, metadata = entry.filename, entry.url, entry.hashes, entry.core_metadata
        digests = hashes["sha256"]
        if len(digests) != _SHA256_LENGTH or len(hashes) != 1:
            return None
        if isinstance(metadata, dict):
            digests += metadata["sha256"]
            if len(digests) != 2 * _SHA256_LENGTH or len(metadata) != 1:
                return None
        elif metadata is None:
            return None  # it may be stated under an earlier name
        if bytes.fromhex(digests).hex() != digests or not resolves_to_itself(url):
            return None
        # Such a URL has no odd characters, and so its last segment has none, which is the name.
        if url[-len(name) - 1 :] != f"/{name}" or "/" in name or len(name) > _LONGEST_NAME:
            return None
    except _NOT_PLAIN:
        return None
    return File(
        name,
        without_plus(url),
        hashes,
        mend.requires_python(entry.requires_python) if entry.requires_python else None,
        entry.size,
        mend.upload_time(entry.upload_time),
        mend.yanked(entry.yanked) if entry.yanked else False,
        metadata,
        mend.provenance(entry.provenance) if entry.provenance else None,
    )

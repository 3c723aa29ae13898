"""The legacy JSON API (``/pypi/<project>/json``) with files as the project page offers them: same links, digests and policy.

Clients that still use it want digests (pip-tools, hashin) or versions; for an index that has no such API the document is made
out of the page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from packaging.version import InvalidVersion, Version

from proxy.model import File, Page
from proxy.names import is_wheel, normal_version, tags_of, version_of
from proxy.simple.from_json import of_few_values
from proxy.simple.links import without_secrets, without_users
from proxy.simple.render import Link

_document = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def rewritten(body: bytes, page: Page, link: Link) -> bytes:
    """Upstream's document *body* with the files that *page* offers, their URLs as *link* gives them.

    A file that the page does not list is left out, and so are versions that it withholds.  No URL in it bears user information.
    Raises ValueError when *body* is no such document, or describes a version that is withheld.
    """
    try:
        return _encode(_rewritten(_document.decode(of_few_values(body)), page, link))
    except (msgspec.MsgspecError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _rewritten(document: dict[str, Any], page: Page, link: Link) -> dict[str, Any]:
    offered = {file.filename: file for file in page.files}

    def entries(stated: Any) -> list[dict[str, Any]]:
        listed = stated if isinstance(stated, list) else []
        return [
            _linked(entry, file, link)
            for entry in listed
            if isinstance(entry, dict)
            and isinstance(name := entry.get("filename"), str)
            and (file := offered.get(name)) is not None
        ]

    info = document.get("info")
    if isinstance(info, dict) and _version_in(info.get("version"), page.withheld):
        raise ValueError("it describes a version that is withheld")
    document = {key: value if key in ("urls", "releases") else without_users(value) for key, value in document.items()}
    if "urls" in document:
        document["urls"] = entries(document["urls"])
    releases = document.get("releases")
    if isinstance(releases, dict):
        document["releases"] = {
            version: entries(stated) for version, stated in releases.items() if not _version_in(version, page.withheld)
        }
    return document


def _version_in(version: object, versions: Collection[str]) -> bool:
    """Whether *version* as upstream spells it is one of *versions*."""
    return bool(versions) and isinstance(version, str) and normal_version(version) in versions


def _linked(entry: Mapping[str, Any], file: File, link: Link) -> dict[str, Any]:
    """*entry* with the URL we serve *file* at.  Where its digests contradict the page's, the page's hold."""
    stated = entry.get("digests")
    digests = stated if isinstance(stated, dict) else {}
    agree = all(digests.get(algorithm, value) == value for algorithm, value in file.hashes.items())
    digests = {**digests, **file.hashes} if agree else dict(file.hashes)
    return {**without_secrets(entry), "url": link(file), "digests": digests, "md5_digest": digests.get("md5")}


def from_page(page: Page, version: str | None, link: Link) -> bytes | None:
    """The document of *page*, or of one *version* of it; ``None`` when the page lists no file of that version."""
    releases: dict[Version, list[File]] = {}
    for file in page.files:
        parsed = version_of(file.filename)
        if parsed is not None:
            releases.setdefault(parsed, []).append(file)
    if version is None:
        chosen = _latest(releases)
    else:
        try:
            chosen = Version(version)
        except InvalidVersion:
            return None
        if chosen not in releases:
            return None
    files = releases.get(chosen, []) if chosen is not None else []
    requires = next((file.requires_python for file in files if file.requires_python), None)
    document: dict[str, Any] = {
        "info": {
            "name": page.project,
            "version": str(chosen or ""),
            "requires_python": requires or "",
            "yanked": bool(files) and all(file.yanked is not False for file in files),
            "yanked_reason": next((file.yanked for file in files if isinstance(file.yanked, str)), None),
        },
        "last_serial": page.meta_extra.get("_last-serial", 0),
        "urls": [_entry(file, link) for file in files],
        "vulnerabilities": [],
    }
    if version is None:
        document["releases"] = {str(each): [_entry(file, link) for file in there] for each, there in sorted(releases.items())}
    return _encode(document)


def _latest(releases: Mapping[Version, list[File]]) -> Version | None:
    """What an installer would take: the newest that is neither a pre-release nor yanked, if there is one."""

    def rank(version: Version) -> tuple[bool, bool, Version]:
        offered = any(file.yanked is False for file in releases[version])
        return offered, not version.is_prerelease, version

    return max(releases, key=rank, default=None)


def _entry(file: File, link: Link) -> dict[str, Any]:
    wheel, tags = is_wheel(file.filename), tags_of(file.filename)
    moment = (file.upload_time or "").removesuffix("Z").partition(".")[0]
    return {
        "comment_text": "",
        "digests": dict(file.hashes),
        "filename": file.filename,
        "has_sig": False,
        "md5_digest": file.hashes.get("md5"),
        "packagetype": "bdist_wheel" if wheel else "sdist",
        "python_version": "source" if tags is None else tags.partition("-")[0],
        "requires_python": file.requires_python,
        "size": file.size,
        "upload_time": moment or None,
        "upload_time_iso_8601": file.upload_time,
        "url": link(file),
        "yanked": file.yanked is not False,
        "yanked_reason": file.yanked if isinstance(file.yanked, str) else None,
    }

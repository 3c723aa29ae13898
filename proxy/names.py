"""What text from outside must be before it becomes part of a URL, a key or a path: names, versions, digests.

Each ``is_…`` function takes any text, however long, in time proportional to its length.
"""

from __future__ import annotations

import re

from packaging.version import InvalidVersion, Version

from proxy.model import DIGEST_LENGTHS

_SEPARATORS = re.compile(r"[-_.]+")
_PROJECT = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)
#: Every version of PEP 440, and those that were written before it.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_HEX = re.compile(r"[0-9a-f]+")
#: Separators of paths, control characters, and halves of surrogate pairs, which no encoding can carry.
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: What nearly all file names look like.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~-]{0,200}")

#: The longest file name that common file systems take, in bytes.
_LONGEST = 255
#: The longest name of a project: that of its shortest source archive is a file name then.
_LONGEST_PROJECT = _LONGEST - len("-0.tar.gz")
#: The longest version: of a project with a name of one letter, it still makes a file name.
_LONGEST_VERSION = _LONGEST - len("a-.tar.gz")

#: What the names of a file's companions end in (PEP 658, PEP 740).
_COMPANIONS = (".metadata", ".provenance")

#: Kinds of distributions by the endings of their names.
_KINDS = {
    "wheel": (".whl",),
    "sdist": (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz", ".tar.z", ".tar"),
    "egg": (".egg",),
    "installer": (".exe", ".msi", ".rpm", ".deb", ".dmg"),
}

#: The digest segment of a file's URL when its page states no digest.
UNSTATED = "none"


def normalize(name: str) -> str:
    """The one spelling of a project's name (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def is_project_name(name: str) -> bool:
    """Whether *name* is one that a project may have (PEP 508), of at most 246 characters."""
    return len(name) <= _LONGEST_PROJECT and _PROJECT.fullmatch(name) is not None


def is_version(text: str) -> bool:
    """Whether *text* can be the version of a release: of PEP 440 or older, as one segment of a path that needs no quoting."""
    return len(text) <= _LONGEST_VERSION and _VERSION.fullmatch(text) is not None


def normal_version(text: str) -> str:
    """The normal form (PEP 440) of a version, or *text* itself where it is none."""
    try:
        return str(Version(text))
    except InvalidVersion:
        return text


def is_digest(segment: str) -> bool:
    """Whether *segment* is a digest as file URLs have it: ``<algorithm>-<hex>`` of the right length, or :data:`UNSTATED`."""
    algorithm, _, value = segment.partition("-")
    return segment == UNSTATED or (len(value) == DIGEST_LENGTHS.get(algorithm) and _HEX.fullmatch(value) is not None)


def is_filename(name: str) -> bool:
    """Whether *name* is safe as a segment of a URL and of a path: not empty, at most 255 bytes in UTF-8, one segment."""
    if len(name) > _LONGEST:
        return False
    return is_plain(name) or (name not in ("", ".", "..") and not _UNSAFE.search(name) and len(name.encode()) <= _LONGEST)


def is_served_name(name: str) -> bool:
    """Whether *name* is that of a file, or of one of its companions, which may be longer than a file's."""
    stems = (name.removesuffix(each) for each in _COMPANIONS if name.endswith(each))
    return is_filename(name) or any(map(is_filename, stems))


def kind_of(filename: str) -> str | None:
    """What kind of distribution *filename* is, by its ending: ``wheel``, ``sdist``, ``egg`` or ``installer``."""
    ending = filename.lower()
    return next((kind for kind, endings in _KINDS.items() if ending.endswith(endings)), None)


def is_plain(name: str) -> bool:
    """Whether *name* is a file name that a URL can hold as it is, as nearly all are."""
    return _PLAIN.fullmatch(name) is not None

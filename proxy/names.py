"""Names of projects and of files: what they may look like and which are the same."""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[-_.]+")
_PROJECT = re.compile(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)
#: Separators of paths, control characters, and halves of surrogate pairs, which no encoding can carry.
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: What nearly all file names look like.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!~-]{0,200}")

#: The longest file name that common file systems take, in bytes.
_LONGEST = 255

#: What the names of a file's companions end in (PEP 658, PEP 740).
_COMPANIONS = (".metadata", ".provenance")


def normalize(name: str) -> str:
    """The one spelling of a project's name (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def is_project_name(name: str) -> bool:
    """Whether *name* is one that a project may have (PEP 508)."""
    return _PROJECT.fullmatch(name) is not None


def is_filename(name: str) -> bool:
    """Whether *name* is safe as a segment of a URL and of a path: not empty, at most 255 bytes in UTF-8, one segment."""
    return is_plain(name) or (name not in ("", ".", "..") and not _UNSAFE.search(name) and len(name.encode()) <= _LONGEST)


def is_served_name(name: str) -> bool:
    """Whether *name* is that of a file, or of one of its companions, which may be longer than a file's."""
    stems = (name.removesuffix(each) for each in _COMPANIONS if name.endswith(each))
    return is_filename(name) or any(map(is_filename, stems))


def is_plain(name: str) -> bool:
    """Whether *name* is a file name that a URL can hold as it is, as nearly all are."""
    return _PLAIN.fullmatch(name) is not None

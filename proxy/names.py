"""Names: what text from outside must be before it becomes part of a URL, a key or a path; what a file name says.

Each ``is_…`` function takes any text, however long, in time proportional to its length.  The name of a distribution file states
its project, its version, and of a wheel the tags (PEP 427, PEP 625); its companions are named after it (PEP 658, PEP 740).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.expressions import expression
from proxy.model import DIGEST_LENGTHS

if TYPE_CHECKING:
    # It takes a while to load, which is for the first name that is looked into.
    from packaging.tags import Tag
    from packaging.version import Version

_SEPARATORS = expression(r"[-_.]+")
_PROJECT = expression(r"[A-Z0-9](?:[A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)
#: Every version of PEP 440, and those that were written before it.
_VERSION = expression(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_HEX = expression(r"[0-9a-f]+")
#: Separators of paths, control characters, and halves of surrogate pairs, which no encoding can carry.
_UNSAFE = expression(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: What nearly all file names look like.
_PLAIN_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+!~-]{0,200}"
_PLAIN = expression(_PLAIN_NAME)
_ALL_PLAIN = expression(rf"(?:{_PLAIN_NAME}\n)*{_PLAIN_NAME}")

#: The longest file name that common file systems take, in bytes.
_LONGEST = 255
#: The longest name of a project: that of its shortest source archive is a file name then.
_LONGEST_PROJECT = _LONGEST - len("-0.tar.gz")
#: The longest version: of a project with a name of one letter, it still makes a file name.
_LONGEST_VERSION = _LONGEST - len("a-.tar.gz")

#: What the names of a file's companions end in (PEP 658, PEP 740).
METADATA = ".metadata"
PROVENANCE = ".provenance"
_COMPANIONS = (METADATA, PROVENANCE)

_WHEEL = ".whl"
#: Kinds of distributions by the endings of their names.
_KINDS = {
    "wheel": (_WHEEL,),
    "sdist": (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz", ".tar.z", ".tar"),
    "egg": (".egg",),
    "installer": (".exe", ".msi", ".rpm", ".deb", ".dmg"),
}

#: How distributions are packed, by the endings of their names.
_PACKINGS = {
    "zip": (_WHEEL, ".zip", ".egg"),
    "tar.gz": (".tar.gz", ".tgz"),
    "tar.bz2": (".tar.bz2", ".tbz2", ".tbz"),
    "tar.xz": (".tar.xz", ".txz", ".tar.lzma", ".tlz"),
    "tar": (".tar",),
}
#: Endings of what indexes hold, the oldest kinds included; everything else that a page links to is no file.
_HELD = (
    *(ending for endings in _KINDS.values() for ending in endings),
    *(".tbz", ".txz", ".tar.lz", ".tar.lzma", ".tar.zst"),
)

#: The digest segment of a file's URL when its page states no digest.
UNSTATED = "none"


def normalize(name: str) -> str:
    """The one spelling of a project's name (PEP 503)."""
    # Lists of names have 700,000 of them: all but a few need no regular expression.
    normal = name.lower().replace("_", "-").replace(".", "-")
    return _SEPARATORS.sub("-", normal) if "--" in normal else normal


def is_project_name(name: str) -> bool:
    """Whether *name* is one that a project may have (PEP 508), of at most 246 characters."""
    return len(name) <= _LONGEST_PROJECT and _PROJECT.fullmatch(name) is not None


def is_version(text: str) -> bool:
    """Whether *text* can be the version of a release: of PEP 440 or older, as one segment of a path that needs no quoting."""
    return len(text) <= _LONGEST_VERSION and _VERSION.fullmatch(text) is not None


def normal_version(text: str) -> str:
    """The normal form (PEP 440) of a version, or *text* itself where it is none."""
    from packaging.version import Version

    try:
        return str(Version(text))
    except ValueError:
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
    return is_filename(name) or any(is_filename(companion_of(name, each) or "") for each in _COMPANIONS)


def kind_of(filename: str) -> str | None:
    """What kind of distribution *filename* is, by its ending: ``wheel``, ``sdist``, ``egg`` or ``installer``."""
    ending = filename.lower()
    return next((kind for kind, endings in _KINDS.items() if ending.endswith(endings)), None)


def packing_of(filename: str) -> str | None:
    """How the distribution *filename* is packed, by its ending: ``zip``, ``tar`` or ``tar.gz``, ``tar.bz2``, ``tar.xz``."""
    ending = filename.lower()
    return next((packing for packing, endings in _PACKINGS.items() if ending.endswith(endings)), None)


def is_distribution(filename: str) -> bool:
    """Whether *filename* ends as distributions of any kind do, those included that no installer has taken for long."""
    return filename.lower().endswith(_HELD)


def is_wheel(filename: str) -> bool:
    """Whether *filename* is that of a wheel, by its ending as installers look at it."""
    return filename.endswith(_WHEEL)


def version_of(filename: str) -> Version | None:
    """The version that the name of a wheel (PEP 427) or sdist (PEP 625) states, ``None`` when it states none."""
    from packaging.utils import parse_sdist_filename, parse_wheel_filename

    try:
        return parse_wheel_filename(filename)[1] if is_wheel(filename) else parse_sdist_filename(filename)[1]
    except ValueError:
        return None


def project_of(filename: str) -> str:
    """The normalised name of the project that the name of a wheel begins with."""
    return normalize(filename.partition("-")[0])


def tags_of(filename: str) -> str | None:
    """The tags of a wheel (PEP 425) as its name has them, ``py3-none-any``; ``None`` for what is no wheel."""
    return "-".join(filename.split("-")[-3:]).removesuffix(_WHEEL) if is_wheel(filename) and filename.count("-") >= 4 else None


def build_and_tags(filename: str) -> tuple[tuple[()] | tuple[int, str], frozenset[Tag]] | None:
    """The build number of a wheel (``()`` for none) and each of its tags (PEP 427); ``None`` for what is no wheel."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    return build, tags


def companion_name(asked: str, filename: str, companion: str) -> str:
    """The name of a companion in the ledger.  *asked*, the digest segment, says of which bytes it is."""
    return f"{asked}/{filename}{companion}"


def metadata_name(asked: str, filename: str) -> str:
    """:func:`companion_name` of the metadata of *filename*."""
    return companion_name(asked, filename, METADATA)


def filename_of(name: str) -> str:
    """The file that *name* in the ledger belongs to: its own name, or that of the file it is a companion of."""
    return name.partition("/")[2].removesuffix(METADATA) if "/" in name else name


def companion_of(name: str, companion: str) -> str | None:
    """The file whose *companion* the last segment of a URL asks for, ``None`` when *name* asks for something else."""
    return name.removesuffix(companion) if name.endswith(companion) and name != companion else None


def is_plain(name: str) -> bool:
    """Whether *name* is a file name that a URL can hold as it is, as nearly all are."""
    return _PLAIN.fullmatch(name) is not None


def are_plain(names: Sequence[str]) -> bool:
    """Whether :func:`is_plain` holds for each of *names*; it takes a fraction of the time of looking at one after another."""
    together = "\n".join(names)
    return not names or (together.count("\n") == len(names) - 1 and _ALL_PLAIN.fullmatch(together) is not None)

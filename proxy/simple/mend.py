"""What upstreams send wrongly, mended value by value, so that no client rejects a whole page for one bad value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import unquote

from proxy.expressions import expression
from proxy.model import DIGEST_LENGTHS, EMPTY, IMPOSSIBLE, File, strongest
from proxy.simple.links import LONGEST
from proxy.simple.numbers import in_bounds, whole
from proxy.simple.requires_python import repaired

#: How deep a value may nest that this proxy does not know and passes on.
_DEEPEST = 32
#: The longest version that is passed on (characters).
_LONGEST_VERSION = 255

#: What divides a fragment; clients look for digests behind a second ``#`` too.
_FRAGMENT_PARTS = re.compile(r"[#&]")
_HEX = re.compile(r"[0-9a-fA-F]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WITH_MICROSECONDS = len("2026-01-02T03:04:05.678901Z")
_SEPARATORS = "--T::."
_IN_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
_ALL_IN_UTC = expression(rf"(?:{_IN_UTC.pattern}\n)*+")


def digests(value: object) -> Mapping[str, str]:
    """The digests in *value* that can be what they say, in lower case; :data:`IMPOSSIBLE` when there are none but others.

    Nothing is stated by ``None`` and by names that are not known here (which are passed on); a length is known for known names.
    """
    if value is None:
        return EMPTY
    if not isinstance(value, dict):
        return IMPOSSIBLE
    if len(value) == 1 and isinstance(sha256 := value.get("sha256"), str) and _SHA256.fullmatch(sha256):
        return cast("dict[str, str]", value)  # nothing to mend, as on nearly every page
    named = {algorithm.lower(): text for algorithm, text in value.items()}
    found = {
        algorithm: text.lower()
        for algorithm, text in named.items()
        if isinstance(text, str) and len(text) == DIGEST_LENGTHS.get(algorithm, len(text)) and _HEX.fullmatch(text)
    }
    return IMPOSSIBLE if strongest(found) is None and not DIGEST_LENGTHS.keys().isdisjoint(named) else found


def fragment(text: str) -> Mapping[str, str] | None:
    """The digests that the fragment *text* of a link states, as they stand there; ``None``: it states none.

    Of two values under one name the first counts, as for pip.  Some indexes percent-encode the equals sign.
    """
    if not text:
        return None
    stated: dict[str, str] = {}
    for part in _FRAGMENT_PARTS.split(unquote(text)):
        name, equals, value = part.partition("=")
        if equals and (name := name.strip().lower()) in DIGEST_LENGTHS:
            stated.setdefault(name, value.strip())
    return stated or None


def told_apart(files: list[File]) -> tuple[tuple[File, ...], tuple[File, ...]]:
    """*files* without those whose bytes cannot be verified, and these."""
    unverifiable = tuple(file for file in files if file.hashes is IMPOSSIBLE)
    if not unverifiable:
        return tuple(files), ()
    return tuple(file for file in files if file.hashes is not IMPOSSIBLE), unverifiable


def stated_size(value: object) -> int | None:
    """A size in bytes (PEP 700), also when it is written as text."""
    return whole(value) if isinstance(value, str) else in_bounds(value)


def upload_times(values: Sequence[str | None]) -> list[str | None]:
    """Each of *values* as :func:`upload_time` has it.  Where there is nothing to mend, this takes a third of the time."""
    stated = [value for value in values if value is not None]
    try:
        for value in stated:
            datetime.fromisoformat(value)
    except ValueError:
        return list(map(upload_time, values))
    if all(value[4:20:3] == _SEPARATORS and value[-1] == "Z" and len(value) == _WITH_MICROSECONDS for value in stated):
        return list(values)  # as for one
    # What can be read has no line end in it.
    return list(values) if _ALL_IN_UTC.fullmatch("\n".join([*stated, ""])) else list(map(upload_time, values))


def upload_time(value: object) -> str | None:
    """A time in UTC that ends in ``Z`` (PEP 700), or nothing.  A time without a zone is in UTC already."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        # A time whose separators stand there has digits everywhere else.  So it is on most pages, and this takes half the time.
        if (value[4:20:3] == _SEPARATORS and value[-1] == "Z" and len(value) == _WITH_MICROSECONDS) or _IN_UTC.fullmatch(value):
            return value
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=None).isoformat() + "Z"


def yanked(value: object) -> bool | str:
    """PEP 592: a JSON string is a reason and never empty; an empty one was meant as no reason to yank."""
    return value if isinstance(value, str) and value else bool(value)


def requires_python(value: object) -> str | None:
    """A specifier that clients can read (PEP 345), or nothing: uv drops a file for one it cannot."""
    return repaired(value) if isinstance(value, str) else None


def core_metadata(value: object) -> bool | Mapping[str, str] | None:
    """PEP 658 and PEP 714: absent, a boolean, or digests; metadata whose digests are none cannot be believed to be there."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, dict) or (found := digests(value)) is IMPOSSIBLE:
        return None
    return found or True


def provenance(value: object) -> str | None:
    """PEP 740: an absolute https URL."""
    return value if isinstance(value, str) and value.startswith("https://") and len(value) <= LONGEST else None


def status(value: object) -> Mapping[str, Any] | None:
    """PEP 792's ``project-status``: a mapping with at least a ``status``; a reason that is no text is left out."""
    if not isinstance(value, Mapping) or not isinstance(value.get("status"), str):
        return None
    return {key: text for key, text in unknown(value).items() if key != "reason" or isinstance(text, str)}


def versions(value: object) -> tuple[str, ...]:
    """The texts in *value* that can be versions (PEP 700)."""
    listed = value if isinstance(value, list) else []
    return tuple(each for each in listed if isinstance(each, str) and len(each) <= _LONGEST_VERSION)


def serial(value: object) -> int | None:
    """``_last-serial``, ``None`` when it is no number that a serial can be."""
    return in_bounds(value)


def unknown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of *values*, which this proxy does not know, that can be passed on: none that nests deeper than what is encoded."""
    return {key: value for key, value in values.items() if not _is_deeper(value, _DEEPEST)}


def _is_deeper(value: object, depth: int) -> bool:
    """Whether *value* nests deeper than *depth*."""
    if not isinstance(value, dict | list):
        return False
    return not depth or any(_is_deeper(each, depth - 1) for each in (value.values() if isinstance(value, dict) else value))

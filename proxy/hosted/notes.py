"""The JSON file beside each file of a hosted index: what the file itself does not contain.

It is made for operators as well: they read it, back it up, and may edit ``yanked``.  Keys that are not known here stay.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.errors import BadUpload
from proxy.model import EMPTY

#: What the name of the JSON file of a file ends in.
NOTE = ".json"
#: The largest that is read (bytes): attestations are a few KiB each.
LARGEST_NOTE = 4 * 1024 * 1024
#: The statuses of a project (PEP 792).
STATUSES = ("active", "archived", "deprecated", "quarantined")
#: Those of projects that take no new files.
CLOSED = ("archived", "quarantined")


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a file.

    ``sha256`` and ``size`` are of its bytes, ``mtime_ns`` is the time of the file that these were read from: a file with
    another size or time is looked at again.  ``upload_time`` is that of PEP 700.  ``digests`` are others than sha256.
    ``requires_python`` and ``metadata`` (the sha256 of METADATA, of wheels only) are read from the file.  ``yanked`` is
    ``false``, ``true`` or the reason (PEP 592); ``attestations`` are those of PEP 740.
    """

    sha256: str
    size: int
    mtime_ns: int
    upload_time: str
    uploader: str | None = None
    digests: Mapping[str, str] = EMPTY
    requires_python: str | None = None
    metadata: str | None = None
    yanked: bool | str = False
    attestations: tuple[Any, ...] = ()
    others: Mapping[str, Any] = EMPTY


class ProjectStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The status of a project and its reason (PEP 792)."""

    status: str
    reason: str | None = None


def read_note(data: bytes) -> Note:
    """The note in *data*.  Raises ValueError, which says what is wrong."""
    try:
        values = msgspec.json.decode(data, type=dict[str, Any])
        values["others"] = {key: values.pop(key) for key in values.keys() - set(Note.__struct_fields__)}
        note = msgspec.convert(values, Note)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if len(note.sha256) != 64 or set(note.sha256) - set("0123456789abcdef"):
        raise ValueError("its sha256 is no digest")
    moment_of(note.upload_time)
    return note


def written_note(note: Note) -> bytes:
    """*note* as its file has it."""
    values = msgspec.to_builtins(note)
    others = values.pop("others", {})
    return msgspec.json.format(msgspec.json.encode({**values, **others}), indent=2) + b"\n"


def read_status(data: bytes) -> ProjectStatus:
    """The status in *data*.  Raises ValueError, which says what is wrong."""
    try:
        status = msgspec.json.decode(data, type=ProjectStatus)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if status.status not in STATUSES:
        raise ValueError(f"its status {status.status[:50]!r} is none of {', '.join(STATUSES)}")
    return status


def read_attestations(text: str) -> tuple[Any, ...]:
    """The attestations (PEP 740) that an upload brings.  Raises BadUpload for what is no list of objects."""
    try:
        found = msgspec.json.decode(text, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadUpload(f"its attestations are no JSON list of objects: {str(error)[:200]}") from error
    return tuple(found)


def stamp(moment: float) -> str:
    """*moment* (seconds since the epoch) as PEP 700 writes it."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str) -> float:
    """The moment that *text* writes, as :func:`stamp`.  Raises ValueError."""
    if not text.endswith("Z"):
        raise ValueError("its upload_time does not end in Z")
    return datetime.datetime.fromisoformat(text).timestamp()

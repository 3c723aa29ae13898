"""The format of a backup: what a data directory holds, in an archive as :mod:`proxy.bundle.members` has it.

====================================  ==========================================================================
``backup.json``                       :class:`BackupManifest`
``ledger/<sha256>``                   the database of the ledger: entries, sightings, pinned files
``records/<sha256>``                  many records of pages and documents: MessagePack, pairs of key and value
``files/<sha256>``                    a stored file, with the time of its last use, in a backup with files
``hosted/<sha256>``                   in version 2: directories of hosted indexes (:mod:`proxy.bundle.hosted_tree`)
``end/<sha256>``                      :class:`BackupEnd`: without it, the backup has been cut off
====================================  ==========================================================================

All but the manifest are named by the SHA-256 of their bytes.
"""

from __future__ import annotations

import enum
import re

import msgspec
from msgspec import Struct

from proxy.errors import BadBundle
from proxy.storage.marker import FORMAT as _DATA_FORMAT

FORMAT = "pypiproxy-backup"
#: The newest version, and the one of a backup without hosted indexes: earlier versions of pypiproxy read only that.
VERSION = 2
WITHOUT_HOSTED = 1
MANIFEST = "backup.json"

_NAME = re.compile(r"(ledger|records|files|hosted|end)/([0-9a-f]{64})", re.ASCII)


class BackupKind(enum.Enum):
    """What a member holds."""

    LEDGER = "ledger"
    RECORDS = "records"
    FILE = "files"
    HOSTED = "hosted"
    END = "end"


class BackupManifest(Struct, frozen=True):
    """What a backup says of itself: ``data_format`` is that of the data directory, ``created`` in seconds since the epoch."""

    format: str
    version: int
    data_format: int
    created: float


class BackupEnd(Struct, frozen=True):
    """How many members of records and of files came before, and the sha256 of files that were damaged already."""

    records: int
    files: int
    damaged: list[str]
    hosted: int = 0


Records = list[tuple[str, bytes]]

encode_part = msgspec.json.Encoder().encode
encode_records = msgspec.msgpack.Encoder().encode
_manifest = msgspec.json.Decoder(BackupManifest)
_end = msgspec.json.Decoder(BackupEnd)
_records = msgspec.msgpack.Decoder(Records)


def backup_entry_of(name: str) -> tuple[BackupKind, str]:
    """What the member *name* is, and its sha256.  Raises BadBundle for any name that no backup has."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise BadBundle(
            f"it has a member named {name[:200]!r}, and no backup has such a one: it was not made by pypiproxy backup"
        )
    return BackupKind(found[1]), found[2]


def read_backup_manifest(data: bytes) -> BackupManifest:
    """Raises BadBundle, for a backup of another format too."""
    try:
        manifest = _manifest.decode(data)
    except msgspec.MsgspecError as error:
        raise BadBundle(f"its {MANIFEST} cannot be understood ({error}): it was not made by pypiproxy backup") from error
    if manifest.format != FORMAT or manifest.version not in (WITHOUT_HOSTED, VERSION):
        raise BadBundle(
            f"it has format {manifest.format!r}, version {manifest.version}; expected {FORMAT!r}, version {WITHOUT_HOSTED} or "
            f"{VERSION}"
        )
    if manifest.data_format != _DATA_FORMAT:
        raise BadBundle(
            f"its data has format {manifest.data_format}, and that of this version is {_DATA_FORMAT}: restore it with the "
            "version that made it"
        )
    return manifest


def read_backup_end(data: bytes) -> BackupEnd:
    """Raises BadBundle."""
    try:
        return _end.decode(data)
    except msgspec.MsgspecError as error:
        raise BadBundle(f"its end cannot be understood ({error}): copy it again") from error


def read_records(data: bytes) -> Records:
    """Raises BadBundle."""
    try:
        return _records.decode(data)
    except msgspec.MsgspecError as error:
        raise BadBundle(f"its records cannot be understood ({error}): copy it again") from error

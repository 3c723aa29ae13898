"""The format of a bundle: a tar archive in one zstd frame, which is written and read in one go.

Its members, in this order, all of them plain files:

====================================  ==========================================================================
``manifest.json``                     :class:`Manifest`
``claims/<sha256>``                   from version 2 on: what hosted indexes have claimed, as JSON
``indexes/<sha256>``                  in version 3: :class:`Section`, the index that the members after it belong to
``heads/<project>/<sha256>``          the head of a page's record, as JSON; its body follows at once
``pages/<project>/<sha256>``          the body, as upstream sent it
``pins/<project>/<sha256>``           the ledger entries of the files in the bundle, as JSON
``files/<sha256>``                    companions, then files
``hosted/<project>/<sha256>``         :class:`HostedFile`: a file of a hosted index; its ``files/<sha256>`` follows at once
``status/<project>/<sha256>``         the status of a hosted project (PEP 792), after its files
``end/<sha256>``                      :class:`End`: without it, the bundle has been cut off
====================================  ==========================================================================

All but the manifest are named by the SHA-256 of their bytes, so that nothing in a bundle is taken on trust.
"""

from __future__ import annotations

import enum
import re

import msgspec
from msgspec import Struct

from proxy.core.claims import NameClaim
from proxy.errors import BadBundle
from proxy.hosted.notes import Note, ProjectStatus, moment_of, read_status
from proxy.model import NO_BYTES, Head, LedgerEntry
from proxy.names import is_digest, is_distribution, is_project_name, is_served_name, normalize

FORMAT = "pypiproxy-bundle"

#: The newest version, of bundles of hosted and group indexes; the one of a bundle of a proxy index, with claims or without:
#: earlier versions of pypiproxy read only these.
VERSION = 3
WITH_CLAIMS = 2
WITHOUT_CLAIMS = 1

MANIFEST = "manifest.json"

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"(?:(heads|pages|pins|hosted|status)/([^/]+)|(claims|indexes|files|end))/([0-9a-f]{64})", re.ASCII)


class Kind(enum.Enum):
    """What a member holds."""

    CLAIMS = "claims"
    HEAD = "heads"
    PAGE = "pages"
    PINS = "pins"
    SECTION = "indexes"
    HOSTED = "hosted"
    STATUS = "status"
    FILE = "files"
    END = "end"


class Entry(Struct, frozen=True):
    """The name of a member.  ``project`` is normalised; claims, files and the end have none."""

    kind: Kind
    project: str
    sha256: str

    def __str__(self) -> str:
        return "/".join(filter(None, (self.kind.value, self.project, self.sha256)))


def entry_of(name: str) -> Entry:
    """What the member *name* is.  Raises BadBundle for any name that no bundle has: absolute ones, ``..``, others."""
    found = _NAME.fullmatch(name)
    if found is None or not (found[2] is None or (is_project_name(found[2]) and normalize(found[2]) == found[2])):
        raise BadBundle(
            f"it has a member named {name[:200]!r}, and no bundle has such a one: it was not made by pypiproxy export"
        )
    return Entry(Kind(found[1] or found[3]), found[2] or "", found[4])


class Section(Struct, frozen=True):
    """What follows belongs to the index *index*, which is of this *kind*: ``proxy`` or ``hosted``."""

    index: str
    kind: str


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a bundle says of itself.  ``created`` is in seconds since the epoch.

    ``sections`` are the indexes that it is made of; one of an earlier version is made of the proxy index ``index``.
    """

    format: str
    version: int
    index: str
    created: float
    sections: tuple[Section, ...] = ()


class HostedFile(Struct, frozen=True):
    """A file of a hosted index, with what is noted of it."""

    filename: str
    note: Note


class End(Struct, frozen=True):
    """How many pages and files came before."""

    pages: int
    files: int


encode = msgspec.json.Encoder().encode

_manifest = msgspec.json.Decoder(Manifest)
_head = msgspec.json.Decoder(Head)
_entries = msgspec.json.Decoder(dict[str, LedgerEntry])
_end = msgspec.json.Decoder(End)
_section = msgspec.json.Decoder(Section)
_hosted_file = msgspec.json.Decoder(HostedFile)
_claims = msgspec.json.Decoder(list[NameClaim])


def read_manifest(data: bytes) -> Manifest:
    """Raises BadBundle when *data* is no manifest, or one of a version that is not known here."""
    try:
        said = msgspec.json.decode(data)
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise BadBundle("it is no bundle: expected a file that pypiproxy export made")
        if said.get("version") not in (WITHOUT_CLAIMS, WITH_CLAIMS, VERSION):
            raise BadBundle(
                f"it is a bundle of version {said.get('version')!r}, and this pypiproxy reads versions {WITHOUT_CLAIMS} to "
                f"{VERSION}: use the same version of pypiproxy on both sides"
            )
        return _manifest.decode(data)
    except msgspec.MsgspecError as error:
        raise _unreadable(MANIFEST, error) from error


def read_head(entry: Entry, data: bytes) -> Head:
    """Raises BadBundle."""
    try:
        return _head.decode(data)
    except msgspec.MsgspecError as error:
        raise _unreadable(str(entry), error) from error


def read_entries(entry: Entry, data: bytes) -> dict[str, LedgerEntry]:
    """Ledger entries by the names they have in the ledger.  Raises BadBundle."""
    try:
        entries = _entries.decode(data)
    except msgspec.MsgspecError as error:
        raise _unreadable(str(entry), error) from error
    for name, recorded in entries.items():
        segment, slash, filename = name.rpartition("/")
        if (
            (slash and not is_digest(segment))
            or not is_served_name(filename)
            or not (recorded.sha256 == NO_BYTES or _SHA256.fullmatch(recorded.sha256))
        ):
            raise BadBundle(
                f"its {entry} records {name[:200]!r}, a name that no proxy records: it was not made by pypiproxy export"
            )
    return entries


def read_claims(entry: Entry, data: bytes) -> list[NameClaim]:
    """Raises BadBundle."""
    try:
        claims = _claims.decode(data)
    except msgspec.MsgspecError as error:
        raise _unreadable(str(entry), error) from error
    for each in claims:
        normal = is_project_name(each.project) and normalize(each.project) == each.project
        if not normal or not each.index or "/" in each.index:
            raise BadBundle(f"its {entry} claims {each.project[:200]!r}: it was not made by pypiproxy export")
    return claims


def read_section(entry: Entry, data: bytes) -> Section:
    """Raises BadBundle."""
    try:
        return _section.decode(data)
    except msgspec.MsgspecError as error:
        raise _unreadable(str(entry), error) from error


def read_hosted_file(entry: Entry, data: bytes) -> HostedFile:
    """Raises BadBundle."""
    try:
        found = _hosted_file.decode(data)
        moment_of(found.note.upload_time)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unreadable(str(entry), error) from error
    if not is_distribution(found.filename) or not is_served_name(found.filename) or not _SHA256.fullmatch(found.note.sha256):
        raise BadBundle(
            f"its {entry} is about {found.filename[:200]!r}, no file of a hosted index: it was not made by pypiproxy export"
        )
    return found


def read_project_status(entry: Entry, data: bytes) -> ProjectStatus:
    """Raises BadBundle."""
    try:
        return read_status(data)
    except ValueError as error:
        raise _unreadable(str(entry), error) from error


def read_end(entry: Entry, data: bytes) -> End:
    """Raises BadBundle."""
    try:
        return _end.decode(data)
    except msgspec.MsgspecError as error:
        raise _unreadable(str(entry), error) from error


def _unreadable(name: str, error: Exception) -> BadBundle:
    return BadBundle(f"its {name} cannot be understood ({error}): export it again")

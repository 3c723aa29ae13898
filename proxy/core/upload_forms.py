"""What the form of an upload has to state (the legacy upload API of Warehouse), and the `UploadForm` that it amounts to.

Everything here is text of a client.  What is returned has been parsed, and may become a part of a path, a key or a log line.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Literal

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from proxy.core.uploads import BLAKE2B_256, UploadForm
from proxy.errors import ActionGone, BadUpload
from proxy.names import is_plain, is_project_name, is_version, is_wheel, kind_of, normalize
from proxy.settings import KIB

#: The field with the file.
CONTENT = "content"
#: The fields that count, and how long each may be (bytes).  All others are read over: the file itself states what they say.
KEPT: Mapping[str, int] = {
    ":action": 64,
    "protocol_version": 16,
    "name": KIB,
    "version": KIB,
    "filetype": 64,
    "requires_python": 4 * KIB,
    "sha256_digest": 256,
    "md5_digest": 256,
    "blake2_256_digest": 256,
    "attestations": 256 * KIB,
}

_UPLOAD = "file_upload"
#: What older tools ask for besides, and what to do instead.
_GONE: Mapping[str, str] = {
    **dict.fromkeys(
        ("submit", "submit_pkg_info", "verify"), "projects need not be registered, the first upload does that: upload the files"
    ),
    "doc_upload": "this index holds no documentation: upload wheels and source archives",
}
#: The endings of source archives that are taken (PEP 527, PEP 625).
_SDISTS = (".tar.gz", ".zip")
#: The types of files that are taken, and the kinds of distributions that they stand for.
_TYPES: Mapping[str, str] = {"bdist_wheel": "wheel", "sdist": "sdist"}
#: The fields with digests: the algorithm and the bytes of each.
_DIGESTS: Mapping[str, tuple[str, int]] = {
    "sha256_digest": ("sha256", 32),
    "md5_digest": ("md5", 16),
    "blake2_256_digest": (BLAKE2B_256, 32),
}
#: distutils of Python 3.9 to 3.11 puts BLAKE2b of 64 bytes there, beside the right SHA-256, which is the one that is checked.
_MISLABELLED = ("blake2_256_digest", re.compile(r"[0-9a-f]{128}"))
_HEX = re.compile(r"[0-9a-fA-F]+")
_BASE64 = re.compile(r"([A-Za-z0-9_-]+)={0,2}")
#: What distutils sends for what it does not know.
_UNKNOWN = "UNKNOWN"
#: Characters of a client's text that an answer repeats.
_SHOWN = 80


class _Envelope(msgspec.Struct):
    statement: str
    signature: str


class _Attestation(msgspec.Struct):
    """One attestation (PEP 740)."""

    version: Literal[1]
    verification_material: dict[str, msgspec.Raw]
    envelope: _Envelope


class _Subject(msgspec.Struct):
    digest: dict[str, str]


class _Statement(msgspec.Struct):
    """What is attested (in-toto)."""

    subject: list[_Subject]


def check_filename(filename: str) -> None:
    """Raise BadUpload if *filename* is not that of a wheel or of a source archive."""
    if not is_plain(filename):
        raise BadUpload(
            f"{filename[:_SHOWN]!r} is no file name of at most 201 ASCII letters, digits and the characters - _ . + ! ~"
        )
    if not (is_wheel(filename) or filename.endswith(_SDISTS)):
        raise BadUpload(f"{filename} is neither a wheel (.whl) nor a source archive (.tar.gz, .zip)")


def check_action(fields: Mapping[str, str]) -> None:
    """Raise BadUpload if the form with *fields* asks for something other than the upload of a file, or ActionGone."""
    action = fields.get(":action", "")
    if action in _GONE:
        raise ActionGone(f":action={action}: {_GONE[action]}")
    if action != _UPLOAD:
        raise BadUpload(f"the form's field :action is {action[:_SHOWN]!r}: an upload says {_UPLOAD}")
    version = fields.get("protocol_version") or "1"
    if version != "1":
        raise BadUpload(f"the form's protocol_version is {version!r}: 1 is known here")


def project_named(fields: Mapping[str, str]) -> str:
    """The project, normalised, that the form with *fields* is about.  Raises BadUpload."""
    name = fields.get("name", "")
    if not is_project_name(name):
        raise BadUpload(f"the form's field name is {name[:_SHOWN]!r}, which is no name of a project")
    return normalize(name)


def upload_form(fields: Mapping[str, str], filename: str | None) -> UploadForm:
    """What the form with *fields* and the file *filename* states; ``None``: it has none.  Raises BadUpload, ActionGone."""
    check_action(fields)
    if filename is None:
        raise BadUpload(f"the form has no file in a field {CONTENT}")
    check_filename(filename)
    project = project_named(fields)
    version = _version(fields.get("version", ""))
    if not _is_release_of(filename, project, version):
        raise BadUpload(f"{filename} is not named after version {version} of {project}, which the form is about")
    kind = fields.get("filetype")
    if kind and _TYPES.get(kind) != kind_of(filename):
        raise BadUpload(f"the form's field filetype is {kind!r}, and {filename} is a {kind_of(filename)}")
    digests = {
        algorithm: _digest(field, text, size)
        for field, (algorithm, size) in _DIGESTS.items()
        if (text := fields.get(field)) and not (field == _MISLABELLED[0] and _MISLABELLED[1].fullmatch(text))
    }
    attestations = fields.get("attestations") or None
    if attestations is not None:
        _check_attestations(attestations, digests.get("sha256"))
    return UploadForm(
        filename,
        project,
        fields["name"],
        fields["version"],
        digests,
        _requires_python(fields.get("requires_python", "")),
        attestations,
    )


def _version(text: str) -> Version:
    try:
        if is_version(text):
            return Version(text)
    except InvalidVersion:
        pass
    raise BadUpload(f"the form's field version is {text[:_SHOWN]!r}, which is no version (PEP 440)")


def _is_release_of(filename: str, project: str, version: Version) -> bool:
    """Whether *filename* names *version* of *project*."""
    if is_wheel(filename):
        try:
            name, stated, _, _ = parse_wheel_filename(filename)
        except (InvalidWheelFilename, InvalidVersion) as error:
            raise BadUpload(f"{filename} is no name of a wheel (PEP 427): {error}") from error
        return name == project and stated == version
    stem = next(filename.removesuffix(ending) for ending in _SDISTS if filename.endswith(ending))
    # Older tools leave hyphens in the name and in the version.
    cuts = [place for place, character in enumerate(stem) if character == "-"]
    return any(normalize(stem[:cut]) == project and _is(stem[cut + 1 :], version) for cut in cuts)


def _is(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:
        return False


def _digest(field: str, text: str, size: int) -> str:
    """The digest of *size* bytes in *text*, in hex; setuptools and twine send MD5 in the base64 of URLs."""
    if len(text) == 2 * size and _HEX.fullmatch(text):
        return text.lower()
    encoded = _BASE64.fullmatch(text)
    if encoded is not None and len(encoded[1]) == -(-size * 8 // 6):
        return base64.urlsafe_b64decode(encoded[1] + "=" * (-len(encoded[1]) % 4)).hex()
    raise BadUpload(f"the form's field {field} is {text[:_SHOWN]!r}, which is no digest of {size} bytes in hex or base64")


def _requires_python(text: str) -> str | None:
    if text in ("", _UNKNOWN):
        return None
    try:
        SpecifierSet(text)
        if text.isprintable():
            return text
    except InvalidSpecifier:
        pass
    raise BadUpload(f"the form's field requires_python is {text[:_SHOWN]!r}, which is no version specifier")


def _check_attestations(text: str, sha256: str | None) -> None:
    """Raise BadUpload if *text* is not a list of attestations (PEP 740) of the file with that digest."""
    if sha256 is None:
        raise BadUpload("the form has attestations and no sha256_digest of the file that they are for")
    try:
        for each in msgspec.json.decode(text, type=list[_Attestation]):
            statement = base64.b64decode(each.envelope.statement, validate=True)
            subjects = msgspec.json.decode(statement, type=_Statement).subject
            if sha256 not in [subject.digest.get("sha256") for subject in subjects]:
                raise BadUpload("one of the attestations is for a file with another sha256 than the form states")
    except (ValueError, RecursionError) as error:
        raise BadUpload(f"the form's field attestations is no list of attestations (PEP 740): {error}") from error

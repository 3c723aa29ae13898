"""Whether a file is the wheel or the source archive that its name says: what nobody can install is never served.

The public index checks the same when something is uploaded.  Everything here blocks, for seconds where a file is large, and
belongs in a worker thread; memory does not grow with the file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from email.errors import MessageError
from typing import TYPE_CHECKING

from msgspec import Struct
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from proxy.errors import BadUpload
from proxy.hosted.members import STANDARD_LIMITS, ArchiveLimits, shown_name
from proxy.hosted.tars import check_tar
from proxy.hosted.zips import CheckedZip
from proxy.names import is_filename, is_project_name, is_version, is_wheel, kind_of, normalize

if TYPE_CHECKING:
    from packaging.metadata import RawMetadata

#: The endings that are taken; the public index takes no others.
ENDINGS = (".whl", ".tar.gz", ".zip")
#: Names of files that are made of characters which mean the same everywhere.
_SOUND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", re.ASCII)
_DIST_INFO = ".dist-info"
#: What is in a dist-info of every wheel.
_REQUIRED = ("METADATA", "RECORD", "WHEEL")
#: Signatures of RECORD, which it cannot list.
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
#: The newest major version of core metadata and of wheels that installers read.
_METADATA_MAJOR, _WHEEL_MAJOR = 2, 1


class DistributionName(Struct, frozen=True):
    """What the name of a distribution says: the normalised *project*, the *version*, and whether it is a wheel."""

    project: str
    version: Version
    wheel: bool


class Inspected(Struct, frozen=True):
    """A distribution that was checked, and what it says of itself.

    *name* is as its metadata spell it.  *metadata* are the bytes of METADATA or PKG-INFO.
    """

    filename: str
    project: str
    name: str
    version: str
    wheel: bool
    requires_python: str | None
    metadata: bytes


def distribution_name(filename: str) -> DistributionName:
    """What *filename* says.  Raises BadUpload for what is no name of a distribution that is taken here."""
    if not filename.endswith(ENDINGS) or not is_filename(filename) or not _SOUND_NAME.fullmatch(filename):
        kind = "" if kind_of(filename) is None else f" ({kind_of(filename)})"
        raise BadUpload(f"{shown_name(filename)}{kind} is no name of a wheel (.whl) or of a source archive (.tar.gz, .zip)")
    try:
        project, version = parse_wheel_filename(filename)[:2] if is_wheel(filename) else parse_sdist_filename(filename)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion) as error:
        raise BadUpload(f"{shown_name(filename)} is no name of a distribution: {error}") from error
    if not is_project_name(project):
        raise BadUpload(f"{shown_name(filename)} is no name of a distribution: {project!r} is no name of a project")
    return DistributionName(project, version, is_wheel(filename))


def spelled_otherwise(filename: str, others: Iterable[str]) -> list[str]:
    """Those of *others*, files of the same project, that mean the very distribution that *filename* means."""

    def meaning(name: str) -> object:
        if is_wheel(name):
            return parse_wheel_filename(name)[1:]
        return parse_sdist_filename(name)[1], name.endswith(".zip")

    def means(name: str, wanted: object) -> bool:
        try:
            return name != filename and name.endswith(ENDINGS) and meaning(name) == wanted
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            return False

    wanted = meaning(filename)
    return [each for each in others if means(each, wanted)]


def inspect(descriptor: int, size: int, filename: str, limits: ArchiveLimits = STANDARD_LIMITS) -> Inspected:
    """Check the file of *size* bytes behind *descriptor*, which is called *filename*, completely.

    Raises BadUpload, which names the file and says what is wrong with it.  Blocks.
    """
    called = distribution_name(filename)
    try:
        if not size:
            raise BadUpload("it is empty")
        if called.wheel:
            metadata = _wheel(CheckedZip(descriptor, size, limits), called)
        elif filename.endswith(".zip"):
            metadata = _zipped_source(CheckedZip(descriptor, size, limits))
        else:
            metadata = _tarred_source(descriptor, size, limits)
        name, requires_python = _facts(metadata, called)
    except BadUpload as error:
        raise BadUpload(f"{filename} is refused: {error}") from error
    return Inspected(filename, called.project, name, str(called.version), called.wheel, requires_python, metadata)


# -- kinds ------------------------------------------------------------------------------------------------------------------


def _wheel(archive: CheckedZip, called: DistributionName) -> bytes:
    def wanted(name: str) -> bool:
        folder, _, file = name.partition("/")
        return folder.endswith(_DIST_INFO) and file in _REQUIRED

    names, contents = archive.check(wanted)
    folders = {top for name in names if (top := name.partition("/")[0]).endswith(_DIST_INFO) and "/" in name}
    if len(folders) != 1:
        raise BadUpload(f"it has {'no' if not folders else 'more than one'} {_DIST_INFO} folder")
    (folder,) = folders
    project, _, version = folder.removesuffix(_DIST_INFO).rpartition("-")
    if normalize(project) != called.project or not is_same_version(version, called.version):
        raise BadUpload(f"its folder {shown_name(folder)} is not that of {called.project} {called.version}")
    missing = [each for each in _REQUIRED if f"{folder}/{each}" not in names]
    if missing:
        raise BadUpload(f"it has no {folder}/{missing[0]}")
    _check_wheel(contents[f"{folder}/WHEEL"])
    _check_record(contents[f"{folder}/RECORD"], names, folder)
    return contents[f"{folder}/METADATA"]


def _check_wheel(data: bytes) -> None:
    for line in data.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == "wheel-version":
            major = value.strip().partition(".")[0]
            if major.isdecimal() and int(major) <= _WHEEL_MAJOR:
                return
            raise BadUpload(f"it is of wheel version {value.strip()[:20]}, which installers do not know")
    raise BadUpload("its WHEEL states no Wheel-Version")


def _check_record(data: bytes, names: set[str], folder: str) -> None:
    """RECORD lists each file of the archive, and no other."""
    left = set(names) - {f"{folder}/{each}" for each in _SIGNATURES}
    try:
        for row in csv.reader(data.decode("utf-8").splitlines()):
            if not row:
                continue
            if row[0] not in names:
                raise BadUpload(f"its RECORD lists {shown_name(row[0])}, which is not in it")
            left.discard(row[0])
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadUpload(f"its RECORD cannot be read: {error}") from error
    left.discard(f"{folder}/RECORD")
    if left:
        raise BadUpload(f"its RECORD does not list {shown_name(min(left))}")


def _zipped_source(archive: CheckedZip) -> bytes:
    names, contents = archive.check(lambda name: name.count("/") == 1 and name.endswith("/PKG-INFO"))
    folders = {name.partition("/")[0] for name in names}
    if len(folders) != 1 or folders & names:
        raise BadUpload("it has more than one top folder, or a file beside it" if folders else "it is empty")
    if not contents:
        raise BadUpload(f"it has no {next(iter(folders))}/PKG-INFO")
    (metadata,) = contents.values()
    return metadata


def _tarred_source(descriptor: int, size: int, limits: ArchiveLimits) -> bytes:
    folder, metadata = check_tar(descriptor, size, limits)
    if metadata is None:
        raise BadUpload(f"it has no {folder[:100]}/PKG-INFO")
    return metadata


# -- metadata ---------------------------------------------------------------------------------------------------------------


def _facts(metadata: bytes, called: DistributionName) -> tuple[str, str | None]:
    """The name and the Requires-Python that *metadata* state, which must be those of the file that is *called* so."""
    from packaging.metadata import parse_email  # loaded with the first one

    try:
        raw, unparsed = parse_email(metadata)
    except (ValueError, MessageError, LookupError) as error:
        raise BadUpload(f"its metadata cannot be read: {error}") from error
    for key in ("metadata-version", "name", "version", "requires-python", "requires-dist"):
        if key in unparsed:
            raise BadUpload(f"its metadata state {key} more than once, or not in UTF-8")
    stated, name, version = (raw.get(key) for key in ("metadata_version", "name", "version"))
    if not isinstance(stated, str) or not _is_known(stated):
        raise BadUpload(f"its metadata are of version {str(stated)[:20]}, which installers do not know")
    if not isinstance(name, str) or normalize(name) != called.project or not is_project_name(name):
        raise BadUpload(f"its metadata name the project {str(name)[:100]}, and its file name {called.project}")
    if not isinstance(version, str) or not is_same_version(version, called.version):
        raise BadUpload(f"its metadata state the version {str(version)[:100]}, and its file name {called.version}")
    return name, _requirements(raw)


def _requirements(raw: RawMetadata) -> str | None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    requires_python = raw.get("requires_python", "")
    try:
        SpecifierSet(requires_python)
    except InvalidSpecifier as error:
        raise BadUpload(f"its Requires-Python {requires_python[:100]!r} cannot be read") from error
    _check_requirements(raw.get("requires_dist") or ())
    return requires_python or None


def _check_requirements(requirements: Iterable[str]) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    for each in requirements:
        try:
            Requirement(each)
        except InvalidRequirement as error:
            raise BadUpload(f"its requirement {each[:100]!r} cannot be read") from error


def _is_known(metadata_version: str) -> bool:
    major, _, minor = metadata_version.partition(".")
    return major.isdecimal() and minor.isdecimal() and 1 <= int(major) <= _METADATA_MAJOR


def is_same_version(text: str, version: Version | str) -> bool:
    """Whether *text* is a spelling of *version*."""
    try:
        return is_version(text) and Version(text) == Version(str(version))
    except InvalidVersion:
        return False

"""Whether bytes that no digest vouches for are the whole of what their file name says they are.

A connection that ends early, an apology and a sign-in page all arrive as ``200 OK``.  Where the page states no digest the
format is the witness that is left: a zip archive has its directory at the end, a compressed stream has an end mark and a
checksum, METADATA names its project.  Of kinds that are not known here only what can be no file at all is refused: nothing,
and an HTML page.

The functions read the file (some to its end), so they belong in a worker thread.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping

from proxy.expressions import expression
from proxy.names import normalize, packing_of
from proxy.settings import MIB

#: Bytes whose checksums are compared in a zip archive; beyond these its directory and its headers are the witness.
_MOST_CHECKED = 256 * MIB
#: Bytes that a compressed tar archive may unpack to: far more than any, and as much as can be read while a client waits.
_MOST_UNPACKED = 4096 * MIB
#: What a zip archive may begin with besides its first member: a script or a program that unpacks it.
_PROLOGUES = (b"#!", b"MZ")
#: Where the first member of a zip archive may be: some writers put a mark of four bytes before it.
_FIRST_MEMBER = 4
_LOCAL_HEADER = b"PK\x03\x04"
_ENCRYPTED = 0x1

#: What files of a kind begin with, where that is all that can be checked of them.
_BEGINNINGS = {
    ".exe": b"MZ",
    ".msi": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    ".rpm": b"\xed\xab\xee\xdb",
    ".deb": b"!<arch>\n",
    ".tar.z": b"\x1f\x9d",
    ".tar.zst": b"\x28\xb5\x2f\xfd",
}
_HTML = expression(rb"(?:\xef\xbb\xbf)?\s{0,200}<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_FIELD = expression(rb"([!-9;-~]+)[ \t]*:[ \t]*(.*)", re.DOTALL)
#: Bytes of METADATA in which its name must be found.
_HEAD = 1 * MIB


class Incomplete(ValueError):
    """The bytes are not the whole file; ``str()`` says why, "it" being the file."""


def check(filename: str, file: io.RawIOBase) -> bool:
    """Whether *file* is the whole of *filename*, a wheel, an sdist or an egg; false for a kind whose end tells nothing.

    Raises Incomplete when it cannot be the whole file.  Of a kind that is not known here that is nothing, or an HTML page.
    Blocks.
    """
    name = filename.lower()
    size = file.seek(0, io.SEEK_END)
    beginning = _at(file, 0, 512)
    if not size:
        raise Incomplete("it is empty")
    packing = packing_of(filename)
    if packing is not None:
        _READERS[packing](file)
        return True
    for ending, expected in _BEGINNINGS.items():
        if name.endswith(ending) and not beginning.startswith(expected):
            raise Incomplete(f"it does not begin as a {ending} file does{_apology(beginning)}")
    if _HTML.match(beginning) is not None:
        raise Incomplete("it is an HTML page")
    return False


def named_by(metadata: bytes) -> str | None:
    """The project that core metadata names (normalised), ``None`` when the bytes are not core metadata.

    What counts are the fields ``Metadata-Version`` and ``Name`` (PEP 566: the syntax of RFC 822, with which real files take
    liberties after these two).
    """
    fields: dict[bytes, bytes] = {}
    for line in metadata[:_HEAD].removeprefix(b"\xef\xbb\xbf").splitlines():
        if line[:1] in (b" ", b"\t"):
            continue
        field = _FIELD.fullmatch(line)
        if field is None:
            break
        fields.setdefault(field[1].lower(), field[2].strip())
    if not fields.get(b"metadata-version") or not fields.get(b"name"):
        return None
    return normalize(fields[b"name"].decode("utf-8", "replace"))


def is_metadata_of(project: str, metadata: bytes) -> bool:
    """Whether *metadata* is core metadata that names *project* (in any spelling)."""
    return named_by(metadata) == normalize(project)


def _at(file: io.RawIOBase, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count) or b""


def _apology(beginning: bytes) -> str:
    return ": it is an HTML page" if _HTML.match(beginning) is not None else ""


# -- kinds ------------------------------------------------------------------------------------------------------------------


def _zip(file: io.RawIOBase) -> None:
    beginning = _at(file, 0, 512)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_places(file, members, beginning)
            _check_members(archive, members)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError) as error:
        if isinstance(error, Incomplete):
            raise
        raise Incomplete(f"it is no whole zip archive{_apology(beginning)} ({error})") from error


def _check_places(file: io.RawIOBase, members: list[zipfile.ZipInfo], beginning: bytes) -> None:
    """Whether the directory at the end is that of the archive, and not of another one inside it, which was cut off there."""
    if not members:
        raise Incomplete("it is a zip archive without members")
    if min(member.header_offset for member in members) > _FIRST_MEMBER and not beginning.startswith(_PROLOGUES):
        raise Incomplete("it is no whole zip archive (its directory does not cover its beginning)")
    for member in members:
        if _at(file, member.header_offset, len(_LOCAL_HEADER)) != _LOCAL_HEADER:
            raise Incomplete(f"it is no whole zip archive ({member.filename[:100]!r} is not where its directory says)")


def _check_members(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    left = _MOST_CHECKED
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            continue
        try:
            with archive.open(member) as opened:
                while data := opened.read(min(MIB, left)):
                    left -= len(data)
        except (NotImplementedError, RuntimeError):
            continue  # compressed in a way that is not known here
        if not left:
            return


def _compressed_tar(opened: Callable[[io.RawIOBase], io.BufferedIOBase], kind: str) -> Callable[[io.RawIOBase], None]:
    """What checks a tar archive inside a stream that *opened* decompresses."""

    def read(file: io.RawIOBase) -> None:
        beginning = _at(file, 0, 512)
        file.seek(0)
        unpacked = 0
        try:
            with opened(file) as stream:
                unpacked += _check_header(stream.read(tarfile.BLOCKSIZE))
                while data := stream.read(MIB):
                    unpacked += len(data)
                    if unpacked > _MOST_UNPACKED:
                        raise Incomplete(f"it unpacks to more than {_MOST_UNPACKED:,} bytes")
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            if unpacked and isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file"):
                return  # whole, and something after it that gzip ignores
            raise Incomplete(f"it is no whole {kind} archive{_apology(beginning)} ({error})") from error

    return read


def _check_header(block: bytes) -> int:
    """The length of *block*, if a tar archive begins with it."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise Incomplete(f"it has no tar archive in it ({error})") from error
    return len(block)


def _plain_tar(file: io.RawIOBase) -> None:
    beginning = _at(file, 0, 512)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            archive.getmembers()
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise Incomplete(f"it is no whole tar archive{_apology(beginning)} ({error})") from error
    if _at(file, end, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Incomplete("it is no whole tar archive (it ends without an end mark)")


def _gzip(file: io.RawIOBase) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=file)


def _bzip2(file: io.RawIOBase) -> io.BufferedIOBase:
    return bz2.BZ2File(file)


def _xz(file: io.RawIOBase) -> io.BufferedIOBase:
    return lzma.LZMAFile(file)  # type: ignore[arg-type]  # it reads and seeks


#: By :func:`proxy.names.packing_of`.
_READERS: Mapping[str, Callable[[io.RawIOBase], None]] = {
    "zip": _zip,
    "tar.gz": _compressed_tar(_gzip, "tar.gz"),
    "tar.bz2": _compressed_tar(_bzip2, "tar.bz2"),
    "tar.xz": _compressed_tar(_xz, "tar.xz"),
    "tar": _plain_tar,
}

"""Source archives ``.tar.gz``: read once from end to end, with nothing unpacked to disk and little in memory."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile

from isal import isal_zlib

from proxy.errors import BadUpload
from proxy.hosted.members import (
    LONGEST_TEXT,
    PACKED_PIECE,
    UNPACKED_PIECE,
    ArchiveLimits,
    Bounds,
    check_name,
    shown_name,
)
from proxy.settings import MIB

#: The largest header of an entry: names, and what else is stated of it (bytes).
_LARGEST_HEADER = 1 * MIB
_PKG_INFO = "PKG-INFO"
#: Symbolic links of one archive: they are remembered.
_MOST_LINKS = 10_000
_GZIP = 31
_KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)


class _Unpacked(io.RawIOBase):
    """What the gzip file of *size* bytes behind *descriptor* unpacks to, read forwards only.  Reading raises BadUpload."""

    def __init__(self, descriptor: int, size: int, bounds: Bounds) -> None:
        self._descriptor = descriptor
        self._size = size
        self._bounds = bounds
        self._position = 0
        self._at = 0
        self._packed = b""
        self._ready = b""
        self._unpacking = isal_zlib.decompressobj(_GZIP)
        self._ended = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < self._at:
            raise BadUpload("it is no tar archive that can be read in one go")
        while self._at < offset and self._take(min(UNPACKED_PIECE, offset - self._at)):
            pass
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise BadUpload(f"the header of one of its entries has {size:,} bytes")
        return self.content(size)

    def content(self, size: int) -> bytes:
        """The next *size* bytes."""
        data = bytearray()
        while len(data) < size and (piece := self._take(size - len(data))):
            data += piece
        return bytes(data)

    def read_to_end(self) -> None:
        """Read the rest: it is padding, and the archive must be whole."""
        while piece := self._take(UNPACKED_PIECE):
            if piece.strip(b"\0"):
                raise BadUpload("it has bytes after its end")

    def _take(self, most: int) -> bytes:
        if not self._ready:
            self._ready = self._unpack()
        piece, self._ready = self._ready[:most], self._ready[most:]
        self._at += len(piece)
        return piece

    def _unpack(self) -> bytes:
        """The next piece, empty at the end."""
        while not self._ended:
            if not self._packed and self._position < self._size:
                self._packed = os.pread(self._descriptor, PACKED_PIECE, self._position)
                self._position += len(self._packed)
            at_end = not self._packed
            try:
                piece: bytes = self._unpacking.decompress(self._packed, UNPACKED_PIECE)
            except isal_zlib.error as error:  # type: ignore[misc]  # its stub does not call it an exception
                raise BadUpload(f"it is no whole gzip file ({error})") from error
            self._packed = self._unpacking.unconsumed_tail
            if self._unpacking.eof:
                self._next_member()
            if piece:
                self._bounds.unpacked(len(piece))
                return piece
            if at_end and not self._ended:
                raise BadUpload("it is no whole gzip file: it is cut off")
        return b""

    def _next_member(self) -> None:
        """Go on behind the end of a gzip member: another one, or nothing but padding."""
        rest = self._unpacking.unused_data
        while not rest.strip(b"\0") and self._position < self._size:
            rest = os.pread(self._descriptor, PACKED_PIECE, self._position)
            self._position += len(rest)
        rest = rest.lstrip(b"\0")
        if not rest:
            self._ended = True
            return
        if not rest.startswith(b"\x1f"):
            raise BadUpload("it has bytes after its end")
        self._packed = rest
        self._unpacking = isal_zlib.decompressobj(_GZIP)


def check_tar(descriptor: int, size: int, limits: ArchiveLimits) -> tuple[str, bytes | None]:
    """Go through the archive of *size* bytes behind *descriptor*: its one folder, and the PKG-INFO in it, if there is one.

    Blocks.  Raises BadUpload.
    """
    bounds = Bounds(size, limits)
    stream = _Unpacked(descriptor, size, bounds)
    checked = _Members(bounds)
    try:
        archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115  # what it holds is the descriptor of others
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            checked.add(member, stream)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError, OSError) as error:
        raise BadUpload(f"it is no whole tar archive ({str(error)[:200] or type(error).__name__})") from error
    stream.read_to_end()
    return checked.folder(), checked.pkg_info


class _Members:
    """What was seen of the members so far."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._folder: str | None = None
        self._links: set[str] = set()
        self.pkg_info: bytes | None = None

    def folder(self) -> str:
        """The one folder that everything is in."""
        if self._folder is None:
            raise BadUpload("it is empty")
        return self._folder

    def add(self, member: tarfile.TarInfo, stream: _Unpacked) -> None:
        """Check the next *member*, whose data are what *stream* gives next."""
        self._bounds.entry(member.name)
        name = member.name.removeprefix("./").rstrip("/")
        if name in ("", ".") and member.isdir():
            return
        check_name(name)
        if member.type not in _KINDS and not member.issparse():
            raise BadUpload(f"its entry {shown_name(name)} is a device")
        top, _, below = name.partition("/")
        if self._folder not in (None, top) or (not below and not member.isdir()):
            raise BadUpload("it has more than one top folder, or a file beside it")
        self._folder = top
        self._check_ways(name)
        if member.issym() or member.islnk():
            self._check_link(member, name, top)
        elif below == _PKG_INFO and member.isreg():
            if self.pkg_info is not None:
                raise BadUpload("it has two PKG-INFO")
            if member.size > LONGEST_TEXT:
                raise BadUpload(f"its PKG-INFO has more than {LONGEST_TEXT:,} bytes")
            self.pkg_info = stream.content(member.size)

    def _check_ways(self, name: str) -> None:
        """What is below a symbolic link is put elsewhere than its name says."""
        way = name
        while self._links and "/" in way:
            way = way.rpartition("/")[0]
            if way in self._links:
                raise BadUpload(f"its entry {shown_name(name)} is below a link")

    def _check_link(self, member: tarfile.TarInfo, name: str, top: str) -> None:
        """A link must lead to something in the one folder, whatever else the archive puts there."""
        target = member.linkname
        if member.islnk():
            target = target.removeprefix("./")
            inside = target.startswith(f"{top}/") and ".." not in target.split("/")
        else:
            # After a first name, ".." may be anywhere: that name may be a link.
            ups = target.split("/")
            while ups and ups[0] in ("..", "."):
                ups.pop(0)
            place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            inside = ".." not in ups and not target.startswith("/") and (place == top or place.startswith(f"{top}/"))
            self._links.add(name)
        if not inside or "\0" in target or "\\" in target:
            raise BadUpload(f"its link {shown_name(name)} leads out of it")
        if len(self._links) > _MOST_LINKS:
            raise BadUpload(f"it has more than {_MOST_LINKS:,} links")

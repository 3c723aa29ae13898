"""Zip archives that every reader reads alike: what the directory at the end says stands before it, and nothing else does.

Readers differ in what they go by: the directory at the end (pip) or the headers before each entry (uv).  An archive in which
these differ, with bytes that belong to no entry, or with a name that occurs twice is another archive for each of them.

The directory is read in one pass, and each entry is unpacked in small pieces: memory does not grow with the archive, only with
the names of its entries, which are bounded.
"""

from __future__ import annotations

import os
import stat
import struct
from array import array
from collections.abc import Callable, Iterator

from isal import isal_zlib
from msgspec import Struct

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

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MARK, _END_64_MARK, _LOCATOR_64_MARK = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY_MARK, _LOCAL_MARK, _DESCRIPTOR_MARK = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"
#: Values that stand for "see the fields for large archives".
_16, _32 = 0xFFFF, 0xFFFFFFFF
#: Extra fields: sizes and places of large archives, and another name for the entry.
_LARGE, _OTHER_NAME = 0x0001, 0x7075
#: Flags: encrypted, sizes stand after the data, patched, encrypted in another way, UTF-8, masked.
_SIZES_AFTER, _UTF8 = 0x0008, 0x0800
_REFUSED_FLAGS = 0x0001 | 0x0020 | 0x0040 | 0x2000
_STORED, _DEFLATED = 0, 8
#: System that wrote the entry: its attributes are modes of Unix.
_UNIX = 3
#: The directory that is read (bytes), by far more than names of the permitted length need.
_LARGEST_DIRECTORY = 64 * MIB


class ZipEntry(Struct, frozen=True):
    """One entry as the directory has it; *start* is where its header stands."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    start: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


class CheckedZip:
    """The zip archive of *size* bytes behind *descriptor*.  All its methods block, and raise BadUpload."""

    def __init__(self, descriptor: int, size: int, limits: ArchiveLimits) -> None:
        self._descriptor = descriptor
        self._size = size
        self._bounds = Bounds(size, limits)

    def check(self, wanted: Callable[[str], bool]) -> tuple[set[str], dict[str, bytes]]:
        """Go through all of it: the names of its files, and the contents of those that are *wanted*."""
        count, offset, length = self._directory()
        names: set[str] = set()
        folders: set[str] = set()
        contents: dict[str, bytes] = {}
        starts, stops = array("Q"), array("Q")
        for entry in self._entries(count, offset, length):
            check_name(entry.name)
            if entry.name in names or entry.name in folders:
                raise BadUpload(f"it has two entries {shown_name(entry.name)}")
            (folders if entry.is_folder else names).add(entry.name)
            keep = not entry.is_folder and wanted(entry.name)
            stop, data = self._unpacked(entry, offset, keep=keep)
            starts.append(entry.start)
            stops.append(stop)
            if keep:
                contents[entry.name] = data
        self._check_places(starts, stops, offset)
        return names, contents

    # -- the directory -----------------------------------------------------------------------------------------------------

    def _directory(self) -> tuple[int, int, int]:
        """Entries, position and length of the directory, which must end where its end mark begins."""
        tail_at = max(0, self._size - _END.size - _16)
        tail = self._read(tail_at, self._size - tail_at)
        # The comment may hold anything; a mark inside of it would be the end for another reader.
        at = tail.find(_END_MARK, max(0, len(tail) - _END.size)) if len(tail) >= _END.size else -1
        if at < 0:
            at = tail.rfind(_END_MARK)
        if at < 0:
            raise BadUpload("it is no zip archive: it has no end mark")
        if len(tail) - at < _END.size:
            raise BadUpload("it is no whole zip archive: its end mark is cut off")
        _, disk, first_disk, on_disk, count, length, offset, comment = _END.unpack_from(tail, at)
        end = tail_at + at
        if at + _END.size + comment != len(tail) or tail.find(_END_MARK, at + 1) >= 0:
            raise BadUpload("it has bytes after its end")
        if disk or first_disk or on_disk != count:
            raise BadUpload("it is one part of several")
        if _16 in (on_disk, count) or _32 in (length, offset):
            count, offset, length, end = self._large_directory(end, (count, length, offset))
        elif end >= _LOCATOR_64.size and self._read(end - _LOCATOR_64.size, 4) == _LOCATOR_64_MARK:
            # Some writers always add the end of a large archive: both must say the same.
            large = self._large_directory(end, (count, length, offset))
            if large[:3] != (count, offset, length):
                raise BadUpload("its two ends contradict each other")
            end = large[3]
        if offset + length != end:
            raise BadUpload("its directory is not where its end says, or bytes before it belong to no entry")
        if length > _LARGEST_DIRECTORY:
            raise BadUpload(f"its directory has more than {_LARGEST_DIRECTORY:,} bytes")
        return count, offset, length

    def _large_directory(self, end: int, said: tuple[int, int, int]) -> tuple[int, int, int, int]:
        locator_at = end - _LOCATOR_64.size
        if locator_at < 0:
            raise BadUpload("its end is not where it should be")
        mark, disk, position, disks = _LOCATOR_64.unpack(self._read(locator_at, _LOCATOR_64.size))
        if mark != _LOCATOR_64_MARK or disk or disks > 1 or position + _END_64.size != locator_at:
            raise BadUpload("the end of this large archive is not where it should be")
        found = _END_64.unpack(self._read(position, _END_64.size))
        mark, length_of_end, _, _, disk, first_disk, on_disk, count, length, offset = found
        if mark != _END_64_MARK or length_of_end != _END_64.size - 12 or disk or first_disk or on_disk != count:
            raise BadUpload("the end of this large archive makes no sense")
        for small, large, most in zip(said, (count, length, offset), (_16, _32, _32), strict=True):
            if small not in (large, most):
                raise BadUpload("its two ends contradict each other")
        return count, offset, length, position

    def _entries(self, count: int, offset: int, length: int) -> Iterator[ZipEntry]:
        position, stop = offset, offset + length
        for _ in range(count):
            head = self._read(position, _ENTRY.size) if position + _ENTRY.size <= stop else b""
            if head[:4] != _ENTRY_MARK:
                raise BadUpload("its directory has fewer entries than its end says")
            fields = _ENTRY.unpack(head)
            system, flags, method = fields[2], fields[5], fields[6]
            crc, packed, size = fields[9:12]
            of_name, of_extra, of_comment, disk = fields[12:16]
            attributes, start = fields[17:19]
            position += _ENTRY.size
            if position + of_name + of_extra + of_comment > stop:
                raise BadUpload("its directory is cut off")
            rest = self._read(position, of_name + of_extra)
            position += of_name + of_extra + of_comment
            raw_name = rest[:of_name]
            self._bounds.entry(raw_name)
            name = _decoded(raw_name, flags)
            packed, size, start = _large_fields(rest[of_name:], name, packed, size, start)
            if flags & _REFUSED_FLAGS or method not in (_STORED, _DEFLATED):
                raise BadUpload(f"its entry {shown_name(name)} is packed in a way that not every installer knows")
            if disk:
                raise BadUpload("it is one part of several")
            mode = attributes >> 16 if system == _UNIX else 0
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadUpload(f"its entry {shown_name(name)} is a link or a device")
            if name.endswith("/") and size:
                raise BadUpload(f"its folder {shown_name(name)} has a content")
            yield ZipEntry(name, raw_name, flags, method, crc, packed, size, start)
        if position != stop:
            raise BadUpload("its directory has more entries than its end says")

    # -- entries -----------------------------------------------------------------------------------------------------------

    def _unpacked(self, entry: ZipEntry, limit: int, *, keep: bool) -> tuple[int, bytes]:
        """Where *entry* ends, and its content if that is to be kept; *limit* is where no entry may be any more."""
        begin = self._after_header(entry)
        if begin + entry.packed > limit:
            raise BadUpload(f"its entry {shown_name(entry.name)} does not end before its directory")
        if keep and entry.size > LONGEST_TEXT:
            raise BadUpload(f"its entry {shown_name(entry.name)} has more than {LONGEST_TEXT:,} bytes")
        kept = bytearray()
        count = crc = 0
        for piece in self._pieces(entry, begin):
            count += len(piece)
            if count > entry.size:
                break
            self._bounds.unpacked(len(piece))
            crc = isal_zlib.crc32(piece, crc)
            if keep:
                kept += piece
        if count != entry.size or crc != entry.crc:
            raise BadUpload(f"its entry {shown_name(entry.name)} is damaged")
        stop = begin + entry.packed
        if entry.flags & _SIZES_AFTER:
            stop += self._descriptor_after(entry, stop)
        return stop, bytes(kept)

    def _after_header(self, entry: ZipEntry) -> int:
        """Where the data of *entry* begin, whose header must say what the directory says."""
        head = self._read(entry.start, _LOCAL.size)
        if head[:4] != _LOCAL_MARK:
            raise BadUpload(f"its entry {shown_name(entry.name)} is not where its directory says")
        _, _, flags, method, _, _, crc, packed, size, of_name, of_extra = _LOCAL.unpack(head)
        rest = self._read(entry.start + _LOCAL.size, of_name + of_extra)
        agrees = rest[:of_name] == entry.raw_name and method == entry.method
        agrees = agrees and (flags & (_SIZES_AFTER | _UTF8)) == (entry.flags & (_SIZES_AFTER | _UTF8))
        packed, size, _ = _large_fields(rest[of_name:], entry.name, packed, size, 0)
        said = (crc, packed, size)
        known = (entry.crc, entry.packed, entry.size)
        agrees = agrees and (said == known or (bool(flags & _SIZES_AFTER) and not any(said)))
        if not agrees or flags & _REFUSED_FLAGS:
            raise BadUpload(f"the header of its entry {shown_name(entry.name)} contradicts its directory")
        begin: int = entry.start + _LOCAL.size + of_name + of_extra
        return begin

    def _pieces(self, entry: ZipEntry, begin: int) -> Iterator[bytes]:
        """The content of *entry*, a piece at a time."""
        position, stop = begin, begin + entry.packed
        if entry.method == _STORED:
            while position < stop:
                piece = self._read(position, min(UNPACKED_PIECE, stop - position))
                position += len(piece)
                yield piece
            return
        unpacking = isal_zlib.decompressobj(-15)
        data = b""
        try:
            while not unpacking.eof:
                if not data and position < stop:
                    data = self._read(position, min(PACKED_PIECE, stop - position))
                    position += len(data)
                piece = unpacking.decompress(data, UNPACKED_PIECE)
                if not piece and not data and position >= stop and not unpacking.eof:
                    raise BadUpload(f"its entry {shown_name(entry.name)} is cut off")
                data = unpacking.unconsumed_tail
                if piece:
                    yield piece
        except isal_zlib.error as error:  # type: ignore[misc]  # its stub does not call it an exception
            raise BadUpload(f"its entry {shown_name(entry.name)} is damaged ({error})") from error
        if unpacking.unused_data or data or position < stop:
            raise BadUpload(f"its entry {shown_name(entry.name)} has bytes that belong to nothing")

    def _descriptor_after(self, entry: ZipEntry, position: int) -> int:
        """The length of the descriptor behind the data of *entry*: what it says is what the directory says."""
        found = self._read_some(position, 24)
        for form in ("<LLL", "<LQQ"):
            said = struct.pack(
                form, entry.crc, *(each if form == "<LQQ" else each & _32 for each in (entry.packed, entry.size))
            )
            for descriptor in (_DESCRIPTOR_MARK + said, said):
                if found.startswith(descriptor):
                    return len(descriptor)
        raise BadUpload(f"what follows the data of its entry {shown_name(entry.name)} contradicts its directory")

    def _check_places(self, starts: array[int], stops: array[int], offset: int) -> None:
        """Whether entries follow each other without a gap, from the first byte up to the directory."""
        expected = 0
        for start, stop in sorted(zip(starts, stops, strict=True)):
            if start != expected:
                raise BadUpload("it has bytes that belong to no entry, or entries that overlap")
            expected = stop
        if expected != offset:
            raise BadUpload("it has bytes that belong to no entry, or entries that overlap")

    # -- bytes -------------------------------------------------------------------------------------------------------------

    def _read(self, position: int, count: int) -> bytes:
        data = self._read_some(position, count)
        if len(data) != count:
            raise BadUpload("it is no whole zip archive")
        return data

    def _read_some(self, position: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, position) if 0 <= position < self._size else b""


def _decoded(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise BadUpload(f"the name of its entry {raw[:100]!r} is no UTF-8") from error


def _large_fields(extra: bytes, name: str, packed: int, size: int, start: int) -> tuple[int, int, int]:
    """*packed*, *size* and *start* as *extra* has them, where they are too large for their own fields."""
    position = 0
    seen = False
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if len(field) != length:
            break
        if kind == _OTHER_NAME and field[5:] != name.encode():
            raise BadUpload(f"its entry {shown_name(name)} has a second name")
        if kind != _LARGE:
            continue
        if seen:
            raise BadUpload(f"its entry {shown_name(name)} states its size twice")
        seen = True
        values = iter(struct.unpack_from(f"<{length // 8}Q", field))
        try:
            size = next(values) if size == _32 else size
            packed = next(values) if packed == _32 else packed
            start = next(values) if start == _32 else start
        except StopIteration:
            raise BadUpload(f"its entry {shown_name(name)} does not state its size") from None
    return packed, size, start

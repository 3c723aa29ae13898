"""Content codings of upstream's bodies: asked for on pages, unasked for on files, and often not what they say (RFC 9110 8.4).

``Content-Encoding`` is what somebody once noted of a file (``aws-chunked``, ``utf-8``, ``gzip`` on a ``.tar.gz`` that is sent
as it is, the same coding twice): what it says is believed only as far as the bytes agree.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from proxy.expressions import expression
from proxy.names import METADATA, packing_of
from proxy.settings import KIB
from proxy.upstream.http.failures import Failed

#: What pages may come in.
ACCEPTED = "gzip, deflate"
#: The codings that can be undone; everything else in the header tells nothing.
KNOWN = ("gzip", "deflate", "zstd")

_GZIP_WRAPPER = 31
_RAW = -15
_MOST_WINDOW = 8 * 1024 * KIB
#: Bytes that are undone in one go: what they can become is a thousand times as much, with zstd thirty thousand.
_SLICE = {"gzip": 4 * KIB, "deflate": 4 * KIB, "zstd": 512}
#: Bytes by which a reading is decided.
BEGINNING = 2 * KIB

#: What files begin with, by the ending of their name.
_STARTS: tuple[tuple[tuple[str, ...], re.Pattern[bytes]], ...] = (
    ((METADATA,), expression(rb"(?:\xef\xbb\xbf)?[A-Za-z-]+[ \t]*:")),
    ((".whl", ".zip", ".egg"), expression(rb"PK")),
    ((".gz", ".tgz"), expression(rb"\x1f\x8b")),
    ((".bz2", ".tbz"), expression(rb"BZh")),
    ((".xz", ".txz"), expression(rb"\xfd7zXZ")),
    ((".zst",), expression(rb"\x28\xb5\x2f\xfd")),
    ((".z",), expression(rb"\x1f\x9d")),
    ((".exe",), expression(rb"MZ")),
)
#: What a page or a JSON document begins with when no coding is on it.
_TEXT = expression(rb"(?:\xef\xbb\xbf)?\s{0,200}[{<\[]")
_PADDING = b"\0"


def codings_of(header: str | None) -> tuple[str, ...]:
    """The codings in a ``Content-Encoding`` that can be undone, in the order they were applied in."""
    named = (each.strip().lower().removeprefix("x-") for each in (header or "").split(","))
    return tuple(each for each in named if each in KNOWN)


class Miscoded(Failed):
    """The bytes are not in the coding that is named."""


def undo_all(undone: Sequence[Undo], chunk: bytes) -> Iterator[bytes]:
    """What *chunk* is without the codings *undone* (outermost first), in pieces of bounded size.  Raises Miscoded."""
    if not undone:
        yield chunk
        return
    for piece in undone[0].pieces(chunk):
        yield from undo_all(undone[1:], piece)


class Undo:
    """Undoes one *coding* of a body that comes in pieces: all its members or frames, one after the other."""

    def __init__(self, coding: str) -> None:
        self.coding = coding
        #: Whether all that has come ends where the coded data does.
        self.complete = False
        #: Whether something came after that which is no further member.
        self.surplus = False
        self._decoder: Any = None
        self._members = 0
        self._held = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What *data* becomes, in pieces of bounded size.  Raises Miscoded."""
        step = _SLICE[self.coding]
        for start in range(0, len(data), step):
            plain = self._some(data[start : start + step])
            if plain:
                yield plain

    def _some(self, data: bytes) -> bytes:
        plain = []
        while data and not self.surplus:
            if self._decoder is None:
                data = self._begin(data)
                if self._decoder is None:
                    break
            try:
                plain.append(self._decoder.decompress(data))
            except _unreadable() as error:
                raise Miscoded(f"sent {self.coding} that cannot be read: {error}") from error
            data = b""
            self.complete = self._decoder.eof
            if self.complete:
                self._members += 1
                data, self._decoder = self._decoder.unused_data, None
        return b"".join(plain)

    def _begin(self, data: bytes) -> bytes:
        """Begin a member, the first bytes of which are returned, as far as they tell what it is."""
        data = self._held + (data.lstrip(_PADDING) if self._members else data)
        self._held = b""
        if self._members and data and not _is_magic(self.coding, data):
            self.surplus = True
            return b""
        if len(data) < 2:
            self._held = data
            self.complete = self.complete and not data
            return data
        self._decoder = _decoder(self.coding, data)
        self.complete = False
        return data


def _is_magic(coding: str, data: bytes) -> bool:
    """Whether *data*, of which there may be one byte yet, begins as *coding* does; raw deflate has nothing that tells."""
    if coding == "gzip":
        return b"\x1f\x8b".startswith(data[:2])
    return coding == "zstd" and (b"\x28\xb5".startswith(data[:2]) or (data[0] & 0xF0 == 0x50 and b"\x2a".startswith(data[1:2])))


def _unreadable() -> tuple[type[Exception], ...]:
    """What decoders raise."""
    import zstandard

    return zlib.error, zstandard.ZstdError


def _decoder(coding: str, data: bytes) -> Any:
    if coding == "gzip":
        return zlib.decompressobj(_GZIP_WRAPPER)
    if coding == "zstd":
        import zstandard  # loaded by the first body in it

        return zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompressobj()
    # What HTTP calls deflate is zlib; some servers send what zip calls so.
    is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else _RAW)


def decoded(body: bytes, codings: Sequence[str], limit: int) -> tuple[bytes, bool] | None:
    """*body* without *codings*, and whether it was clearly all of it: nothing came behind the coded data.

    ``None`` when that is larger than *limit* bytes.  A coding that is not on it after all is passed over.  Blocks: for a worker
    thread.  Raises Failed when it is cut off.
    """
    clear = True
    for coding in reversed(codings):
        text = _TEXT.match(body) is not None
        undo = Undo(coding)
        plain = bytearray()
        try:
            for piece in undo.pieces(body):
                plain += piece
                if len(plain) > limit:
                    return None
        except Miscoded:
            if not text:
                raise
            continue
        if not undo.complete:
            if text:
                continue
            raise Failed(f"sent {coding} that is cut off")
        body, clear = bytes(plain), clear and not undo.surplus
    return body, clear


def layers(beginning: bytes, codings: Sequence[str], name: str) -> list[tuple[str, ...]]:
    """What may have to be undone (outermost first) of a body that begins so, to have the file *name*; the likeliest first.

    A file of a kind that is known begins as such files do; a ``.tar.gz`` has a tar archive in it, and not one more ``.tar.gz``.
    """
    found: list[str] = []
    starts = [beginning]
    for coding in reversed(codings):
        inner = _opened(starts[-1], coding)
        if inner is not None:
            found.append(coding)
            starts.append(inner)
    kind = next((start for endings, start in _STARTS if name.lower().endswith(endings)), None)
    fits = [kind is None or kind.match(start) is not None for start in starts]
    if packing_of(name) == "tar.gz":
        fits = [fit and _may_be_tar(inner) for fit, inner in zip(fits, [*starts[1:], b""], strict=True)]
    depths = sorted(range(len(starts)), key=lambda depth: (fits[depth], depth), reverse=True)
    return [tuple(found[:depth]) for depth in depths]


def _may_be_tar(beginning: bytes) -> bool:
    """Whether a tar archive can begin so; too few bytes tell nothing."""
    if len(beginning) < tarfile.BLOCKSIZE:
        return True
    try:
        tarfile.TarInfo.frombuf(beginning[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _opened(beginning: bytes, coding: str) -> bytes | None:
    """The first bytes of what is in *coding*, ``None`` when it is not on it."""
    if coding == "deflate":
        if _TEXT.match(beginning) is not None:
            return None
    elif len(beginning) < 2 or not _is_magic(coding, beginning):
        return None
    try:
        return b"".join(Undo(coding).pieces(beginning))
    except Miscoded:
        return None

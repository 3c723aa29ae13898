"""Responses of HTTP/1.1 out of the bytes that come on a connection (RFC 9112), whatever pieces those come in.

Theory of operation.  A :class:`ResponseParser` reads one response.  :meth:`ResponseParser.receive` takes what came and returns
what of it belongs to the body.  The head has arrived once :attr:`ResponseParser.head` is set, the whole response once
:attr:`ResponseParser.complete` is true, and :attr:`ResponseParser.error` says why nothing more is read.  It performs no I/O.

What servers send is taken as far as its meaning is beyond doubt: bare line feeds in a head, folded lines, a status without a
phrase, the same ``Content-Length`` twice.  What can be read in two ways is refused: two lengths, a transfer coding other than
``chunked``, a line that is no field.  A head, its lines, a chunk's line and trailers are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from math import inf

from msgspec import Struct

from proxy.settings import KIB

#: The longest head, interim responses (1xx) before it included, and the longest line in one (bytes).
LONGEST = 64 * KIB
_LONGEST_LINE = 16 * KIB
#: The longest line before a chunk, extensions included, and the longest trailers (bytes).
_LONGEST_CHUNK_LINE = KIB
_LONGEST_TRAILERS = 64 * KIB

#: Status lines whose meaning is remembered: most are the same.
_REMEMBERED = 32

_BEGINNING = b"HTTP/"
_STATUS = re.compile(r"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: .*)?", re.DOTALL)
_FOLD = re.compile(r"\n(?=[ \t])")
#: What stands for nothing in a field's value (RFC 9110 section 5.5).
_UNFIT = str.maketrans("\r\0", "  ")
_BLANKS = " \t\r\v\f"
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")

_TOO_LONG = f"sent a head of more than {LONGEST:,} bytes"
_NO_STATUS = "no status line"

_SWITCHING_PROTOCOLS, _NO_CONTENT, _NOT_MODIFIED = 101, 204, 304


class NotHttp(Exception):
    """What a server sends is not HTTP/1.1, or can be read in two ways; ``str()`` names what is wrong."""


class HeadTooLong(Exception):
    """A response's head goes on without end; ``str()`` says how far it was read."""


class ResponseHead(Struct, frozen=True):
    """The head of a response.  Names of fields are in lower case, and each byte of a value is a character.

    ``length``: bytes that the body will have on the wire, ``None`` when nobody said.
    """

    status: int
    fields: dict[str, list[str]]
    length: int | None

    def last(self, name: str) -> str | None:
        """The last value of the field *name* (in lower case), ``None`` without one."""
        values = self.fields.get(name)
        return None if values is None else values[-1]

    def all(self, name: str) -> list[str]:
        """The values of the field *name* (in lower case)."""
        return self.fields.get(name, [])


class ResponseParser:
    """Reads the response to a request with *method*."""

    def __init__(self, method: str) -> None:
        self._without_body = method == "HEAD"
        # A function and no method: parsers are not to wait for the garbage collector.
        self._take: Callable[[ResponseParser, bytes], bytes] = ResponseParser._take_head
        self._held: bytes | bytearray = b""  # of a head a bytearray, for that may come in many pieces
        #: Bytes that may still come of a head or of trailers, and that will still come of a body or of a chunk.
        self._bound = LONGEST
        self._left = 0
        self._begun = False
        #: The head, once it is there.
        self.head: ResponseHead | None = None
        #: Whether the response has come to its end.
        self.complete = False
        #: Whether the connection may be used again after that: the server does not close it, and nothing came that nobody
        #: asked for.
        self.reusable = True
        #: Why the response cannot be read any further.
        self.error: NotHttp | HeadTooLong | None = None

    def receive(self, data: bytes) -> bytes:
        """What of *data* belongs to the body."""
        return self._take(self, data)

    @property
    def left(self) -> float:
        """Bytes of the body that are still to come, infinite where its end is that of the connection; none where nobody said.

        What comes in chunks may be as many pieces as bytes, each of which takes a look: of that little is read at a time.
        """
        if self._take is ResponseParser._take_counted:
            return self._left
        return inf if self._take is ResponseParser._take_all else 0

    def closed(self) -> bool:
        """The connection has ended: whether that may be the end of the body, of which there was no other sign."""
        self.reusable = False
        return self.head is not None and self._take is ResponseParser._take_all

    # -- the head ------------------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> bytes:
        """The head is not complete."""
        looked_at = max(0, len(self._held) - 2)
        buffer: bytes | bytearray = data
        if self._held:
            self._held += data
            buffer = self._held
        try:
            while True:
                lines_end, end = _end_of_head(buffer, looked_at)
                if end < 0:
                    self._head_so_far(buffer, looked_at)
                    return b""
                self._bound -= end
                if self._bound < 0:
                    self._begins(buffer, 0)
                    raise HeadTooLong(_TOO_LONG)
                status, lasting, fields = _read_head(bytes(buffer[:lines_end]))
                rest = bytes(buffer[end:])
                if status >= 200:
                    self._held = b""
                    return self._begin_body(status, lasting, fields, rest)
                if status == _SWITCHING_PROTOCOLS:
                    raise NotHttp("101 Switching Protocols, which was not asked for")
                self._held, buffer, looked_at, self._begun = b"", rest, 0, False
        except (NotHttp, HeadTooLong) as error:
            return self._fail(error)

    def _head_so_far(self, buffer: bytes | bytearray, looked_at: int) -> None:
        """Keep what has come of a head, if it can become one; all before *looked_at* was here before."""
        self._begins(buffer, looked_at)
        if len(buffer) > self._bound:
            raise HeadTooLong(_TOO_LONG)
        self._held = buffer if isinstance(buffer, bytearray) else bytearray(buffer)

    def _begins(self, buffer: bytes | bytearray, looked_at: int) -> None:
        """Raise NotHttp for what does not begin as a response does, as soon as that can be told."""
        if self._begun:
            return
        if not buffer.startswith(_BEGINNING[: len(buffer)]):
            raise NotHttp(_NO_STATUS)
        feed = buffer.find(b"\n", looked_at)
        if feed >= 0:
            self._begun = True
            _status_of(bytes(buffer[:feed]).decode("latin-1"))

    def _begin_body(self, status: int, lasting: bool, fields: dict[str, list[str]], rest: bytes) -> bytes:
        """The head is complete: decide where the body ends (RFC 9112 section 6.3), and take the *rest* as that.

        *lasting*: whether connections of that version stay open by default.
        """
        stated = fields.get("connection")
        options = [] if stated is None else _listed(stated)
        if "close" in options or not (lasting or "keep-alive" in options):
            self.reusable = False
        length: int | None
        if self._without_body or status in (_NO_CONTENT, _NOT_MODIFIED):
            length = 0
        elif "transfer-encoding" in fields:
            if _listed(fields["transfer-encoding"]) != ["chunked"]:
                raise NotHttp("a transfer coding other than chunked")
            if "content-length" in fields or not lasting:
                self.reusable = False  # as RFC 9112 section 6.1 says: somebody on the way may have found another end
            self.head = ResponseHead(status, fields, None)
            self._take = ResponseParser._take_chunks
            return self._take_chunks(rest)
        else:
            length = _length(fields.get("content-length"))
        self.head = ResponseHead(status, fields, length)
        if length is None:
            self.reusable = False
            self._take = ResponseParser._take_all
        else:
            self._left = length
            self._take = ResponseParser._take_counted
        return self._take(self, rest)

    # -- the body ------------------------------------------------------------------------------------------------------------

    def _take_counted(self, data: bytes) -> bytes:
        """So many bytes of the body are left."""
        left = self._left = self._left - len(data)
        if left > 0:
            return data
        self._end(surplus=left < 0)
        return data[:left] if left < 0 else data

    def _take_all(self, data: bytes) -> bytes:
        """Everything up to the end of the connection is the body."""
        return data

    def _take_nothing(self, data: bytes) -> bytes:
        """The response is over, and what comes now was not asked for."""
        if data:
            self.reusable = False
        return b""

    def _end(self, *, surplus: bool) -> None:
        self.complete = True
        self._held = b""
        self._take = ResponseParser._take_nothing
        if surplus:
            self.reusable = False

    def _fail(self, error: NotHttp | HeadTooLong) -> bytes:
        self.error = error
        self.reusable = False
        self._held = b""
        self._take = ResponseParser._take_nothing
        return b""

    def _take_chunks(self, data: bytes) -> bytes:
        """A chunk has begun of which so many bytes and a line's end are left, or a chunk's line is next (nothing is left)."""
        found: list[bytes] = []
        if self._held:
            data, self._held = bytes(self._held) + data, b""
        position = 0
        while position < len(data):
            if self._left > 2:
                piece = data[position : position + self._left - 2]
                found.append(piece)
                self._left -= len(piece)
                position += len(piece)
            elif self._left:
                if data[position] != b"\n\r"[self._left - 1]:
                    self._fail(NotHttp("a chunk that does not end where it says"))
                    break
                self._left -= 1
                position += 1
            else:
                end = data.find(b"\r\n", position, position + _LONGEST_CHUNK_LINE + 2)
                if end < 0 and len(data) - position < _LONGEST_CHUNK_LINE + 2:
                    self._held = data[position:]
                    break
                line = _CHUNK_LINE.fullmatch(data, position, end) if end >= 0 else None
                if line is None:
                    self._fail(NotHttp("a chunk without a size"))
                    break
                position = end + 2
                size = int(line[1], 16)
                if not size:
                    self._bound = _LONGEST_TRAILERS
                    self._take = ResponseParser._take_trailers
                    self._take_trailers(data[position:])
                    break
                self._left = size + 2
        return found[0] if len(found) == 1 else b"".join(found)

    def _take_trailers(self, data: bytes) -> bytes:
        """The last chunk has been: fields may follow, which nobody needs, and then an empty line."""
        data = bytes(self._held) + data
        position = 0
        while (end := data.find(b"\r\n", position)) >= 0:
            line, position = data[position:end], end + 2
            if not line:
                self._end(surplus=position < len(data))
                return b""
            self._bound -= len(line) + 2
            if self._bound < 0:
                break
        self._held = data[position:]
        if len(self._held) > self._bound + 1:
            self._fail(NotHttp(f"trailers of more than {_LONGEST_TRAILERS:,} bytes"))
        return b""


def _end_of_head(buffer: bytes | bytearray, start: int) -> tuple[int, int]:
    """Where the lines end, and where the empty line after them ends, from *start* on; -1 for both while there is none."""
    found = buffer.find(b"\n\r\n", start)
    bare = buffer.find(b"\n\n", start) if found < 0 else buffer.find(b"\n\n", start, found + 1)
    if bare >= 0:
        return bare + 1, bare + 2
    return (found + 1, found + 3) if found >= 0 else (-1, -1)


@lru_cache(_REMEMBERED)
def _status_of(line: str) -> tuple[int, bool]:
    """The status that the first *line* of a response states, and whether connections stay open by default."""
    found = _STATUS.fullmatch(line.removesuffix("\r"))
    if found is None:
        raise NotHttp(_NO_STATUS)
    return int(found[3]), (found[1], found[2]) > ("1", "0")


def _read_head(raw: bytes) -> tuple[int, bool, dict[str, list[str]]]:
    """The status in *raw*, which ends with its last line feed; whether connections stay open by default; and the fields."""
    text = raw.decode("latin-1").replace("\r\n", "\n")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub("", text)
    if "\r" in text or "\0" in text:
        text = text.translate(_UNFIT)
    first, *lines = text[:-1].split("\n")
    status, lasting = _status_of(first)
    if len(raw) > _LONGEST_LINE and any(len(line) > _LONGEST_LINE for line in (first, *lines)):
        raise HeadTooLong(f"sent a head with a line of more than {_LONGEST_LINE:,} bytes")
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise NotHttp("a line in the head that is no field")
        name, value = name.lower().rstrip(_BLANKS), value.strip(_BLANKS)
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    return status, lasting, fields


def _listed(values: list[str]) -> list[str]:
    """The members of a list that the *values* of a field are (RFC 9110 section 5.6.1), in lower case."""
    return [member for each in ",".join(values).split(",") if (member := each.strip(_BLANKS).lower())]


def _length(stated: list[str] | None) -> int | None:
    """What ``Content-Length`` says (RFC 9110 section 8.6): the same number, however often."""
    if stated is None:
        return None
    if len(stated) == 1 and _LENGTH.fullmatch(stated[0]):
        return int(stated[0])
    numbers = {each.strip(_BLANKS) for each in ",".join(stated).split(",")}
    if not all(map(_LENGTH.fullmatch, numbers)):
        raise NotHttp("a Content-Length that is no length")
    lengths = set(map(int, numbers))
    if len(lengths) > 1:
        raise NotHttp("two lengths in Content-Length")
    return lengths.pop()

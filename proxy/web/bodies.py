"""Bodies of requests: a route reads one as it comes, at the route's pace, or leaves it alone (RFC 9112 sections 6 and 7).

Whoever takes a request decides about its body.  What nobody reads is never more than a few kilobytes: the channel stops
reading, and ends the connection with the answer.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from proxy.errors import BadRequest, ContentTooLarge
from proxy.expressions import expression
from proxy.web.heads import RequestHead
from proxy.web.incoming import Incoming

#: The longest line with the size of a chunk, and the longest trailer section (bytes).
_LONGEST_LINE, _LONGEST_TRAILERS = 256, 4096
#: The size of a chunk, and extensions, which mean nothing here.
_CHUNK = expression(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = expression(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")


class Decoder(Protocol):
    """Finds a body in what comes after a head."""

    #: Whether the whole body has been found.
    over: bool

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of the body in *data*, and what has to be seen again with what comes next.  Raises BadRequest."""


class Sized:
    """A body of *length* bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.over = not length

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        self.over = not self._left
        return piece, rest


class Chunked:
    """A body in chunks.  Lines end in CRLF and nothing else; extensions and trailers are read over."""

    def __init__(self) -> None:
        self.over = False
        #: Bytes that are missing of a chunk, its CRLF included.
        self._left = 0
        #: Bytes of trailers so far; ``None`` before the last chunk.
        self._trailers: int | None = None

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        pieces: list[bytes] = []
        place = 0
        while not self.over:
            after = self._in_chunk(data, place, pieces) if self._left else self._line(data, place)
            if after == place:
                break
            place = after
        return b"".join(pieces), data[place:]

    def _in_chunk(self, data: bytes, place: int, pieces: list[bytes]) -> int:
        """Take what there is of a chunk; the place after it."""
        if self._left > 2:
            piece = data[place : place + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            return place + len(piece)
        end = data[place : place + 2]
        if not b"\r\n".startswith(end):
            raise BadRequest("a chunk of the request's body is longer than it says")
        if len(end) == 2:
            self._left = 0
            return place + 2
        return place

    def _line(self, data: bytes, place: int) -> int:
        """Take a line if all of it has come; the place after it."""
        end = data.find(b"\r\n", place)
        longest = _LONGEST_LINE if self._trailers is None else _LONGEST_TRAILERS - self._trailers
        if (len(data) if end < 0 else end) - place > longest:
            raise BadRequest("a line between the chunks of the request's body is too long")
        if end < 0:
            return place
        line = data[place:end]
        if self._trailers is not None:
            self._trailers += len(line) + 2
            self.over = not line
            if line and not _TRAILER.fullmatch(line):
                raise BadRequest("the request's body ends in a trailer that is no field")
            return end + 2
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise BadRequest("the request's body is not in chunks, though it says so")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailers = 0
        return end + 2


class UnreadableBody:
    """A body in a coding that is not known here, or of a version that has none."""

    over = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        raise BadRequest("the request's body has a Transfer-Encoding other than chunked")


def decoder(head: RequestHead) -> Decoder:
    """What finds the body of the request *head*."""
    if head.body_length is not None:
        return Sized(head.body_length)
    return Chunked() if head.chunked else UnreadableBody()


class Inlet(Protocol):
    """The connection that a body comes in on."""

    def write(self, data: bytes) -> None:
        """Send *data* to the client."""

    def regulate(self) -> None:
        """Read more, if little of what was read is waiting."""


class RequestBody:
    """The body of the request *head*, which comes in on *inlet* and is found in *incoming*; *clock* tells the time."""

    def __init__(self, head: RequestHead, incoming: Incoming, inlet: Inlet, clock: IReactorTime) -> None:
        #: Bytes in all; ``None`` when it is sent in chunks.
        self.length = head.body_length
        #: When the last byte came, or was first waited for (seconds of *clock*).
        self.moved_at = clock.seconds()
        #: When all of it has to have come (seconds of *clock*); ``None``: it may take as long as bytes keep coming.
        self.due: float | None = None
        self._clock = clock
        self._incoming = incoming
        self._inlet = inlet
        self._decoder = decoder(head)
        self._expected = head.expects_continue
        self._lost = False
        self._waiter: Deferred[None] | None = None

    @property
    def over(self) -> bool:
        """Whether all of it has been read."""
        return self._decoder.over

    @property
    def awaited(self) -> bool:
        """Whether the route waits for bytes that have not come."""
        return self._waiter is not None

    async def read(self) -> bytes:
        """The next piece; ``b""`` at the end.  Raises BadRequest when it is malformed or ends early.  One caller at a time."""
        if self._expected:
            self._expected = False
            self._inlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110 section 10.1.1
        while not self._decoder.over:
            if self._lost:
                raise BadRequest("the request's body ended early")
            piece, rest = self._decoder.decode(self._incoming.take())
            self._incoming.put_back(rest)
            self._inlet.regulate()
            if piece:
                return piece
            if not self._decoder.over:
                self.moved_at = self._clock.seconds()
                self._waiter = Deferred()
                await self._waiter
        return b""

    async def whole(self, longest: int, due: float) -> bytes:
        """All of it, as one small value that has to come by *due*, however steadily it comes.

        Raises BadRequest as `read`, and ContentTooLarge for more than *longest* bytes.
        """
        self.due = due
        received = bytearray()
        while piece := await self.read():
            received += piece
            if len(received) > longest:
                raise ContentTooLarge(f"the body of this request has more than {longest:,} bytes")
        return bytes(received)

    # -- told by the channel

    def more(self) -> None:
        """Bytes have come."""
        self.moved_at = self._clock.seconds()
        self._wake()

    def lost(self) -> None:
        """No more bytes will come, or the request has been given up."""
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

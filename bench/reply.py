"""One answer as a client of the bench takes it in: framed, measured, and compared with what it should be as it comes."""

from __future__ import annotations

import gzip
import zlib

from msgspec import Struct, field


class Reply(Struct):
    """An answer whose body must be *expected*, and state its length then; ``None``: the body is kept to be looked at."""

    expected: bytes | None
    head: bytes = b""
    status: int = 0
    #: Bytes in all; ``None`` for a chunked body, which ends with an empty chunk.
    length: int | None = None
    position: int = 0
    #: Whether all of it is in.
    done: bool = False
    right: bool = True
    #: The body, kept only when there is nothing to compare it with.
    body: bytearray = field(default_factory=bytearray)

    def take(self, data: memoryview) -> None:
        """More of it."""
        if not self.status:
            self.head += data
            head, end, rest = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head.split(b" ", 2)[1])
            self.length = _length(head)
            data = memoryview(rest)
        if self.expected is None:
            self.body += data
        # Cheaper than a digest, and as strict.
        elif self.right and not self.expected.startswith(data, self.position):
            self.right = False
        self.position += len(data)
        self.done = self.body.endswith(b"\r\n0\r\n\r\n") if self.length is None else self.position >= self.length

    def is_right(self) -> bool:
        """Whether it is whole, a 200, and what was expected."""
        whole = self.expected is None or self.position == len(self.expected)
        return self.right and self.status == 200 and self.done and whole

    def decoded(self) -> bytes:
        """The body without its coding, empty if it is broken."""
        try:
            body = self._joined()
            head = self.head.partition(b"\r\n\r\n")[0]
            return gzip.decompress(body) if _header(head, b"content-encoding") == b"gzip" else body
        except (ValueError, OSError, EOFError, zlib.error):
            return b""

    def _joined(self) -> bytes:
        """The body without its chunks' frames (RFC 9112 section 7.1)."""
        if self.length is not None:
            return bytes(self.body)
        joined, rest = [], bytes(self.body)
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            joined.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return b"".join(joined)


def _length(head: bytes) -> int | None:
    value = _header(head, b"content-length")
    return int(value) if value else None


def _header(head: bytes, wanted: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip()
    return b""

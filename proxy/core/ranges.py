"""Ranges and the conditions that go with them, as decisions over header values (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import enum
import re

from msgspec import Struct

from proxy.expressions import expression


class Span(Struct, frozen=True):
    """Bytes from *start* to *stop*, the latter exclusive."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Unsatisfiable(enum.Enum):
    """The type of :data:`UNSATISFIABLE`."""

    RANGE = "range"


#: A range that the file cannot satisfy: answer 416 (RFC 9110 section 15.5.17).
UNSATISFIABLE = Unsatisfiable.RANGE


class AskedRange(Struct, frozen=True):
    """A range before the size is known.

    With *first* ``None`` it is the last *last* bytes; else *last* is inclusive, as in the header, or ``None`` for all from
    *first* on.
    """

    first: int | None
    last: int | None

    def of(self, size: int) -> Span | Unsatisfiable:
        """The bytes of a file of *size* bytes that are asked for."""
        if self.first is None:
            assert self.last is not None
            return Span(max(0, size - self.last), size) if self.last and size else UNSATISFIABLE
        if self.first >= size:
            return UNSATISFIABLE
        return Span(self.first, size if self.last is None else min(size, self.last + 1))


_RANGE = expression(r"bytes\s*=\s*(?:([0-9]{1,20})\s*-\s*([0-9]{0,20})|-\s*([0-9]{1,20}))", re.IGNORECASE)


def parse_range_unsized(header: str | None) -> AskedRange | None:
    """The single range that *header* asks for; ``None``: ignore it (absent, malformed, another unit, several ranges)."""
    match = _RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return AskedRange(None, int(suffix))
    if last and int(last) < int(first):
        return None
    return AskedRange(int(first), int(last) if last else None)


def parse_range(header: str | None, size: int) -> Span | Unsatisfiable | None:
    """The bytes of a file of *size* bytes that *header* asks for; ``None``: the whole file, :data:`UNSATISFIABLE`: 416."""
    asked = parse_range_unsized(header)
    return None if asked is None else asked.of(size)


def content_range(span: Span, size: int) -> str:
    """The value of ``Content-Range`` on a 206."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def unsatisfied_range(size: int) -> str:
    """The value of ``Content-Range`` on a 416."""
    return f"bytes */{size}"


def if_range_matches(header: str | None, etag: str | None, last_modified: str | None) -> bool:
    """Whether a range may be answered as one (RFC 9110 section 13.1.5): no condition, or a strong match."""
    if header is None:
        return True
    header = header.strip()
    if header.startswith('"'):
        return header == etag
    return last_modified is not None and header == last_modified


_ENTITY_TAG = expression(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def none_match(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` says that the client has *etag* already (RFC 9110 section 13.1.2, weak comparison)."""
    if header is None:
        return False
    return header.strip() == "*" or etag.removeprefix("W/") in _ENTITY_TAG.findall(header)

"""Content codings that upstream puts on a body: asked for on pages, unasked for on files (RFC 9110 section 8.4)."""

from __future__ import annotations

import zlib
from typing import Any

from proxy.upstream.failures import Failed

#: What pages may come in.
ACCEPTED = "gzip, deflate"

_GZIP_WRAPPER = 31


def inflater(coding: str) -> Any:
    """A zlib decoder for *coding*.  Raises Failed for one that cannot be undone."""
    if coding == "gzip":
        return zlib.decompressobj(_GZIP_WRAPPER)
    if coding == "deflate":
        return zlib.decompressobj()
    raise Failed(f"sent a body in the content coding {coding!r}, which was not asked for")


def decoded(body: bytes, coding: str, limit: int) -> bytes:
    """*body* without *coding*.  Blocks: for a worker thread.  Raises Failed when it is cut off or larger than *limit* bytes."""
    if not coding:
        return body
    decoder = inflater(coding)
    try:
        plain: bytes = decoder.decompress(body, limit)
    except zlib.error as error:
        raise Failed(f"sent {coding} that cannot be read: {error}") from error
    if decoder.unconsumed_tail:
        raise Failed(f"sent more than {limit:,} bytes")
    if not decoder.eof:
        raise Failed(f"sent {coding} that is cut off")
    return plain

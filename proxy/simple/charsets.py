"""Text out of a page's bytes, in the charset that they are in rather than the one that they are said to be in."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache

from proxy.expressions import expression
from proxy.settings import KIB

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: Charsets whose decoders insist on a mark, as which they are read without one.
_WITHOUT_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
_STATED = expression(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE | re.ASCII)
#: How far into a document it may state its charset (bytes).
_HEAD = 1024
#: Charsets that pages are written in.  Python has others that take the square of a body's length, or make what is no text.
_IN_USE = expression(
    r"(?:x-)?(?:utf[-_]?(?:8|16|32)|us-ascii|ascii|iso[-_]?(?:8859|2022)|latin|windows-|cp|gb|big5|euc|shift|sjis|koi8|mac|tis|ibm|ks)",
    re.IGNORECASE,
)
#: A body is decoded in pieces of this size (bytes), for a wrong character takes a hundred times as long as a good one, during
#: which the interpreter's lock is held; and with so many wrong ones it is in another charset.
_PIECE, _MOST_WRONG = 16 * KIB, 10_000
#: Reads as itself in every charset that extends ASCII, and in no other encoding that Python knows.
_PROBE = b'<a href="x+,-~{}&#;%">\\x41\\u0041</a>'


def text_of(body: bytes, content_type: str) -> str:
    """*body* in the charset of its byte order mark, of its Content-Type, or that it states itself, else in UTF-8.

    A charset that is unknown, or that contradicts the bytes, is passed over.
    """
    for mark, charset in _candidates(body, content_type):
        text = _decoded(body[mark:], charset)
        if text is not None:
            return text
    return "".join(_pieces(body, "utf-8"))


def _candidates(body: bytes, content_type: str) -> Iterator[tuple[int, str]]:
    """The length of the mark that *body* begins with, and the charset that it is said to be in behind it."""
    yield from ((len(mark), charset) for mark, charset in _BOMS if body.startswith(mark))
    head = body[:_HEAD]
    for stated in (content_type, head.decode("latin-1")):
        match = _STATED.search(stated)
        if match is not None and _fits(match[1].lower(), wide=b"\0" in head):
            yield 0, match[1]


def utf8(body: bytes) -> bytes:
    """*body*, which may begin with a byte order mark, in UTF-8 without one."""
    if body.startswith(tuple(mark for mark, _ in _BOMS)):
        return text_of(body, "").encode("utf-8", "replace")
    return body


def _decoded(body: bytes, charset: str) -> str | None:
    """*body* in *charset*; ``None`` when it is not in that."""
    pieces: list[str] = []
    wrong = 0
    for piece in _pieces(body, charset):
        wrong += piece.count("\ufffd")
        if wrong > _MOST_WRONG:
            return None
        pieces.append(piece)
    return "".join(pieces)


def _pieces(body: bytes, charset: str) -> Iterator[str]:
    name = codecs.lookup(charset).name
    decoder = codecs.getincrementaldecoder(_WITHOUT_MARK.get(name, name))("replace")
    for start in range(0, len(body), _PIECE):
        yield decoder.decode(body[start : start + _PIECE], start + _PIECE >= len(body))


def _fits(charset: str, *, wide: bool) -> bool:
    """Whether a document can be in *charset*; *wide*: its characters take several bytes each."""
    return _IN_USE.match(charset) is not None and (
        charset.startswith(("utf-16", "utf-32", "utf_16", "utf_32")) and _is_known(charset) if wide else _extends_ascii(charset)
    )


@lru_cache(maxsize=64)
def _is_known(charset: str) -> bool:
    try:
        return b"".decode(charset) == ""
    except LookupError:
        return False


@lru_cache(maxsize=64)
def _extends_ascii(charset: str) -> bool:
    try:
        return _PROBE.decode(charset, "replace") == _PROBE.decode("ascii")
    except (LookupError, ValueError):
        return False

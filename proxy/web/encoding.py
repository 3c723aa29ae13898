"""Heads of answers as bytes, for every way to an answer (RFC 9112 sections 4 and 6)."""

from __future__ import annotations

import re
from http import HTTPStatus

from msgspec import Struct
from twisted.web.http import datetimeToString

from proxy.representing import repr_without
from proxy.web.answers import Answer

#: Answers that have no body, whatever their headers say (RFC 9110 section 6.4.1).
BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
#: What would be the end of a line, or of a text, to some reader of it.
_BREAKS = re.compile(r"[\r\n\0]+")


class Encoded(Struct, frozen=True):
    """An *answer* that many get, and its *head* for connections that go on."""

    answer: Answer
    head: bytes

    __repr__ = repr_without("head")


def with_request_id(head: bytes, request_id: str) -> bytes:
    """*head*, made by `encoded_head`, with the id of the request that it answers."""
    return b"%bX-Request-ID: %b\r\n\r\n" % (head[:-2], request_id.encode("ascii"))


def encoded_head(answer: Answer, via: str, *, chunked: bool = False, close: bool = False) -> bytes:
    """The head of *answer* with the empty line.  *via* is this instance's pseudonym.

    *chunked*: the body is sent in chunks.  *close*: the connection ends with this answer.  ``Content-Length`` is the length of
    the body where that is known, unless the answer states one itself (an answer to HEAD may, without having the body).
    """
    lines = [
        f"HTTP/1.1 {answer.status} {answer.reason or HTTPStatus(answer.status).phrase}",
        "Server: pypiproxy",
        f"Date: {datetimeToString().decode('ascii')}",
        f"Via: 1.1 {via}",
        *[f"{name}: {value}" for name, value in answer.headers],
    ]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    elif answer.status not in BODILESS and (length := answer.length) is not None and not answer.states("content-length"):
        lines.append(f"Content-Length: {length}")
    if close:
        lines.append("Connection: close")
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines) or "\0" in text:
        text = "\r\n".join(_BREAKS.sub(" ", line) for line in lines)
    return f"{text}\r\n\r\n".encode("latin-1", "replace")

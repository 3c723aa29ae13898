"""The words a test scripts a fake upstream with: requests, answers, faults and gates."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct, field
from twisted.internet.defer import Deferred


class Request(NamedTuple):
    """One request as it came in: ``path`` is the raw request target, header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


#: A glob over the path, with a method before it if one is meant (``"HEAD /packages/*"``), or a predicate over the request.
Match = str | Callable[[Request], bool]


def matches(match: Match, request: Request) -> bool:
    """Whether *request* is one of those that *match* describes."""
    if callable(match):
        return match(request)
    method, space, glob = match.rpartition(" ")
    return (not space or method == request.method) and fnmatch.fnmatchcase(request.path, glob)


class Answer(Struct, frozen=True):
    """A response before any fault is applied to it.  ``body`` is whole, also in the answer to a HEAD."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    #: Ranges are honoured on files, not on pages.
    ranges: bool = False


class Gate:
    """Holds responses until it is released; then it stays open."""

    def __init__(self) -> None:
        #: Responses that have come to the gate so far.
        self.arrivals = 0
        self._open = False
        self._waiting: list[Deferred[None]] = []

    def release(self) -> None:
        """Let everything through, now and later."""
        self._open = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def opened(self) -> None:
        """Wait for :meth:`release`."""
        if self._open:
            return
        waiting: Deferred[None] = Deferred(lambda d: self._waiting.remove(d))
        self._waiting.append(waiting)
        await waiting


class Fault(Struct, frozen=True, kw_only=True):
    """What goes wrong with one response.  Times are seconds, positions bytes of the body that is sent.

    Options combine: ``Fault(body=b"<html>", headers={"Content-Type": "text/html"})`` is an error page that claims success.
    """

    #: Answer with a method's refusal, another status, another body.
    status: int | None = None
    reason: str | None = None
    body: bytes | None = None
    #: Headers to set, or (``None``) to remove.
    headers: Mapping[str, str | None] = field(default_factory=dict)
    #: ``Location``; the status is then 302 unless ``status`` says otherwise.
    redirect: str | None = None
    #: Never answer; or answer with these bytes instead of HTTP; or with nothing but an end (FIN) or a reset of the connection.
    silent: bool = False
    garbage: bytes | None = None
    drop: bool = False
    reset: bool = False
    #: Wait before the status line, or between the headers and the first byte of the body.
    delay: float = 0.0
    first_byte_delay: float = 0.0
    #: After this many bytes of the body: a clean end (FIN), a reset (RST), or silence on an open connection.
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    #: Flip the bits of the byte at this position (negative: from the end).
    corrupt_at: int | None = None
    #: (bytes, seconds): this many at a time, with this pause after each.
    trickle: tuple[int, float] | None = None
    #: State this ``Content-Length``; or none at all, so that the end of the connection ends the body.
    content_length: int | None = None
    no_content_length: bool = False
    chunked: bool = False
    #: Send the body compressed although identity was asked for.
    gzip: bool = False
    #: Answer 200 with everything to a range request.
    ignore_range: bool = False
    #: Close the connection after the response.
    close: bool = False
    #: Hold the response before its status line, or after ``hold_after`` bytes of its body.
    hold: Gate | None = None
    hold_after: int | None = None

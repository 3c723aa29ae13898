"""Requests and answers as values: what a route is given and what it gives back, without a socket in sight."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from proxy.access.principals import Principal
from proxy.core.ranges import Span
from proxy.interfaces import IBodyReader, IBytesSource
from proxy.representing import repr_without
from proxy.web.bodies import RequestBody
from proxy.web.callers import Caller
from proxy.web.heads import RequestHead
from proxy.web.routes import Route

#: What is no other in a log: visible ASCII but the backslash.
PLAIN = bytes({*range(0x20, 0x7F)} - {0x5C})

Headers = Sequence[tuple[str, str]]


class Ask(Struct, frozen=True):
    """One request: method, where its path leads, raw query, and its headers (names in lower case, values joined)."""

    method: str
    route: Route
    path: str
    query: str
    headers: dict[str, str]
    #: The head that came, for those who remember requests.
    head: RequestHead
    #: Who asks, and from where.
    caller: Caller
    #: What it is called in the log, in its answer, and upstream (:mod:`proxy.mechanism.request_ids`).
    request_id: str
    #: When its answer has to have begun, in seconds of the reactor's clock; a body that is still coming defers it.
    deadline: float
    #: Whether it came over TLS.
    secure: bool = False
    #: What follows the head, for a route to read; ``None`` when nothing does.
    body: RequestBody | None = None

    __repr__ = repr_without("headers", "head", "body")

    @property
    def target(self) -> str:
        """Path and query as they came, fit for a log."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    def by(self, principal: Principal) -> Ask:
        """The same, known to be sent by *principal*."""
        return replace(self, caller=replace(self.caller, principal=principal))

    @property
    def no_cache(self) -> bool:
        """Whether the client asks for an end-to-end reload (RFC 9111 section 5.2.1.4); pip's ``max-age=0`` is no such wish."""
        return "no-cache" in self.headers.get("cache-control", "")


class FileBody(Struct, frozen=True):
    """Bytes of a file, whole or still arriving: *span*, or all when ``None``."""

    source: IBytesSource
    span: Span | None

    __repr__ = repr_without("source")


class StreamBody(Struct, frozen=True):
    """Bytes that are not kept: *length* of them, from upstream; ``None``: as many as there will be, of events."""

    reader: IBodyReader
    length: int | None

    __repr__ = repr_without("reader")


class SharedFile(Struct, frozen=True):
    """All *size* bytes of a file that each of those who get the answer opens for itself.

    *another* is as that of :class:`~proxy.interfaces.IBytesSource`.
    """

    another: Callable[[], IBytesSource | None]
    size: int

    __repr__ = repr_without("another")


Body = bytes | FileBody | StreamBody | SharedFile


def close_body(body: Body) -> None:
    """Give back what *body* holds, which is not sent, or has been."""
    if isinstance(body, FileBody):
        body.source.close()
    elif isinstance(body, StreamBody):
        body.reader.close()


class Answer(Struct):
    """Status, headers and body.  ``Content-Length`` follows from the body; ``word`` is the cache status for the log."""

    status: int
    headers: Headers
    body: Body = b""
    reason: str | None = None
    word: str = "-"
    #: Gives the answer to the same request again; ``None`` when each one has to be routed.
    again: AnswerSource | None = None
    #: Whether the connection ends with it.
    closes: bool = False

    __repr__ = repr_without("again")

    @property
    def length(self) -> int | None:
        """Bytes of the body; ``None`` while that is unknown."""
        body = self.body
        if isinstance(body, bytes):
            return len(body)
        if isinstance(body, StreamBody):
            return body.length
        if isinstance(body, SharedFile):
            return body.size
        size: int | None = body.source.size if body.span is None else body.span.length
        return size

    def states(self, name: str) -> bool:
        """Whether the header *name* (in lower case) is among the headers."""
        return any(each.lower() == name for each, _ in self.headers)


#: A name for the very bytes of an answer (the same name, the same bytes), and the function that makes it.
Ready = tuple[Hashable, Callable[[], Answer]]

#: Says what the answer is at this moment; ``None`` when that takes waiting, or parsing, or asking anybody.
AnswerSource = Callable[[], Ready | None]


def printable(raw: bytes) -> str:
    """Bytes from the wire, fit for one line of a log and for one field in quotes on it."""
    if raw.translate(None, PLAIN):
        raw = raw.decode("latin-1").encode("unicode_escape")
    return quoted(raw)


def quoted(raw: bytes) -> str:
    """As :func:`printable`, of bytes that are all in :data:`PLAIN`."""
    return raw.replace(b'"', b"\\x22").decode("ascii")

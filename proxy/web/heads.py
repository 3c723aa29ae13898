"""Request heads: what is one, and why anything else is refused (RFC 9112), decided once for every way to an answer.

:func:`read` is the only parser.  The value it returns is what a route is asked with, and what the table of requests seen before
is asked with: a request that one way refuses can never be answered by another.  No expression here costs more than one look at
each byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from proxy.errors import (
    BadRequest,
    FieldsTooLarge,
    MethodNotAllowed,
    ProxyError,
    TargetTooLong,
    UnsupportedVersion,
)
from proxy.representing import repr_without

Bytes = bytes | bytearray

#: The end of a head.
END = b"\r\n\r\n"
#: The longest head, and the longest target in it (bytes), and how many header fields one may have.
LONGEST = 16 * 1024
LONGEST_TARGET = 8000
MOST_FIELDS = 100

#: Controls that are in no head: all but the tab, and CR and LF, which are looked at together.
_CONTROLS = bytes({*range(0x20), 0x7F} - {0x09, 0x0A, 0x0D})
#: A token (RFC 9110 section 5.6.2), and one that may be a method.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
#: All lines after the first one, with the empty line.
_FIELDS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t -~\x80-\xff]*+\r\n)*+\r\n")
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_VERSION = re.compile(rb"HTTP/[0-9](?:\.[0-9])?")
#: The characters of a URI (RFC 3986 section 2) without ``#``, which no target has.
_TARGET = re.compile(rb"[A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]+")
#: Scheme, user information, host and port, path and query.
_ABSOLUTE = re.compile(rb"(?:[Hh][Tt][Tt][Pp][Ss]?)://(?:[^/?@]*@)?([^/?@]*)(/[^?]*)?(\?.*)?")
#: A host with its port, or nothing (RFC 9110 section 7.2).
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]{0,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_LENGTH = re.compile(rb"[0-9]{1,20}")

#: The first two bytes of a TLS record with a handshake; older clients begin with the length of a ``ClientHello`` of SSLv2.
_TLS_RECORD = b"\x16\x03"


class RequestHead(Struct, frozen=True):
    """The head of one request: *target* is path and query, *fields* have names in lower case and values without blanks."""

    method: bytes
    target: bytes
    #: Of the version, ``1.``\\ *minor*.
    minor: int
    fields: Sequence[tuple[bytes, bytes]]
    #: The bytes that came.
    raw: bytes
    #: Whether a body follows, of which nothing is known but this if it has neither a length nor comes in chunks.
    has_body: bool = False
    #: Bytes of the body.
    body_length: int | None = None
    #: Whether the body comes in chunks.
    chunked: bool = False
    #: The host in the target, which goes before the field ``Host`` (RFC 9112 section 3.2.2).
    host: bytes | None = None

    __repr__ = repr_without("raw")

    @property
    def closes(self) -> bool:
        """Whether the connection ends with the answer (RFC 9112 section 9.3); HTTP/1.0 is never kept alive."""
        if not self.minor:
            return True
        stated = b",".join([value for name, value in self.fields if name == b"connection"])
        return b"close" in [each.strip(b" \t") for each in stated.lower().split(b",")]

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits to be told that its body is wanted (RFC 9110 section 10.1.1)."""
        return bool(self.minor) and (self.get(b"expect") or b"").lower() == b"100-continue"

    def get(self, name: bytes) -> bytes | None:
        """The first value of the field *name* (in lower case)."""
        return next((value for each, value in self.fields if each == name), None)


def read(raw: bytes) -> RequestHead:
    """The request whose head is *raw*, from its first byte to the empty line.  Raises ProxyError when it is refused."""
    if len(raw) > LONGEST:
        raise _too_long(raw)
    line, _, rest = raw.partition(b"\r\n")
    method, stated, version = _request_line(line)
    if not _FIELDS.fullmatch(rest):
        # Among others a line that goes on with the field before it, and blanks before the colon: both are ways to be misread.
        raise BadRequest("the request's header fields are not lines of a name, a colon and a value without control characters")
    lines = rest[: -len(END)].split(b"\r\n") if len(rest) > len(END) else []
    if len(lines) > MOST_FIELDS:
        raise FieldsTooLarge(f"the request has {len(lines)} header fields; at most {MOST_FIELDS} are read")
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in [each.partition(b":") for each in lines]]
    framing = [each for each in fields if each[0] in _FRAMING]
    hosts = [value for name, value in framing if name == b"host"]
    _check_host(hosts, version)
    target, host = _target(method, stated)
    minor = 1 if version == b"HTTP/1.1" else 0
    if len(framing) == len(hosts):
        return RequestHead(method, target, minor, fields, raw, host=host)
    length, chunked = _framing(framing, minor)
    return RequestHead(method, target, minor, fields, raw, length != 0, length, chunked, host)


def _request_line(line: bytes) -> list[bytes]:
    """Method, target and version, of which the target is not looked at."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest("the request line is not a method, a target and a version with one space between them")
    method, _, version = parts
    if method not in (b"GET", b"HEAD") and not _METHOD.fullmatch(method):
        raise BadRequest("the request's method is no token of at most 32 characters")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if _VERSION.fullmatch(version):
            raise UnsupportedVersion(f"{version.decode('ascii')} is not spoken here: HTTP/1.1 is")
        raise BadRequest("the request line does not end in HTTP/1.1")
    return parts


def _check_host(hosts: Sequence[bytes], version: bytes) -> None:
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1"):
        raise BadRequest(f"the request has {len(hosts)} Host fields: there must be one")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequest("the request's Host is no host name or address with an optional port")


def _framing(framing: Sequence[tuple[bytes, bytes]], minor: int) -> tuple[int | None, bool]:
    """The length of the body, ``None`` if it is coded, and whether it comes in chunks (RFC 9112 section 6.3)."""
    lengths = [value for name, value in framing if name == b"content-length"]
    codings = [value for name, value in framing if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise BadRequest("the request states the length of its body more than once")
    if codings:
        return None, minor > 0 and codings[0].lower() == b"chunked"
    if not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest("the request's Content-Length is no number of at most 20 digits")
    return int(lengths[0]), False


def _target(method: bytes, stated: bytes) -> tuple[bytes, bytes | None]:
    """Path and query of the target *stated*, and the host in it if it has one (RFC 9112 section 3.2)."""
    if len(stated) > LONGEST_TARGET:
        raise TargetTooLong(f"the request target has {len(stated):,} bytes; at most {LONGEST_TARGET:,} are read")
    if not _TARGET.fullmatch(stated):
        raise BadRequest("the request target has characters that a URL must percent-encode")
    if method == b"CONNECT":
        raise MethodNotAllowed("CONNECT: this is no forward proxy; set its URL as the package index, not as the HTTP proxy")
    if stated.startswith(b"/"):
        return stated, None
    if stated == b"*":
        if method == b"OPTIONS":
            raise MethodNotAllowed("OPTIONS *: only GET and HEAD are answered here")
        raise BadRequest("the request target * is for OPTIONS alone")
    absolute = _ABSOLUTE.fullmatch(stated)
    if absolute is None or not absolute[1] or not _HOST.fullmatch(absolute[1]):
        raise BadRequest("the request target is neither a path nor an http:// or https:// URL with a host")
    return (absolute[2] or b"/") + (absolute[3] or b""), absolute[1]


def unfinished(data: Bytes, since: int) -> ProxyError | None:
    """Why *data*, which has no end yet, cannot become a head that is taken, if so; up to *since* it was looked at before."""
    if len(data) > LONGEST:
        return _too_long(data)
    if data == b"\r":
        return None
    # A CR at the end is looked at when the next byte has come, and with it the LF that may have come after it.
    start = since if data[since - 1 : since] != b"\r" else since - 1
    if _is_strange(data[start:].removesuffix(b"\r")) or not _TOKEN.match(data):
        return BadRequest("what was sent is no HTTP request")
    return None


def _is_strange(data: Bytes) -> bool:
    """Whether *data* has controls or line ends that are in no head (RFC 9112 section 2.2, RFC 9110 section 5.5)."""
    ends = data.count(b"\r\n")
    return data.count(b"\r") != ends or data.count(b"\n") != ends or len(data.translate(None, _CONTROLS)) != len(data)


def is_tls(data: Bytes) -> bool:
    """Whether *data*, the first bytes of a connection, begin a TLS handshake, or one that older clients begin as SSLv2 did."""
    return data.startswith(_TLS_RECORD) or (len(data) > 2 and data[0] & 0x80 == 0x80 and data[2] == 1)


def _too_long(data: Bytes) -> ProxyError:
    """Which part of *data*, longer than any head that is read, is too long."""
    if data.find(b"\r\n", 0, LONGEST) < 0:
        return TargetTooLong(f"the request line has more than {LONGEST:,} bytes")
    return FieldsTooLarge(f"the request's header fields have more than {LONGEST:,} bytes")

"""One connection to a fake upstream: requests in, faulty responses out.

It speaks raw HTTP/1.1, because a proper server would refuse to misbehave.  One request at a time is answered, in a coroutine
that ends with the connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import itertools
import re
import struct
import termios
from collections.abc import Iterator
from http.client import responses
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.mechanism.twisted_internals import unsent
from tests.support.faults import Answer, Fault, Gate, Request

if TYPE_CHECKING:
    from tests.support.fake_upstream import FakeUpstream

_CHUNK = 64 * 1024


class _Ended(Exception):  # no error: it is how a response ends early
    """The fault has ended the connection."""


@implementer(IPushProducer)
class Connection(Protocol):
    """One client connection: requests in, one response at a time out, kept alive as HTTP/1.1 says."""

    factory: Any
    transport: Any
    _buffer = b""
    _skip = 0
    _answering: Deferred[None] | None = None
    _room: Deferred[None] | None = None
    _paused = False
    _gone = False

    def connectionMade(self) -> None:
        self.upstream: FakeUpstream = self.factory.upstream
        if not ISSLTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.upstream.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        skipped = min(self._skip, len(self._buffer))
        self._buffer, self._skip = self._buffer[skipped:], self._skip - skipped
        if self._answering is not None or b"\r\n\r\n" not in self._buffer or self._gone:
            return
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        headers: dict[str, str] = {}
        for each in fields:
            name, _, value = each.partition(":")
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        self._skip = int(headers.get("content-length", "0"))
        request = Request(method, target, headers)
        last = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
        self.upstream.arrive(request)
        self._answering = Deferred.fromCoroutine(self._answer(request, last))
        self._answering.addBoth(self._answered)

    def _answered(self, result: object) -> None:
        self._answering = None
        self.upstream.depart()
        if isinstance(result, Failure):
            if result.check(_Ended, CancelledError) is None:
                result.printTraceback()
                self.transport.abortConnection()
        elif not self._gone:
            self._next()

    def abort(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._answering is not None:
            self._answering.cancel()
        self.upstream.disconnected(self)

    # -- back-pressure --------------------------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        self._gone = True

    async def _send(self, data: bytes | memoryview) -> None:
        if self.upstream.is_silent:
            await self._forever()
        self.transport.write(bytes(data))
        if self._paused and not self._gone:
            self._room = Deferred()
            await self._room

    # -- answering ------------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, last: bool) -> None:
        upstream = self.upstream
        fault = upstream.fault_for(request)
        if fault.silent or upstream.is_silent:
            await self._forever()
        if fault.hold is not None and fault.hold_after is None:
            await self._pass(fault.hold)
        await self._wait(fault.delay)
        if fault.drop:
            await self._end()
        if fault.reset:
            await self._reset()
        if fault.garbage is not None:
            self.transport.write(fault.garbage)
            await self._end()
        answer = _faulty(upstream.answer(request), fault)
        status, headers, body = _ranged(request, answer, fault)
        headers, body = _coded(headers, body, fault)
        last = last or fault.close or fault.no_content_length
        if last:
            headers["Connection"] = "close"
        for name, value in fault.headers.items():
            headers = {key: kept for key, kept in headers.items() if key.lower() != name.lower()}
            if value is not None:
                headers[name] = value
        reason = fault.reason or responses.get(status, "Unknown")
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        await self._send("\r\n".join(lines).encode("latin-1"))
        if request.method != "HEAD" and status not in (204, 304):
            await self._wait(fault.first_byte_delay)
            await self._body(body, fault)
        if last:
            await self._end()

    async def _body(self, body: memoryview, fault: Fault) -> None:
        position = 0
        for piece in _pieces(body, fault, self.upstream.rate):
            if position == fault.hold_after and fault.hold is not None:
                await self._pass(fault.hold)
            if position == fault.stall_after:
                await self._forever()
            if position == fault.cut_after:
                await self._end()
            if position == fault.reset_after:
                await self._reset()
            await self._send(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) if fault.chunked else piece)
            position += len(piece)
            self.upstream.sent += len(piece)
            self.upstream.happened()
            if fault.trickle is not None:
                await self._wait(fault.trickle[1])
            elif self.upstream.rate is not None:
                await self._wait(len(piece) / self.upstream.rate)
        if fault.hold is not None and fault.hold_after is not None and fault.hold_after >= position:
            await self._pass(fault.hold)
        if fault.stall_after is not None and fault.stall_after >= position:
            await self._forever()
        if fault.reset_after is not None and fault.reset_after >= position:
            await self._reset()
        if fault.cut_after is not None and fault.cut_after >= position:
            await self._end()
        if fault.chunked:
            await self._send(b"0\r\n\r\n")

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await deferLater(self.upstream.reactor, seconds)

    async def _pass(self, gate: Gate) -> None:
        """Come to *gate*, and wait until it opens."""
        gate.arrivals += 1
        self.upstream.happened()
        await gate.opened()

    async def _forever(self) -> None:
        """Until the connection is lost."""
        await Deferred()

    async def _end(self) -> None:
        """FIN, after all that was written."""
        self._gone = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        raise _Ended

    async def _reset(self) -> None:
        """RST, after all that was written has arrived at the other side."""
        while not self._gone and (self._paused or _unacknowledged(self.transport)):
            await self._wait(0.001)
        self._gone = True
        self.transport.abortConnection()
        raise _Ended


def _unacknowledged(transport: Any) -> int:
    """Bytes that *transport* holds or the kernel has not had acknowledged (SIOCOUTQ)."""
    if ISSLTransport.providedBy(transport):
        return 0  # the socket is out of reach below TLS; a reset may then overtake the last bytes
    held = unsent(transport)
    with contextlib.suppress(OSError):
        held += struct.unpack("i", fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return held


def _faulty(answer: Answer, fault: Fault) -> Answer:
    """*answer* with the fault's own status, body or redirect."""
    if fault.redirect is not None:
        return Answer(fault.status or 302, {"Location": fault.redirect}, fault.body or b"")
    if fault.body is not None:
        answer = replace(answer, body=fault.body, status=fault.status or 200)
    elif fault.status is not None:
        answer = Answer(fault.status, {"Content-Type": "text/plain"}, b"" if fault.status == 304 else b"as the script says\n")
    if fault.corrupt_at is not None and answer.body:
        wrong = bytearray(answer.body)
        wrong[fault.corrupt_at] ^= 0xFF
        answer = replace(answer, body=bytes(wrong))
    return answer


def _ranged(request: Request, answer: Answer, fault: Fault) -> tuple[int, dict[str, str], memoryview]:
    """The status, headers and body after a ``Range`` (RFC 9110 section 14); several ranges get the whole."""
    headers, body = dict(answer.headers), memoryview(answer.body)
    if not answer.ranges or answer.status != 200:
        return answer.status, headers, body
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", "").strip())
    condition = request.headers.get("if-range")
    if fault.ignore_range or not asked or (condition is not None and condition not in headers.values()):
        if not fault.ignore_range:
            headers["Accept-Ranges"] = "bytes"
        return 200, headers, body
    size = len(body)
    first, last = asked[1], asked[2]
    start = int(first) if first else max(0, size - int(last or 0))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return 416, {"Content-Range": f"bytes */{size}"}, memoryview(b"")
    return 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}, body[start:stop]


def _coded(headers: dict[str, str], body: memoryview, fault: Fault) -> tuple[dict[str, str], memoryview]:
    """The content coding and the framing."""
    if fault.gzip:
        headers, body = {**headers, "Content-Encoding": "gzip"}, memoryview(gzip.compress(body, mtime=0))
    if fault.chunked:
        headers = {**headers, "Transfer-Encoding": "chunked"}
    elif not fault.no_content_length:
        headers = {**headers, "Content-Length": str(len(body) if fault.content_length is None else fault.content_length)}
    return headers, body


def _pieces(body: memoryview, fault: Fault, rate: float | None) -> Iterator[memoryview]:
    """*body* in the pieces it is sent in: what the fault stops at falls between two of them."""
    step = fault.trickle[0] if fault.trickle else _CHUNK
    if rate is not None:
        step = max(1, min(step, int(rate / 20)))
    stops = {each for each in (fault.cut_after, fault.reset_after, fault.stall_after, fault.hold_after) if each is not None}
    edges = sorted({*range(0, len(body), step), *(each for each in stops if each < len(body)), len(body)})
    for start, stop in itertools.pairwise(edges):
        yield body[start:stop]

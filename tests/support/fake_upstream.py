"""The one fake upstream of the suite: a small HTTP/1.1 server that can be made to fail in every way a real one does.

It speaks raw HTTP over a Twisted protocol, because a proper server would refuse to misbehave.  Each connection answers one
request at a time in a coroutine, which ends with the connection.  A test adds files, scripts faults (`FakeUpstream.script`),
holds responses (`FakeUpstream.hold`), counts what was asked and waits for events (`FakeUpstream.until`) instead of sleeping.

``python -m tests.support.fake_upstream --help`` runs one in a process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import itertools
import math
import re
import socket
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http.client import responses
from typing import Any
from urllib.parse import quote

from attrs import evolve
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.content import Content, Project, normalize
from tests.support.faults import Answer, Fault, Gate, Match, Request, matches

__all__ = ["Answer", "FakeUpstream", "Fault", "Gate", "Request"]

_CHUNK = 64 * 1024
_NO_FAULT = Fault()


class FakeUpstream:
    """An upstream on 127.0.0.1.  ``content`` holds what it has and how it speaks; see `Content` for its settings.

    *tls* is a Twisted context factory (see ``tests.support.certs``).  *file_host* is another `FakeUpstream` that serves this
    one's files.  *rate* bounds every response, in bytes a second.
    """

    def __init__(
        self,
        *,
        tls: Any = None,
        file_host: FakeUpstream | None = None,
        rate: float | None = None,
        port: int = 0,
        reactor: Any = default_reactor,
    ) -> None:
        self.content = Content()
        self.reactor = reactor
        self.rate = rate
        #: Every request so far, in order of arrival.
        self.asked: list[Request] = []
        #: Bytes of bodies sent, responses ended, responses in progress, and the most of these at once.
        self.sent = 0
        self.answered = 0
        self.in_progress = 0
        self.most_in_progress = 0
        #: Connections open now, the most at once, and all there ever were.
        self.connections = 0
        self.most_connections = 0
        self.all_connections = 0
        self.is_silent = False
        self._tls = tls
        self._file_host = file_host
        self._port: Any = None
        self._number: int = port
        self._reserved: socket.socket | None = None
        self._live: set[_Connection] = set()
        self._script: list[tuple[Match, Fault, list[float]]] = []
        self._expected: list[tuple[Callable[[], bool], Deferred[None]]] = []

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> FakeUpstream:
        """Listen, on the port it had before if it had one."""
        factory = Factory.forProtocol(_Connection)
        factory.noisy = False
        factory.upstream = self  # type: ignore[attr-defined]  # how the protocols find their way back
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self._tls is None:
            self._port = self.reactor.listenTCP(self._number, factory, interface="127.0.0.1", backlog=1024)
        else:
            self._port = self.reactor.listenSSL(self._number, factory, self._tls, interface="127.0.0.1", backlog=1024)
        self._number = self._port.getHost().port
        return self

    up = start

    def down(self) -> Deferred[None]:
        """Refuse connections from now on, and reset those that are open.  The port stays reserved for :meth:`up`."""
        return Deferred.fromCoroutine(self._down())

    async def _down(self) -> None:
        port, self._port = self._port, None
        for connection in list(self._live):
            connection.abort()
        if port is not None:
            await port.stopListening()
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(("127.0.0.1", self._number))
        await self.until(lambda: not self._live)

    def silent(self, on: bool = True) -> None:
        """Accept connections and say nothing: the requests are counted and never answered.  Responses in progress stop."""
        self.is_silent = on

    async def close(self) -> None:
        """Be gone, and leave nothing behind in the reactor."""
        await self.down()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    @property
    def port(self) -> int:
        return self._number

    @property
    def base(self) -> str:
        """``scheme://host:port``."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._number}"

    @property
    def url(self) -> str:
        """The simple index's root."""
        return f"{self.base}/simple/"

    # -- content --------------------------------------------------------------------------------------------------------------

    def add_file(
        self,
        project: str,
        filename: str,
        data: bytes,
        *,
        metadata: bytes | None = None,
        entry: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> str:
        """Add or replace a file and list it on its project's page.  Returns its absolute URL.

        *metadata* is served beside it and advertised.  *keys* (``requires_python=…``, underscores for hyphens) and *entry*
        (keys as they stand) go into its JSON entry over what is there by default; ``None`` removes a key.
        """
        listed = {name.replace("_", "-"): value for name, value in keys.items()} | dict(entry or {})
        host = self._file_host or self
        base = "" if self.content.relative and host is self else host.base
        path = self.content.put(base, project, filename, data, metadata, listed)
        host.content.keep(path, data, metadata)
        return host.base + quote(path)

    def remove_file(self, project: str, filename: str) -> None:
        """Take the file from its page; its URL goes on working."""
        found = self.content.project(project)
        del found.files[filename]
        found.serial += 1

    def remove_project(self, project: str) -> None:
        del self.content.projects[normalize(project)]

    def project(self, name: str) -> Project:
        """The project *name* (made if need be), to set ``keys``, ``serial`` or a ``raw`` page."""
        return self.content.project(name)

    def add_path(
        self, path: str, body: bytes, content_type: str = "text/html", *, ranges: bool = False, **headers: str
    ) -> None:
        """Answer *path* with *body*."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.content.paths[path] = Answer(200, {"Content-Type": content_type, **named}, body, ranges)

    # -- faults ---------------------------------------------------------------------------------------------------------------

    def script(self, match: Match, fault: Fault, times: int | None = None) -> None:
        """Apply *fault* to the next *times* responses (``None``: to all) to requests that *match*.

        The script that was given first wins.
        """
        self._script.append((match, fault, [math.inf if times is None else times]))

    def heal(self) -> None:
        """Forget all scripts and silence."""
        self._script.clear()
        self.is_silent = False

    def hold(self, match: Match, after: int | None = None, times: int | None = None) -> Gate:
        """Hold responses before their status line, or after *after* bytes of the body, until the gate is released."""
        gate = Gate()
        self.script(match, Fault(hold=gate, hold_after=after), times)
        return gate

    def answer(self, request: Request) -> Answer:
        """The answer to *request* before any fault."""
        return self.content.answer(request)

    def fault_for(self, request: Request) -> Fault:
        """The fault that applies to *request*; counts it down."""
        for match, fault, left in self._script:
            if left[0] > 0 and matches(match, request):
                left[0] -= 1
                return fault
        return _NO_FAULT

    # -- counting and waiting -------------------------------------------------------------------------------------------------

    def count(self, glob: Match = "*", method: str | None = None) -> int:
        """How many requests so far match."""
        return sum(1 for each in self.asked if matches(glob, each) and method in (None, each.method))

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until *condition* holds; it is looked at whenever something happens here.  Raises TimeoutError."""
        if condition():
            return
        waiting: Deferred[None] = Deferred()
        entry = (condition, waiting)
        self._expected.append(entry)
        waiting.addTimeout(timeout, self.reactor)
        try:
            await waiting
        except DeferredTimeout:
            raise TimeoutError(f"not within {timeout} s; asked so far: {[each[:2] for each in self.asked]}") from None
        finally:
            if entry in self._expected:
                self._expected.remove(entry)

    def arrived(self, glob: Match, times: int = 1) -> Awaitable[None]:
        """Wait until *times* requests that match have come in, counting those that are in already."""
        return self.until(lambda: self.count(glob) >= times)

    def happened(self) -> None:
        """Told by connections: look at what is waited for."""
        for entry in [each for each in self._expected if each[0]()]:
            if entry in self._expected:
                self._expected.remove(entry)
                entry[1].callback(None)

    def arrive(self, request: Request) -> None:
        """Told by a connection: a request is in."""
        self.asked.append(request)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        self.happened()

    def depart(self) -> None:
        """Told by a connection: a response has ended, well or not."""
        self.in_progress -= 1
        self.answered += 1
        self.happened()

    def connected(self, connection: _Connection) -> None:
        self._live.add(connection)
        self.connections += 1
        self.all_connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        self.happened()

    def disconnected(self, connection: _Connection) -> None:
        self._live.discard(connection)
        self.connections -= 1
        self.happened()


class _Ended(Exception):  # no error: it is how a response ends early
    """The fault has ended the connection."""


@implementer(IPushProducer)
class _Connection(Protocol):
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
        while not self._gone and (self._paused or _unsent(self.transport)):
            await self._wait(0.001)
        self._gone = True
        self.transport.abortConnection()
        raise _Ended


def _unsent(transport: Any) -> int:
    """Bytes that *transport* holds or the kernel has not had acknowledged (SIOCOUTQ)."""
    if ISSLTransport.providedBy(transport):
        return 0  # the socket is out of reach below TLS; a reset may then overtake the last bytes
    held: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    with contextlib.suppress(OSError):
        held += struct.unpack("i", fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return held


def _faulty(answer: Answer, fault: Fault) -> Answer:
    """*answer* with the fault's own status, body or redirect."""
    if fault.redirect is not None:
        return Answer(fault.status or 302, {"Location": fault.redirect}, fault.body or b"")
    if fault.body is not None:
        answer = evolve(answer, body=fault.body, status=fault.status or 200)
    elif fault.status is not None:
        answer = Answer(fault.status, {"Content-Type": "text/plain"}, b"" if fault.status == 304 else b"as the script says\n")
    if fault.corrupt_at is not None and answer.body:
        wrong = bytearray(answer.body)
        wrong[fault.corrupt_at] ^= 0xFF
        answer = evolve(answer, body=bytes(wrong))
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


if __name__ == "__main__":
    from tests.support.standalone import main

    sys.exit(main())

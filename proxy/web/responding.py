"""One answer on its way out: head and body, at the client's pace, aborted rather than ended when it cannot be completed.

``finish()`` is never called after a disconnect.  A client that takes no byte for the stall time is dropped: a response in
progress has no other timeout.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request

from proxy.errors import ProxyError
from proxy.interfaces import IOffload
from proxy.web.answers import Answer, FileBody, StreamBody, printable
from proxy.web.hot import standing_headers
from proxy.web.sending import CopySender, SendfileSender, Silence

_errors = Logger(namespace="proxy.web")

#: Bytes that are handed to a client's connection at once.
PIECE = 128 * 1024


class Response:
    """One answer on its way out."""

    def __init__(
        self, request: Request, reactor: IReactorTime, offload: IOffload, stall_timeout: float, silence_within: float
    ) -> None:
        self._request = request
        self._reactor = reactor
        self._offload = offload
        self._stall_timeout = stall_timeout
        self._gone = False
        self._silence_within = silence_within
        self._stall: Any = None
        self.began = reactor.seconds()
        self.status = 0
        self.sent = 0
        self.word = "-"
        self.cut_off = False
        request.notifyFinish().addBoth(self._left)

    def _left(self, _: object) -> None:
        self._gone = True

    def _there(self) -> bool:
        return not self._gone

    async def send(self, answer: Answer, via: str) -> None:
        """Send *answer* to its end, or as far as it goes; *via* is this instance's pseudonym.  Raises nothing."""
        request = self._request
        body = answer.body
        self.status = answer.status
        self.word = answer.word
        if self._gone:
            _close(body)
            return
        reason = answer.reason or HTTPStatus(answer.status).phrase
        request.setResponseCode(answer.status, reason.encode("ascii", "replace"))
        headers = request.responseHeaders
        for name, value in standing_headers(via):
            headers.setRawHeaders(name, [value])
        for name, value in answer.headers:
            headers.addRawHeader(name, value)
        length = _length(body)
        if length is not None and answer.status not in (204, 304) and not headers.hasHeader(b"Content-Length"):
            headers.setRawHeaders(b"Content-Length", [b"%d" % length])
        if request.method == b"HEAD" or answer.status in (204, 304):
            _close(body)
            request.write(b"")
            request.finish()
            return
        try:
            if isinstance(body, bytes) and len(body) <= PIECE:
                self.sent = len(body)
                request.write(body)
            else:
                self._moved()
                await self._send_body(body)
        except (CancelledError, ConnectionLost):
            self.cut_off = self._gone = True
        except Exception as error:  # noqa: BLE001  # logged, and the client must see a cut-off body
            self._cut_off(error)
        finally:
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None
            _close(body)
        if not self._gone:
            request.finish()

    def _cut_off(self, error: Exception) -> None:
        """The body cannot be completed: make sure that it does not look complete."""
        self.cut_off = True
        if not isinstance(error, ProxyError):
            _errors.failure("bug: {path} was cut off", Failure(), path=printable(self._request.uri))
        else:
            _errors.error("{path} was cut off: {error}", path=printable(self._request.uri), error=error)
        self._abort()

    def _abort(self) -> None:
        if not self._gone:
            self._transport().abortConnection()
            self._gone = True

    def _transport(self) -> Any:
        """The transport of the client's connection, itself and not the channel that stands for it."""
        return self._request.channel.transport

    def _moved(self) -> None:
        """A byte went out: the client is alive."""
        if self._stall is None:
            self._stall = self._reactor.callLater(self._stall_timeout, self._stalled)
        else:
            self._stall.reset(self._stall_timeout)

    def _stalled(self) -> None:
        self._stall = None
        _errors.info(
            "{path}: client took no byte for {seconds} s and is dropped",
            path=printable(self._request.uri),
            seconds=self._stall_timeout,
        )
        self._abort()

    async def _send_body(self, body: bytes | FileBody | StreamBody) -> None:
        if isinstance(body, FileBody):
            await self._send_file(body)
        elif isinstance(body, StreamBody):
            await self._send_stream(body)
        else:
            await self._send_pieces(body)

    async def _send_pieces(self, body: bytes) -> None:
        """Send *body* as the client takes it, so that one that takes nothing of it is told from one that is slow."""
        flow = _Flow(self._request)
        try:
            for start in range(0, len(body), PIECE):
                if not self._there():
                    return
                self._request.write(body[start : start + PIECE])
                self.sent = min(start + PIECE, len(body))
                self._moved()
                await flow.room()
        finally:
            flow.close()

    async def _send_file(self, body: FileBody) -> None:
        request = self._request
        request.write(b"")
        span = body.span
        start = 0 if span is None else span.start
        stop = body.source.size if span is None else span.stop
        silence = Silence(self._reactor, self._silence_within)

        def moved() -> None:
            self._moved()
            silence.moved()

        about = (body.source, start, stop, self._offload, moved)
        transport = self._transport()
        sender: SendfileSender | CopySender
        if isinstance(transport, Connection) and not transport.TLS and not request.chunked:
            sender = SendfileSender(transport, request.channel, *about)
        else:
            sender = CopySender(request, *about)
        silence.watch(sender)
        try:
            await sender.start()
        finally:
            silence.end()
            self.sent = sender.sent

    async def _send_stream(self, body: StreamBody) -> None:
        flow = _Flow(self._request)
        left = body.length
        try:
            while left and self._there():
                data = await body.reader.read()
                if not data:
                    raise ProxyError(f"upstream's range ended {left:,} bytes early")
                data = data[:left]
                left -= len(data)
                self.sent += len(data)
                self._request.write(data)
                self._moved()
                await flow.room()
        finally:
            flow.close()


class _Flow:
    """Back-pressure for a coroutine that writes to a request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._paused: Deferred[None] | None = None
        request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()

    async def room(self) -> None:
        if self._paused is not None:
            await self._paused

    def close(self) -> None:
        if self._request.channel is not None:  # there is none after a disconnect
            self._request.unregisterProducer()


def _length(body: Any) -> int | None:
    if isinstance(body, bytes):
        return len(body)
    if isinstance(body, StreamBody):
        return body.length
    size: int | None = body.source.size if body.span is None else body.span.length
    return size


def _close(body: Any) -> None:
    if isinstance(body, FileBody):
        body.source.close()
    elif isinstance(body, StreamBody):
        body.reader.close()

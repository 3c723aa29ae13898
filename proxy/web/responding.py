"""One answer on its way out: head and body, at the client's pace, aborted rather than ended when it cannot be completed.

Nothing is written after a disconnect.  A client that takes no byte for the stall time is dropped: a response in progress has
no other timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IDelayedCall, IProducer, IPushProducer, IReactorTime, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.core.amounts import duration
from proxy.errors import ProxyError
from proxy.interfaces import IOffload
from proxy.mechanism.flight import Routine
from proxy.mechanism.transports import is_plain_socket
from proxy.settings import KIB
from proxy.web.answers import Answer, Body, FileBody, StreamBody, close_body
from proxy.web.encoding import BODILESS, encoded_head, with_request_id
from proxy.web.patience import Patience
from proxy.web.sender import Transfer
from proxy.web.sending import CopySender, Displaced, SendfileSender
from proxy.web.silence import Silence

_errors = Logger(namespace="proxy.web")

#: Bytes that are handed to a client's connection at once.
PIECE = 128 * KIB


class Outlet(Displaced, Protocol):
    """The connection that a response goes out on.  It is a push producer towards its *transport*."""

    transport: ITransport

    def abort(self) -> None:
        """Close at once."""

    def must_end(self) -> bool:
        """Whether the connection ends with the present answer."""

    def write(self, data: bytes) -> None:
        """Hand *data* to the transport."""

    def completed(self, *, last: bool) -> None:
        """The last byte of the answer has been handed over; *last*: the client was told that the connection ends."""

    def wait(self, work: Cancellable) -> None:
        """The answer to the present request is waited for, until *work* is cancelled: when the client leaves."""

    def begin(self, response: Response, work: Callable[[], Cancellable]) -> None:
        """The answer is *response*, which *work* begins."""


class Cancellable(Protocol):
    """What is done for a client, and ends when it leaves."""

    def cancel(self) -> object: ...


@implementer(IConsumer)
class Response:
    """The answer to the request *request_id*.  *path* is for the log; *minor* is the client's version, ``1.``\\ *minor*.

    The request came when it was *began*, now if that is ``None``.
    """

    def __init__(
        self,
        outlet: Outlet,
        reactor: IReactorTime,
        offload: IOffload,
        *,
        request_id: str,
        path: str,
        to_head: bool,
        minor: int,
        patience: Patience,
        began: float | None = None,
    ) -> None:
        #: The connection, ``None`` once it is lost.
        self.channel: Outlet | None = outlet
        self._reactor = reactor
        self._offload = offload
        self._path = path
        self._to_head = to_head
        self._minor = minor
        self._stall_timeout = patience.stall_timeout
        self._silence_within = patience.silence_within
        self._stall: IDelayedCall | None = None
        self._producer: IPushProducer | None = None
        self._chunked = False
        #: Whether nothing more is sent: the client has left, or its connection is aborted.
        self._aborted = False
        self.request_id = request_id
        self.began = reactor.seconds() if began is None else began
        #: When the first byte was sent, in seconds after the request; ``None``: none was.
        self.first_byte: float | None = None
        self.status = 0
        self.sent = 0
        #: Bytes of the body that were sent before.
        self._before = 0
        self.word = "-"
        self.cut_off = False

    async def send(self, answer: Answer, via: str, encoded: bytes | None = None) -> None:
        """Send *answer* to its end, or as far as it goes; *via* is this instance's pseudonym.  Raises nothing.

        *encoded* is its head for a connection that goes on, if somebody has it.
        """
        self.status = answer.status
        self.word = answer.word
        channel = self.channel
        if channel is None:
            close_body(answer.body)
            return
        bodiless = self._to_head or answer.status in BODILESS
        unsized = not bodiless and answer.length is None
        self._chunked = unsized and self._minor > 0
        last = channel.must_end() or answer.closes or (unsized and not self._chunked)
        known = None if self._chunked or last else encoded
        await self._carry_out(
            self._send_whole(channel, answer, via, known, bodiless=bodiless, last=last), answer.body, last=last
        )

    async def send_rest(self, body: FileBody, answer: Answer, first_byte: float) -> None:
        """Send *body*, a part of a file, to its end; the head of *answer*, and what is before it, were sent at *first_byte*.

        Raises nothing.
        """
        assert body.span is not None
        self.status, self.word, self.first_byte = answer.status, answer.word, first_byte
        self.sent = self._before = body.span.start
        await self._carry_out(self._send_body(body), body, last=False)

    async def _carry_out(self, sending: Routine[None], body: Body, *, last: bool) -> None:
        """Have *sending* send what ends with *body*, and see to the end of it."""
        try:
            await sending
        except (CancelledError, ConnectionLost):
            self.abort()  # the client has left, or what the body comes from was given up
        except Exception as error:  # noqa: BLE001  # logged, and the client must see a cut-off body
            self._cut_off(error)
        finally:
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None
            close_body(body)
        channel = self.channel
        if channel is not None and not self._aborted:
            if self._chunked:
                channel.write(b"0\r\n\r\n")
            channel.completed(last=last)
        else:
            self.cut_off = True

    async def _send_whole(
        self, channel: Outlet, answer: Answer, via: str, encoded: bytes | None, *, bodiless: bool, last: bool
    ) -> None:
        head = encoded_head(answer, via, chunked=self._chunked, close=last) if encoded is None else encoded
        head, body = with_request_id(head, self.request_id), answer.body
        self.first_byte = self._reactor.seconds() - self.began
        if bodiless:
            channel.write(head)
        elif isinstance(body, bytes) and len(body) <= PIECE:
            self.sent = len(body)
            channel.write(head + body)
        else:
            channel.write(head)
            await self._send_body(body)

    def _is_there(self) -> bool:
        """Whether the client can be sent something."""
        return self.channel is not None and not self._aborted

    # -- told by the channel

    def lost(self) -> None:
        """The connection is lost."""
        self.channel = None
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def pause(self) -> None:
        """The transport wants no more bytes."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """The transport wants bytes again."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # -- what senders write to

    def write(self, data: bytes) -> None:
        """Hand on a piece of the body, in a chunk if it is sent in chunks."""
        if self._is_there() and data:
            assert self.channel is not None
            self.channel.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have *producer*, an IPushProducer, paused and resumed as the transport wants bytes."""
        assert streaming
        self._producer = producer = IPushProducer(producer)
        if self.channel is None:
            self.lost()
        elif self.channel.blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    # -- the end of what cannot be completed

    def _cut_off(self, error: Exception) -> None:
        """The body cannot be completed: make sure that it does not look complete."""
        if not isinstance(error, ProxyError):
            _errors.failure("bug: {path} was cut off", Failure(), path=self._path)
        else:
            _errors.error("{path} was cut off: {error}", path=self._path, error=error)
        self.abort()

    def abort(self) -> None:
        """End the connection at once, unless it is lost or ended already."""
        if self.channel is not None and not self._aborted:
            self.channel.abort()
        self._aborted = True

    def _moved(self) -> None:
        """A byte went out: the client is alive."""
        if self._stall is None:
            self._stall = self._reactor.callLater(self._stall_timeout, self._stalled)
        else:
            self._stall.reset(self._stall_timeout)

    def _stalled(self) -> None:
        self._stall = None
        _errors.info(
            "{path}: client took no byte for {patience} and is dropped",
            path=self._path,
            patience=duration(self._stall_timeout),
            request_id=self.request_id,
        )
        self.abort()

    # -- bodies

    async def _send_body(self, body: Body) -> None:
        self._moved()
        if isinstance(body, FileBody):
            await self._send_file(body)
        elif isinstance(body, StreamBody):
            await self._send_stream(body)
        else:
            assert isinstance(body, bytes)  # a shared file has become one of this response's own
            await self._send_pieces(body)

    async def _send_pieces(self, body: bytes) -> None:
        """Send *body* as the client takes it, so that one that takes nothing of it is told from one that is slow."""
        flow = _Flow(self)
        try:
            for start in range(0, len(body), PIECE):
                if not self._is_there():
                    return
                self.write(body[start : start + PIECE])
                self.sent = min(start + PIECE, len(body))
                self._moved()
                await flow.room()
        finally:
            self.unregisterProducer()

    async def _send_file(self, body: FileBody) -> None:
        channel = self.channel
        assert channel is not None
        span = body.span
        start = 0 if span is None else span.start
        stop = body.source.size if span is None else span.stop
        silence = Silence(self._reactor, self._silence_within)

        def moved() -> None:
            self._moved()
            silence.moved()

        transfer = Transfer(body.source, start, stop, self._offload, moved)
        transport = channel.transport
        sender: SendfileSender | CopySender
        if is_plain_socket(transport) and not self._chunked:
            sender = SendfileSender(transfer, transport, channel)
        else:
            sender = CopySender(transfer, self)
        silence.watch(sender)
        try:
            await sender.start()
        finally:
            silence.end()
            self.sent = self._before + sender.sent

    async def _send_stream(self, body: StreamBody) -> None:
        flow = _Flow(self)
        left = body.length
        try:
            while left != 0 and self._is_there():
                data = await body.reader.read()
                if left is None:
                    if not data:
                        return
                elif not data:
                    raise ProxyError(f"upstream's range ended {left:,} bytes early")
                else:
                    data = data[:left]
                    left -= len(data)
                self.sent += len(data)
                self.write(data)
                self._moved()
                await flow.room()
        finally:
            self.unregisterProducer()


@implementer(IPushProducer)
class _Flow:
    """Back-pressure for a coroutine that writes to *response*."""

    def __init__(self, response: Response) -> None:
        self._paused: Deferred[None] | None = None
        response.registerProducer(self, True)

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

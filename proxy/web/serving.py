"""The one place where coroutines meet ``twisted.web``: runs a route for each request, writes its answer, logs one line.

A client that leaves cancels its route (which cancels nothing that others share).  ``finish()`` is never called after a
disconnect.  A client that takes no byte for the stall time is dropped: a response in progress has no other timeout.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy.errors import ProxyError, SlowUpstream
from proxy.interfaces import IOffload
from proxy.waiters import Waiters
from proxy.web.answers import Answer, Ask, FileBody, StreamBody, printable, split_path
from proxy.web.hot import Hit, standing_headers
from proxy.web.problems import problem
from proxy.web.sending import CopySender, SendfileSender, Silence

#: An answer that has not begun after this long becomes a 503 (seconds): pip gives up after 15 s without a byte, and what is
#: under way goes on and is there when it asks again.
ANSWER_WITHIN = 12.0
#: A body of which upstream has sent nothing for this long is cut off (seconds), for the same reason: clients that resume will.
SILENCE_WITHIN = 14.0

_access = Logger(namespace="proxy.access")
_errors = Logger(namespace="proxy.web")

Route = Callable[[Ask], Awaitable[Answer]]

#: Told after each response: method, path, status, bytes, seconds, cache outcome.
Observe = Callable[[str, str, int, int, float, str], None]


class Front(Resource):
    """The whole site as one resource: *route* answers everything."""

    isLeaf = True

    def __init__(
        self,
        route: Route,
        reactor: IReactorTime,
        offload: IOffload,
        *,
        via: str,
        stall_timeout: float,
        observe: Observe = lambda method, path, status, size, seconds, word: None,
        answer_within: float = ANSWER_WITHIN,
        silence_within: float = SILENCE_WITHIN,
    ) -> None:
        super().__init__()
        self.answer_within = answer_within
        self.silence_within = silence_within
        self._route = route
        self._reactor = reactor
        self._offload = offload
        self._via = via
        self._stall_timeout = stall_timeout
        self._observe = observe
        self.in_progress = 0
        self._quiet: Waiters[None] = Waiters()

    def render(self, request: Request) -> int:
        request.defaultContentType = None  # type: ignore[attr-defined]  # twisted.web would call every body text/html
        response = _Response(request, self._reactor, self._offload, self._stall_timeout, self.silence_within)
        self.in_progress += 1
        work = Deferred.fromCoroutine(self._respond(request, response))
        request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addErrback(lambda failure: _errors.failure("a response failed", failure))
        work.addBoth(self._ended, request, response)
        return NOT_DONE_YET

    def quiet(self) -> Deferred[None]:
        """Fires when no response is in progress."""
        return self._quiet.wait() if self.in_progress else succeed(None)

    async def _respond(self, request: Request, response: _Response) -> None:
        ask = _ask(request)
        try:
            answer = await self._in_time(ask)
        except ProxyError as error:
            answer = problem(error)
            if answer.status >= 500:
                _errors.error("{path}: {status} {error}", path=ask.path, status=answer.status, error=error)
        except CancelledError:
            return
        except Exception:  # noqa: BLE001  # a bug in one route is a 500 for one client
            _errors.failure("bug: {method} {path} failed", Failure(), method=ask.method, path=ask.path)
            answer = problem(ProxyError("the proxy met a fault of its own; its log has the details"))
        await response.send(answer, self._via)

    async def _in_time(self, ask: Ask) -> Answer:
        """The route's answer.  Raises SlowUpstream when it takes too long; nothing that others share is cancelled by that."""
        late = False
        routed = Deferred.fromCoroutine(_started(self._route(ask)))

        def give_up() -> None:
            nonlocal late
            late = True
            routed.cancel()

        deadline = self._reactor.callLater(self.answer_within, give_up)
        try:
            return await routed
        except CancelledError:
            if late:
                raise SlowUpstream(
                    f"{ask.path} is still on its way after {self.answer_within:g} s: upstream is slow, ask again"
                ) from None
            raise
        finally:
            if deadline.active():
                deadline.cancel()

    def _ended(self, _: object, request: Request, response: _Response) -> None:
        seconds = self._reactor.seconds() - response.began
        method, path, agent = (
            printable(part) for part in (request.method, request.uri, request.getHeader(b"user-agent") or b"-")
        )
        client = request.getClientAddress()
        self._account(client, method, path, agent, response.status, response.sent, seconds, response.word, response.cut_off)
        self.in_progress -= 1
        if not self.in_progress:
            self._quiet.wake(None)

    def answered_at_once(self, hit: Hit, client: object) -> None:
        """Account for an answer that went out without a request object."""
        answer = hit.answer
        self._account(client, "GET", hit.path, hit.agent, answer.status, len(hit.body), 0.0, answer.word, False)

    def _account(
        self, client: object, method: str, path: str, agent: str, status: int, sent: int, seconds: float, word: str, cut: bool
    ) -> None:
        """One response has ended: count it, and write its line in the access log."""
        self._observe(method, path, status, sent, seconds, word)
        _access.info(
            '{client} {method} {path} {status} {bytes} {seconds:.3f} {cache} "{agent}"{cut}',
            client=getattr(client, "host", "-"),
            method=method,
            path=path,
            status=status,
            bytes=sent,
            seconds=seconds,
            cache=word,
            agent=agent,
            cut=" cut off" if cut else "",
        )


def _ask(request: Request) -> Ask:
    raw, _, query = request.uri.partition(b"?")
    headers = {
        name.decode("latin-1").lower(): ", ".join(value.decode("latin-1") for value in values)
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    return Ask(
        printable(request.method),
        split_path(raw),
        printable(raw),
        printable(query),
        headers,
        raw=getattr(request.channel, "raw", None),
        secure=bool(request.isSecure()),
    )


async def _started(route: Awaitable[Answer]) -> Answer:
    return await route


class _Response:
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
            if isinstance(body, bytes):
                self.sent = len(body)
                request.write(body)
            else:
                self._moved()
                await (self._send_file(body) if isinstance(body, FileBody) else self._send_stream(body))
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

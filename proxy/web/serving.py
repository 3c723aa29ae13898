"""The one place where coroutines meet ``twisted.web``: runs a route for each request, has its answer sent, logs one line.

A client that leaves cancels its route (which cancels nothing that others share).
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy.errors import Overloaded, ProxyError, SlowUpstream
from proxy.interfaces import IOffload
from proxy.waiters import Waiters
from proxy.web.answers import Answer, Ask, printable, split_path
from proxy.web.heads import RequestHead
from proxy.web.hot import Hit, HotRequests, written
from proxy.web.problems import problem
from proxy.web.responding import Response

#: An answer that has not begun after this long becomes a 503 (seconds): pip gives up after 15 s without a byte, and what is
#: under way goes on and is there when it asks again.
ANSWER_WITHIN = 12.0
#: A body of which upstream has sent nothing for this long is cut off (seconds), for the same reason: clients that resume will.
SILENCE_WITHIN = 14.0

_access = Logger(namespace="proxy.access")
_errors = Logger(namespace="proxy.web")

Route = Callable[[Ask], Awaitable[Answer]]

#: What the system says when it has no more descriptors or no more memory for this process, or for any.
_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: Told after each response: method, path, status, bytes, seconds, cache outcome.
Observe = Callable[[str, str, int, int, float, str], None]


class Front(Resource):
    """The whole site as one resource: *route* answers everything that *hot* does not know an answer to."""

    isLeaf = True

    def __init__(
        self,
        route: Route,
        hot: HotRequests,
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
        self.hot = hot
        self._reactor = reactor
        self._offload = offload
        self._via = via
        self.stall_timeout = stall_timeout
        self._observe = observe
        self.in_progress = 0
        self._quiet: Waiters[None] = Waiters()

    def render(self, request: Request) -> int:
        request.defaultContentType = None  # type: ignore[attr-defined]  # twisted.web would call every body text/html
        response = Response(request, self._reactor, self._offload, self.stall_timeout, self.silence_within)
        self.in_progress += 1
        work = Deferred.fromCoroutine(self._respond(request, response))
        request.notifyFinish().addErrback(lambda _: work.cancel())
        work.addErrback(lambda failure: _errors.failure("a response failed", failure))
        work.addBoth(self._ended, request, response)
        return NOT_DONE_YET

    def quiet(self) -> Deferred[None]:
        """Fires when no response is in progress."""
        return self._quiet.wait() if self.in_progress else succeed(None)

    async def _respond(self, request: Request, response: Response) -> None:
        ask = _ask(request)
        try:
            answer = await self._in_time(ask)
            if answer.again is not None:
                self.hot.remember(ask, answer.again)
        except ProxyError as error:
            answer = self._told(ask, error)
        except CancelledError:
            return
        except Exception as error:  # noqa: BLE001  # a bug in one route is a 500 for one client
            if (short := _shortage(error)) is not None:
                answer = self._told(ask, short)
            else:
                _errors.failure("bug: {method} {path} failed", Failure(), method=ask.method, path=ask.path)
                answer = problem(ProxyError("the proxy met a fault of its own; its log has the details"))
        await response.send(answer, self._via)

    def _told(self, ask: Ask, error: ProxyError) -> Answer:
        """The answer for *error*, which is logged if it is not the client's."""
        answer = problem(error)
        if answer.status >= 500:
            _errors.error("{path}: {status} {error}", path=ask.path, status=answer.status, error=error)
        return answer

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

    def _ended(self, _: object, request: Request, response: Response) -> None:
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

    def turn_away(self, error: ProxyError, head: RequestHead | None, client: object) -> bytes:
        """Account for a request that no route is asked about, and return the whole answer to it (see `refusal`).

        *head* is ``None`` when there is none that can be read.
        """
        method, path, agent = "-", "-", "-"
        if head is not None:
            method, path, agent = map(printable, (head.method, head.target, head.get(b"user-agent") or b"-"))
        self._account(client, method, path, agent, error.status, 0, 0.0, error.code, False)
        return self.refusal(error, bodiless=method == "HEAD")

    def refusal(self, error: ProxyError, *, bodiless: bool = False) -> bytes:
        """*error* as a whole answer that says that the connection ends with it; without its body when *bodiless*."""
        answer = problem(error)
        assert isinstance(answer.body, bytes)
        return written(answer, self._via, ("Connection", "close")) + (b"" if bodiless else answer.body)

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


def _shortage(error: Exception) -> Overloaded | None:
    """What to tell the client when *error*, or what caused it, is that the machine has no more room for this process."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _USED_UP):
            reason = cause.strerror if isinstance(cause, OSError) else "Cannot allocate memory"
            return Overloaded(f"the system gives this proxy no more ({reason}): ask again, and raise its limits if that stays")
        cause = cause.__cause__
    return None


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
        head=getattr(request.channel, "head", None),
        secure=bool(request.isSecure()),
    )


async def _started(route: Awaitable[Answer]) -> Answer:
    return await route

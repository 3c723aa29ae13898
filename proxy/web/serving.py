"""The one place where coroutines meet connections: runs a route for each request, has its answer sent, logs one line.

A client that leaves cancels its route (which cancels nothing that others share).  Whatever else ends a route, its client is
answered, or sees the connection end.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.amounts import duration
from proxy.core.events import Answered, RouteLabel, Shed
from proxy.core.shedding import LoadShed
from proxy.errors import GivenUp, Overloaded, ProxyError, SlowRequest, SlowUpstream
from proxy.interfaces import IOffload, IRecorder, IVisits
from proxy.mechanism.flight import Routine
from proxy.mechanism.request_ids import RequestIds, current_request_id
from proxy.mechanism.waiting import WaitingRequest, WaitingRoom, waiting
from proxy.statistics.recorders import UNRECORDED
from proxy.web.answers import Answer, Ask, FileBody, SharedFile, printable
from proxy.web.bodies import RequestBody
from proxy.web.callers import Caller, Callers
from proxy.web.encoding import Encoded, encoded_head, with_request_id
from proxy.web.fanout import FanOuts, Receiver
from proxy.web.following import Followers
from proxy.web.heads import RequestHead
from proxy.web.hot import Hit, HotRequests, Meaning
from proxy.web.patience import Patience
from proxy.web.problems import problem
from proxy.web.requested import About, Requested
from proxy.web.responding import Outlet, Response
from proxy.web.responses import Responses, logged
from proxy.web.routes import Route, UrlSpace
from proxy.web.sharing import Follower, Sharing
from proxy.web.subjects import subject_of
from proxy.web.user_agents import NO_USER_AGENT
from proxy.web.visitors import wants_html

_errors = Logger(namespace="proxy.web")

#: Answers a request.  Raises ProxyError.
Answerer = Callable[[Ask], Awaitable[Answer]]

#: What the system says when it has no more descriptors or no more memory for this process, or for any.
_USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: No path leads anywhere.
_NOWHERE = UrlSpace((), (), None)


class Front:
    """The whole site: *answer* answers every request that *hot* does not know an answer to.

    *space* says where paths lead; *recorder* is told of each response that has ended, *visits* of those of clients that are
    about something of an index.  In *room* requests wait for upstream (``None``: as many as there are).  *ids* are those of its
    requests, *access_log* is whether each of them is logged.
    """

    def __init__(
        self,
        answer: Answerer,
        hot: HotRequests,
        callers: Callers,
        reactor: IReactorTime,
        offload: IOffload,
        *,
        via: str,
        patience: Patience,
        space: UrlSpace = _NOWHERE,
        recorder: IRecorder = UNRECORDED,
        visits: IVisits = UNRECORDED,
        room: WaitingRoom | None = None,
        ids: RequestIds | None = None,
        access_log: bool = True,
    ) -> None:
        self.patience = patience
        self._room = room or WaitingRoom(sys.maxsize, reactor)
        self._answer = answer
        self._space = space
        self.hot = hot
        self.callers = callers
        self.reactor = reactor
        self._offload = offload
        self._via = via
        self._recorder = recorder
        self._ids = ids or RequestIds()
        self.responses = Responses(reactor, recorder, visits, self._ids, access_log=access_log)
        self._fan_outs = FanOuts(reactor, self.responses, self._ids, self)
        self.followers = Followers(hot, self._room, reactor, self.responses, self._ids, self._fan_outs, self)
        self.sharing = Sharing(via, hot, self.followers)

    @property
    def in_progress(self) -> int:
        """How many responses are under way."""
        return self.responses.in_progress

    def quiet(self) -> Deferred[None]:
        """Fires when no response is in progress."""
        return self.responses.quiet()

    # -- the long way to an answer: a route

    def _leads(self, head: RequestHead) -> Route:
        path, _, _ = head.target.partition(b"?")
        return self._space.route(path, printable(path))

    def serve(self, head: RequestHead, caller: Caller, outlet: Outlet, *, secure: bool, body: RequestBody | None) -> None:
        """Answer *head*, which has come just now, on *outlet*, which ends the work if its client leaves."""
        name = None if body is not None else self.sharing.name(head)
        leader = self.sharing.leader(name)
        if leader is not None:
            self.followers.follow(leader, head, caller, outlet, secure=secure)
            return
        route = self._leads(head)
        place = route.place._replace(route=RouteLabel.UPLOAD) if head.method == b"POST" else route.place
        asked = Requested(head, caller, outlet, About(place, subject_of(route)), self.reactor.seconds(), secure)
        stated = head.get(b"authorization") is not None
        if name is not None and stated and not self.hot.lets_in(self.hot.question(route), head, caller):
            name = None  # a wrong credential is answered late, and nobody waits for that but who sent it
        self.responses.begin()
        self._begin(asked, lambda response: self._respond(self._ask(asked, response, route, body), response, name))

    def repeat(self, hit: Hit, head: RequestHead, caller: Caller, outlet: Outlet, *, secure: bool) -> None:
        """Answer *head* with *hit*, which is too large for one write; if it cannot be given any more, as :meth:`serve`."""
        asked = Requested(head, caller, outlet, About(hit.event.place, hit.subject), self.reactor.seconds(), secure)
        self.responses.begin()
        answer = hit.answer
        if not isinstance(answer.body, SharedFile):
            self.answer_with(asked, answer, hit.head)
        elif not self._fan_outs.send(asked, answer.body, Encoded(answer, hit.head)):
            self.responses.end()
            self.serve(head, caller, outlet, secure=secure, body=None)

    def _ask(self, asked: Requested, response: Response, route: Route, body: RequestBody | None = None) -> Ask:
        deadline = asked.began + self.patience.answer_within
        return ask_of(asked.head, asked.caller, route, response.request_id, deadline, secure=asked.secure, body=body)

    def _begin(self, asked: Requested, work: Callable[[Response], Routine[None]], request_id: str | None = None) -> None:
        """Have *work* answer *asked*, which is counted already and called *request_id*, if that is known."""
        head, caller = asked.head, asked.caller
        response = Response(
            asked.outlet,
            self.reactor,
            self._offload,
            request_id=self._ids.of(head.raw, trusted=caller.vouched_for) if request_id is None else request_id,
            path=printable(head.target),
            to_head=head.method == b"HEAD",
            minor=head.minor,
            patience=self.patience,
            began=asked.began,
        )

        def begun() -> Deferred[None]:
            context = copy_context()
            context.run(current_request_id.set, response.request_id)
            working = context.run(Deferred.fromCoroutine, work(response))
            working.addErrback(self._failed, response)
            working.addBoth(self._ended, asked, response)
            return working

        asked.outlet.begin(response, begun)

    def _ended(self, _: object, asked: Requested, response: Response) -> None:
        self.responses.ended(
            asked,
            response.request_id,
            response.status,
            response.sent,
            response.word,
            response.first_byte,
            cut_off=response.cut_off,
        )

    # -- the long way of those who have waited for the answer to another request, or have got a part of it

    def answer_alone(self, follower: Follower) -> None:
        """Answer *follower* by a route of its own."""
        route = self._leads(follower.head)
        self._begin(follower, lambda response: self._respond(self._ask(follower, response, route), response))

    def answer_with(self, asked: Requested, answer: Answer, encoded: bytes) -> None:
        """Answer *asked* with *answer*, whose head on a connection that goes on is *encoded*."""
        self._begin(asked, lambda response: response.send(answer, self._via, encoded))

    def answer_refused(self, follower: Follower, why: LoadShed) -> None:
        """Answer *follower* that it has to give way."""
        route = self._leads(follower.head)
        self._begin(follower, lambda response: response.send(self._told(self._ask(follower, response, route), why), self._via))

    def send_rest(self, receiver: Receiver, rest: FileBody) -> None:
        """Send *receiver* the *rest*, which is what it has not got yet."""
        answer, first_byte = receiver.answer, receiver.first_byte
        self._begin(receiver.asked, lambda response: response.send_rest(rest, answer, first_byte), receiver.request_id)

    # -- routes

    def _failed(self, failure: Failure, response: Response) -> None:
        """Nobody knows how far *response* has come, so nothing may follow it."""
        _errors.failure("a response failed", failure, request_id=response.request_id)
        response.abort()

    async def _respond(self, ask: Ask, response: Response, name: Meaning | None = None) -> None:
        """Answer *ask* by its route; those whose requests are called *name* too may follow."""
        request = self._room.request(ask.caller.address)
        try:
            answer = await self.sharing.leading(name, ask, request, self._in_time)
            if answer.again is not None:
                self.hot.remember(ask, answer.again)
        except ProxyError as error:
            answer = self._told(ask, error)
        except CancelledError:
            if response.channel is None:
                return  # the client has left
            answer = self._told(ask, GivenUp("what this request waited for was given up, as when this proxy stops: ask again"))
        except Exception as error:  # noqa: BLE001  # a bug in one route is a 500 for one client
            if (short := _shortage(error)) is not None:
                answer = self._told(ask, short)
            else:
                _errors.failure("bug: {method} {path} failed", Failure(), method=ask.method, path=ask.path)
                answer = _presented(ask, ProxyError("the proxy met a fault of its own; its log has the details"))
        await response.send(answer, self._via)

    def _told(self, ask: Ask, error: ProxyError) -> Answer:
        """The answer for *error*, which is logged if it is not the client's."""
        answer = _presented(ask, error)
        if isinstance(error, LoadShed):
            self._recorder.record(Shed(error.reason))
            answer.closes = True  # a retry behind a balancer may reach another node
        elif answer.status >= 500:
            _errors.error("{path}: {status} {error}", path=ask.path, status=answer.status, error=error)
        return answer

    async def _in_time(self, ask: Ask, request: WaitingRequest) -> Answer:
        """The route's answer.  Raises SlowUpstream when it takes too long; nothing that others share is cancelled by that.

        Raises LoadShed when *request* has to give way to others.

        A body that is still coming is given the same time again from its last byte, unless it is due.  Raises SlowRequest when
        it stops coming, or is late.  What is done with the bytes that have come may take longer.
        """
        late = awaited = False
        deadline: IDelayedCall
        routed = Deferred.fromCoroutine(_started(self._answer(ask), request))
        request.on_shed(routed.cancel)
        body = ask.body

        def look() -> None:
            nonlocal late, awaited, deadline
            if body is not None:
                limit = self.patience.answer_within if body.awaited else self.patience.work_within
                until = body.moved_at + limit
                if body.awaited and body.due is not None:
                    until = min(until, body.due)
                left = until - self.reactor.seconds()
                if left > 0:
                    deadline = self.reactor.callLater(min(left, self.patience.answer_within), look)
                    return
            late, awaited = True, body is not None and body.awaited
            routed.cancel()

        deadline = self.reactor.callLater(max(0.0, ask.deadline - self.reactor.seconds()), look)
        try:
            return await routed
        except CancelledError:
            if not late and request.shed:
                raise request.refusal() from None
            if not late:
                raise
            if awaited:
                within = duration(self.patience.answer_within)
                told = f"nothing of the request's body came for {within}"
                if body is not None and body.due is not None:
                    told = f"the request's body was not complete {within} after its head"
                raise SlowRequest(told) from None
            if body is not None:
                raise Overloaded(
                    f"what was sent is not stored after {duration(self.patience.work_within)}: the disk is slow, send it again"
                ) from None
            raise SlowUpstream(
                f"{ask.path} is still on its way after {duration(self.patience.answer_within)}: upstream is slow, ask again"
            ) from None
        finally:
            request.end()
            if deadline.active():
                deadline.cancel()

    # -- what is refused

    def turn_away(self, error: ProxyError, head: RequestHead | None, caller: Caller) -> bytes:
        """Account for a request that no route is asked about, and return the whole answer to it (see `refusal`).

        *head* is ``None`` when there is none that can be read.
        """
        method, path, user_agent = ("-", "-", NO_USER_AGENT) if head is None else logged(head)
        place = None if head is None else self._leads(head).place
        event = Answered(method, error.status, 0, 0.0, error.code, place)
        request_id = self._ids.of(b"" if head is None else head.raw, trusted=caller.vouched_for)
        self.responses.account(event, None, caller.address, path, user_agent, request_id)
        return self.refusal(error, request_id, bodiless=method == "HEAD")

    def refusal(self, error: ProxyError, request_id: str = "", *, bodiless: bool = False) -> bytes:
        """*error* as a whole answer that says that the connection ends with it; without its body when *bodiless*.

        Without *request_id* what came is no request.
        """
        if isinstance(error, LoadShed):
            self._recorder.record(Shed(error.reason))
        answer = problem(error, request_id)
        assert isinstance(answer.body, bytes)
        head = encoded_head(answer, self._via, close=True)
        return (with_request_id(head, request_id) if request_id else head) + (b"" if bodiless else answer.body)


def _presented(ask: Ask, error: ProxyError) -> Answer:
    """The answer for *error* in the form that whoever sent *ask* reads: a page for people, else problem JSON."""
    answer = problem(error, ask.request_id)
    if not wants_html(ask):
        return answer
    from proxy.web.faults import error_page  # few services see people

    return error_page(error, answer, ask)


def _shortage(error: Exception) -> Overloaded | None:
    """What to tell the client when *error*, or what caused it, is that the machine has no more room for this process."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in _USED_UP):
            reason = cause.strerror if isinstance(cause, OSError) else "Cannot allocate memory"
            return Overloaded(f"the system gives this proxy no more ({reason}): ask again, and raise its limits if that stays")
        cause = cause.__cause__
    return None


def ask_of(
    head: RequestHead,
    caller: Caller,
    route: Route,
    request_id: str,
    deadline: float,
    *,
    secure: bool,
    body: RequestBody | None,
) -> Ask:
    """The request with the head *head*, whose path leads to *route*; *request_id* and *deadline* as in `Ask`."""
    raw, _, query = head.target.partition(b"?")
    headers: dict[str, str] = {}
    for each, value in head.fields:
        if head.host is not None and each == b"host":
            value = head.host
        name, text = each.decode("latin-1"), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    if head.host is not None:
        headers.setdefault("host", head.host.decode("latin-1"))
    method, path = printable(head.method), printable(raw)
    return Ask(method, route, path, printable(query), headers, head, caller, request_id, deadline, secure, body)


async def _started(route: Awaitable[Answer], request: WaitingRequest) -> Answer:
    waiting.set(request)
    return await route

"""Requests that wait for the answer to another one (:mod:`proxy.web.sharing`), and how each of them is answered.

Theory of operation.  When fifty agents install the same at one moment, 49 of 50 requests follow.  What there is of one that
waits is a :class:`~proxy.web.sharing.Follower` and its place in the crowd of those who wait for upstream: no response, no
coroutine, no context, no timer, because its leader has a time limit and it came later.  When the answer is there, all are
answered in one loop, as the hot lane answers: one write.  What takes more than that goes the long way: an answer that does not
fit into one write, one after which the connection ends, and a request that needs its own answer.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.shedding import LoadShed
from proxy.mechanism.request_ids import RequestIds
from proxy.mechanism.waiting import WaitingRoom
from proxy.web.answers import Answer, SharedFile
from proxy.web.callers import Caller
from proxy.web.encoding import BODILESS, Encoded, with_request_id
from proxy.web.fanout import FanOuts
from proxy.web.heads import RequestHead
from proxy.web.hot import HotRequests
from proxy.web.requested import Requested
from proxy.web.responding import PIECE, Outlet
from proxy.web.responses import Responses
from proxy.web.sharing import Follower, Leader

_errors = Logger(namespace="proxy.web")


class LongWay(Protocol):
    """What answers those who cannot be answered with one write (:class:`proxy.web.serving.Front`)."""

    def answer_alone(self, follower: Follower) -> None:
        """Answer *follower* by a route of its own."""

    def answer_with(self, asked: Requested, answer: Answer, encoded: bytes) -> None:
        """Answer *asked* with *answer*, whose head on a connection that goes on is *encoded*."""

    def answer_refused(self, follower: Follower, why: LoadShed) -> None:
        """Answer *follower* that it has to give way."""


class Followers:
    """All who wait for answers to others, in *room*.

    *hot* says who may have them, *fan_outs* send files, and *long_way* has what else cannot be answered at once; *responses* is
    told of what is.  *ids* are those of the requests.
    """

    def __init__(
        self,
        hot: HotRequests,
        room: WaitingRoom,
        reactor: IReactorTime,
        responses: Responses,
        ids: RequestIds,
        fan_outs: FanOuts,
        long_way: LongWay,
    ) -> None:
        self._hot = hot
        self._room = room
        self._reactor = reactor
        self._responses = responses
        self._ids = ids
        self._fan_outs = fan_outs
        self._long_way = long_way

    def follow(self, leader: Leader, head: RequestHead, caller: Caller, outlet: Outlet, *, secure: bool) -> None:
        """Have the request *head* of *caller*, which asks the same as *leader*, wait for the same answer."""
        request = self._room.request(caller.address)
        follower = Follower(head, caller, outlet, leader.about, self._reactor.seconds(), secure, self, leader, request)
        self._responses.begin()
        try:
            request.follow(leader.request)
        except LoadShed as error:
            self._long_way.answer_refused(follower, error)
            return
        leader.followers[follower] = None
        request.on_shed(follower.give_way)
        outlet.wait(follower)

    def left(self, follower: Follower) -> None:
        """The client of *follower* has left."""
        if self._leaves(follower):
            self._responses.ended(follower, self._id_of(follower), 0, 0, "-", None)

    def gives_way(self, follower: Follower) -> None:
        """*follower* waits no more, because too much does."""
        if self._leaves(follower):
            self._long_way.answer_refused(follower, follower.request.refusal())

    def answered(self, leader: Leader, answer: Encoded | None) -> None:
        """All who follow *leader* get *answer*, if they may; ``None``: each of them needs its own."""
        tail: bytes | None = None
        if answer is not None:
            body = b"" if answer.answer.status in BODILESS else answer.answer.body
            if isinstance(body, bytes) and len(body) <= PIECE and not answer.answer.closes:
                tail = body
        for follower in list(leader.followers):
            if not self._leaves(follower):
                continue  # while others were answered
            try:
                self._answer(follower, answer, tail)
            except Exception:  # noqa: BLE001  # nobody knows how far it has come; the others are answered
                _errors.failure("a response failed", Failure())
                follower.outlet.abort()
                self._responses.end()

    def _answer(self, follower: Follower, answer: Encoded | None, body: bytes | None) -> None:
        """Give *answer* to *follower*; *body* is that of one that fits into one write."""
        if answer is None or not self._hot.lets_in(follower.leader.question, follower.head, follower.caller):
            self._long_way.answer_alone(follower)
        elif body is not None and not follower.outlet.must_end():
            self._at_once(follower, answer, body)
        elif not isinstance(answer.answer.body, SharedFile):
            self._long_way.answer_with(follower, answer.answer, answer.head)
        elif not self._fan_outs.send(follower, answer.answer.body, answer):
            self._long_way.answer_alone(follower)

    def _at_once(self, follower: Follower, answer: Encoded, body: bytes) -> None:
        began = self._reactor.seconds()
        request_id = self._id_of(follower)
        follower.outlet.write(with_request_id(answer.head, request_id) + body)
        follower.outlet.completed(last=False)
        told = answer.answer
        self._responses.ended(follower, request_id, told.status, len(body), told.word, began - follower.began)

    def _id_of(self, follower: Follower) -> str:
        return self._ids.of(follower.head.raw, trusted=follower.caller.vouched_for)

    def _leaves(self, follower: Follower) -> bool:
        """Have *follower* wait no more; whether it did."""
        waits = follower in follower.leader.followers
        if waits:
            del follower.leader.followers[follower]
            follower.request.unfollow()
        return waits

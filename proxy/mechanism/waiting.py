"""Requests of clients that wait for upstream: how many, of whom, and who gives way when there are too many.

Theory of operation.  What answers a request is told of it by the context variable :data:`waiting`, and says so where it waits
for upstream (``with waiting.get(): await …``).  What many requests share is no request: it runs with :data:`UNCOUNTED`.  A
request that gets the answer to another one waits while that one does (:meth:`WaitingRequest.follow`).

Each request counts once, whether it is the only one that waits for a page or one of a hundred: what it takes is a connection.
Upstream is asked once for all of them, and its own limits bound that.  Who has an older answer at hand does not count: it waits
for a moment only.  :mod:`proxy.core.shedding` decides who gives way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import TracebackType

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxy.core.events import ShedReason
from proxy.core.networks import client_network
from proxy.core.shedding import Crowd, GivingWay, LoadShed, giving_way
from proxy.core.troubles import Reason, Trouble

#: Seconds between two log lines about requests that were refused, and for which the last refusal counts as a trouble.
_TELL_EVERY = 60.0


class WaitingRoom:
    """All requests of clients that wait for upstream, at most *limit*."""

    log = Logger()

    def __init__(self, limit: int, reactor: IReactorTime) -> None:
        self._limit = limit
        self._reactor = reactor
        self._crowd: Crowd[WaitingRequest] = Crowd()
        self._told_at: float | None = None
        self._shed_at: float | None = None
        self._shed = 0

    @property
    def limit(self) -> int:
        """How many may wait."""
        return self._limit

    def limit_to(self, limit: int) -> None:
        """Let *limit* requests wait from now on; those that wait already go on."""
        self._limit = limit

    @property
    def total(self) -> int:
        """How many wait."""
        return self._crowd.total

    @property
    def full(self) -> bool:
        """Whether a request that arrives now costs another one, or itself, its place."""
        return self._crowd.total >= self._limit

    def request(self, client: str) -> WaitingRequest:
        """A request of the address *client*, which does not wait yet.  All addresses of one host count as one."""
        return WaitingRequest(self, client_network(client))

    async def look(self) -> Sequence[Trouble]:
        """Whether requests were refused lately."""
        if self._shed_at is None or self._reactor.seconds() - self._shed_at >= _TELL_EVERY:
            return []
        return [
            Trouble(
                Reason.OVERLOADED,
                f"requests are refused with 503: {self._limit} may wait for upstream (server.max_waiting); what is cached is "
                "served; pypiproxy upstreams shows who is slow",
            )
        ]

    # -- told by requests

    def admit(self, request: WaitingRequest) -> None:
        """*request* waits from now on.  Raises LoadShed when it is the one that gives way."""
        crowd, client = self._crowd, request.client
        if request.shed:
            raise self.refusal()
        match giving_way(crowd.total, self._limit, crowd.count(client), crowd.most):
            case GivingWay.ARRIVING:
                self._tell(client)
                request.refuse()
                raise self.refusal()
            case GivingWay.HEAVIEST:
                heaviest, victim = crowd.newest_of_heaviest()
                self._tell(heaviest)
                crowd.remove(heaviest, victim)
                victim.refuse()
                self.later(victim.give_up)
        crowd.add(client, request)

    def leave(self, request: WaitingRequest) -> None:
        """*request* waits no more."""
        self._crowd.remove(request.client, request)

    def later(self, give_up: Callable[[], None]) -> None:
        """Call *give_up* in another turn: what it ends may be at work further down the stack."""
        self._reactor.callLater(0.0, give_up)

    def refusal(self) -> LoadShed:
        """What is answered to a request that gives way."""
        return LoadShed(
            ShedReason.WAITING,
            f"as many requests wait for upstream as may ({self._limit}, server.max_waiting), and your address has the most: "
            "ask again",
        )

    def _tell(self, heaviest: str) -> None:
        self._shed += 1
        now = self._shed_at = self._reactor.seconds()
        if self._told_at is None or now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            self.log.warn(
                "{count} requests were refused: {limit} wait for upstream (server.max_waiting) of {clients} clients, most of "
                "them of {client}; what is cached is served, pypiproxy upstreams shows who is slow",
                count=self._shed,
                limit=self._limit,
                clients=self._crowd.clients,
                client=heaviest,
            )
            self._shed = 0


class WaitingRequest:
    """One request of *client*.  In its context (``with``) it waits; the outermost context counts.

    Entering raises LoadShed when it gives way, and then or later :attr:`shed` is true.
    """

    __slots__ = ("_depth", "_ended", "_followers", "_follows", "_give_up", "_room", "client", "shed")

    def __init__(self, room: WaitingRoom, client: str) -> None:
        self.client = client
        #: Whether it gives way.
        self.shed = False
        self._room = room
        self._depth = 0
        self._follows: WaitingRequest | None = None
        self._ended = False
        self._give_up: Callable[[], object] | None = None
        self._followers: dict[WaitingRequest, None] = {}

    @property
    def crowded(self) -> bool:
        """Whether too much waits: who has an answer at hand need not wait for a better one."""
        return self._room.full

    @property
    def waits(self) -> bool:
        """Whether it waits for upstream now."""
        return self._depth > 0

    def on_shed(self, give_up: Callable[[], object]) -> None:
        """Have *give_up* called when it has to stop waiting."""
        self._give_up = give_up

    def refusal(self) -> LoadShed:
        """What is answered when it gives way."""
        return self._room.refusal()

    def end(self) -> None:
        """It has its answer: whatever still goes on in its context is done for nobody."""
        self._ended = True
        self._room.leave(self)

    def __enter__(self) -> None:
        if self._depth == 0 and not self._ended:
            self._room.admit(self)
        self._depth += 1
        if self._depth == 1 and self._followers:
            for each in list(self._followers):
                each.join()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._room.leave(self)

    def follow(self, leader: WaitingRequest) -> None:
        """Wait while *leader* does, until :meth:`unfollow`.  Raises LoadShed when it gives way; it follows nobody then."""
        leader.followed_by(self)
        self._follows = leader
        if leader.waits:
            try:
                self.__enter__()
            except LoadShed:
                self.unfollow()
                raise

    def unfollow(self) -> None:
        """Wait no more."""
        leader, self._follows = self._follows, None
        if leader is not None:
            leader.left_by(self)
        if self._depth:
            self.__exit__(None, None, None)

    # -- told by the room, and by those whose answer is the same

    def refuse(self) -> None:
        """It gives way."""
        self.shed = True

    def give_up(self) -> None:
        """Stop waiting, if it still does."""
        if self._give_up is not None and not self._ended and (self._depth or self._follows is not None):
            self._give_up()

    def followed_by(self, follower: WaitingRequest) -> None:
        """*follower* waits for the same answer."""
        self._followers[follower] = None

    def left_by(self, follower: WaitingRequest) -> None:
        """*follower* waits for it no more."""
        del self._followers[follower]

    def join(self) -> None:
        """Wait from now on, as the one that it follows does."""
        if not self._depth:
            try:
                self.__enter__()
            except LoadShed:
                self._room.later(self.give_up)


class _Uncounted:
    """What runs for nobody in particular: it is counted by those who wait for it."""

    crowded = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


UNCOUNTED = _Uncounted()

#: What the present work is done for.
waiting: ContextVar[WaitingRequest | _Uncounted] = ContextVar("waiting", default=UNCOUNTED)

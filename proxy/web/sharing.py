"""Many who ask the same at one moment: the first goes the long way, and its answer is that of all who came meanwhile.

Only of pages, metadata and files, of which each client has its own place (:class:`~proxy.web.answers.SharedFile`).  And only of
requests that :func:`proxy.web.hot.meaning` understands all of: two of the same meaning differ in nothing that an answer depends
on.

They may differ in who sends them.  The door admits each of them by itself, once the answer is there: see
:mod:`proxy.web.following`, which has what becomes of those who wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.cache_status import collapsed
from proxy.mechanism.waiting import WaitingRequest
from proxy.web.answers import Answer, Ask, FileBody, StreamBody
from proxy.web.door import Question
from proxy.web.encoding import Encoded, encoded_head
from proxy.web.heads import RequestHead
from proxy.web.hot import HotRequests, Meaning, meaning
from proxy.web.requested import About, Requested
from proxy.web.subjects import subject_of

_errors = Logger(namespace="proxy.web")

#: What the targets of files and of what is beside them have in them; those of pages end with a slash.
_OF_FILES = (b"/files/", b"/packages/")


class FollowerListener(Protocol):
    """Where requests wait for the answers to others (:class:`proxy.web.following.Followers`)."""

    def left(self, follower: Follower) -> None:
        """The client of *follower* has left."""

    def gives_way(self, follower: Follower) -> None:
        """*follower* waits no more, because too much does."""

    def answered(self, leader: Leader, answer: Encoded | None) -> None:
        """All who follow *leader* get *answer*; ``None``: each of them needs its own."""


class Leader(Struct, frozen=True, eq=False):
    """The request *head* that goes the long way, to whatever *about* says; who follows gets its answer.

    *request* is that request among those that wait for upstream.  *question* is what the door is asked of each who follows.
    *known*: the hot table knows the request.  *closes*: the connection ends with the answer.
    """

    head: RequestHead
    about: About
    question: Question | None
    request: WaitingRequest
    known: bool
    closes: bool
    followers: dict[Follower, None]


class Follower(Requested, frozen=True, eq=False):
    """One that waits for the answer of *leader*.  All there is of it: neither a response nor a coroutine."""

    following: FollowerListener
    leader: Leader
    request: WaitingRequest

    def cancel(self) -> None:
        """Its client has left."""
        self.following.left(self)

    def give_way(self) -> None:
        """Wait no more, because too much does."""
        self.following.gives_way(self)


class Sharing:
    """The requests under way that others may follow, by what they ask.  *via* goes into each ``Via``.

    *hot* is asked what is known, and *following* told the answers.
    """

    def __init__(self, via: str, hot: HotRequests, following: FollowerListener) -> None:
        self._via = via
        self._hot = hot
        self._following = following
        self._leaders: dict[Meaning, Leader] = {}
        #: The same, by their bytes: those of one farm's agents are the same, and need not be parsed.
        self._by_bytes: dict[bytes, Leader] = {}

    @property
    def under_way(self) -> int:
        """Requests that others may follow."""
        return len(self._leaders)

    @property
    def waiting(self) -> int:
        """Requests that follow."""
        return sum(len(each.followers) for each in self._leaders.values())

    def seen(self, raw: bytes) -> Leader | None:
        """Whom the request with the head *raw* follows, if its bytes are those of a request under way."""
        return self._by_bytes.get(raw) if self._by_bytes else None

    @staticmethod
    def name(head: RequestHead) -> Meaning | None:
        """What requests have in common that get one answer; ``None`` for one that gets its own."""
        target = head.target
        return meaning(head) if target.endswith(b"/") or any(each in target for each in _OF_FILES) else None

    def leader(self, name: Meaning | None) -> Leader | None:
        """Whom a request called *name* follows, if anybody."""
        return None if name is None else self._leaders.get(name)

    async def leading(
        self,
        name: Meaning | None,
        ask: Ask,
        request: WaitingRequest,
        route: Callable[[Ask, WaitingRequest], Awaitable[Answer]],
    ) -> Answer:
        """The answer that *route* gives to *ask*, which all who follow are told too; *request* is that of *ask*.

        Raises what *route* raises: they are told that they need their own.
        """
        if name is None or name in self._leaders:
            return await route(ask, request)
        head, same = ask.head, ask.head.raw
        about, question = About(ask.route.place, subject_of(ask.route)), self._hot.question(ask.route)
        leader = Leader(head, about, question, request, self._hot.knows(name), head.closes, {})
        self._leaders[name] = self._by_bytes[same] = leader
        answer: Answer | None = None
        try:
            answer = await route(ask, request)
        finally:
            del self._leaders[name], self._by_bytes[same]
            if leader.followers:
                self._following.answered(leader, self._shared(answer))
        return answer

    def _shared(self, answer: Answer | None) -> Encoded | None:
        """What those get who have waited for *answer*; ``None`` when each of them needs its own."""
        try:
            return _for_others(answer, self._via)
        except Exception:  # noqa: BLE001  # a bug: nobody else would tell those who wait, and they have no time limit
            _errors.failure("bug: what follows from an answer is not known", Failure())
            if answer is not None:
                answer.again = None  # nobody else is to be answered so
            return None


def _for_others(answer: Answer | None, via: str) -> Encoded | None:
    """What those get who have waited for *answer*: what it would be now; ``None`` when each of them needs its own.

    A page may have changed since the first of them asked, and who is told that a change was made sees it with the next request.
    """
    if answer is None or answer.again is None or (ready := answer.again()) is None:
        return None
    now = ready[1]()
    if isinstance(now.body, FileBody | StreamBody):
        return None
    status = next((collapsed(value) for name, value in answer.headers if name == "Cache-Status"), None)
    headers = [(name, status if name == "Cache-Status" and status is not None else value) for name, value in now.headers]
    told = replace(now, headers=headers, word="collapsed" if answer.word in ("miss", "refreshed") else answer.word)
    return Encoded(told, encoded_head(told, via))

"""Many who ask the same at one moment: the first goes the long way, and its answer is that of all who came meanwhile.

Only of pages, metadata and files, of which each client has its own place (:class:`~proxy.web.answers.SharedFile`).  And only of
requests that :func:`proxy.web.hot.meaning` understands all of: two of the same meaning differ in nothing that an answer depends
on.

They may differ in who sends them.  The door admits each of them by itself, once the answer is there: see
:meth:`proxy.web.serving.Front.follow`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from proxy.core.cache_status import collapsed
from proxy.mechanism.waiters import Waiters
from proxy.mechanism.waiting import WaitingRequest
from proxy.web.answers import Answer, Ask, FileBody, StreamBody
from proxy.web.encoding import Encoded, encoded_head
from proxy.web.heads import RequestHead
from proxy.web.hot import meaning
from proxy.web.routes import Route

#: What the targets of files and of what is beside them have in them; those of pages end with a slash.
_OF_FILES = (b"/files/", b"/packages/")


class Leader(Struct, frozen=True):
    """The request *head* that goes the long way, to *route*; who waits gets its answer, or ``None`` if it is not for others.

    *request* is that request among those that wait for upstream.
    """

    head: RequestHead
    route: Route
    request: WaitingRequest
    followers: Waiters[Encoded | None]

    def wait(self) -> Deferred[Encoded | None]:
        """Fires when the answer is known."""
        return self.followers.wait()


class Sharing:
    """The requests under way that others may follow, by what they ask.  *via* goes into each ``Via``."""

    def __init__(self, via: str) -> None:
        self._via = via
        self._leaders: dict[Hashable, Leader] = {}
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
    def name(head: RequestHead) -> Hashable | None:
        """What requests have in common that get one answer; ``None`` for one that gets its own."""
        target = head.target
        return meaning(head) if target.endswith(b"/") or any(each in target for each in _OF_FILES) else None

    def leader(self, name: Hashable | None) -> Leader | None:
        """Whom a request called *name* follows, if anybody."""
        return None if name is None else self._leaders.get(name)

    async def leading(
        self,
        name: Hashable | None,
        ask: Ask,
        request: WaitingRequest,
        route: Callable[[Ask, WaitingRequest], Awaitable[Answer]],
    ) -> Answer:
        """The answer that *route* gives to *ask*, which all who follow are told too; *request* is that of *ask*.

        Raises what *route* raises: they are told that they need their own.
        """
        if name is None or name in self._leaders:
            return await route(ask, request)
        leader = self._leaders[name] = Leader(ask.head, ask.route, request, Waiters())
        same = ask.head.raw
        self._by_bytes[same] = leader
        answer: Answer | None = None
        try:
            answer = await route(ask, request)
        finally:
            del self._leaders[name], self._by_bytes[same]
            leader.followers.wake(_for_others(answer, self._via) if len(leader.followers) else None)
        return answer


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

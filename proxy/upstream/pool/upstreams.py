"""The upstreams of one index, seen as one: the first healthy one answers, the next takes over within the same request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from zope.interface import implementer

from proxy.core.amounts import duration
from proxy.interfaces import Clock, IBodyReader, IOffload, IRecorder, IUpstreams, Receive
from proxy.model import Condition, DocumentReply, FileFacts, PageFound, PageMissing, PageReply, Validators, Wanted
from proxy.settings import KIB, IndexSettings
from proxy.statistics.recorders import UNRECORDED
from proxy.upstream.http.attempt import Manner
from proxy.upstream.http.failures import Failed, Fault, Missing
from proxy.upstream.index.documents import ask_companion, ask_document, document_url
from proxy.upstream.index.files import ask_facts, open_part
from proxy.upstream.index.pages import ask_page, page_url
from proxy.upstream.index.projects import ask_projects
from proxy.upstream.pool.fetching import Fetching
from proxy.upstream.pool.holders import Holders
from proxy.upstream.pool.rounds import PATIENCE, Rounds
from proxy.upstream.pool.standing import Standing
from proxy.upstream.pool.upstream import Upstream, UpstreamState

R = TypeVar("R")

#: The largest body of a page that a probe may ask for (bytes).
_SMALL = 64 * KIB
#: In Python 3.11 a member of an enumeration takes longer to find than all else that a hot request asks of this module.
_UP = Condition.UP


@implementer(IUpstreams)
class Upstreams:
    """The upstreams *clients* (in order of preference) of *index*.  *recorder* is told what is worth counting."""

    def __init__(
        self,
        index: IndexSettings,
        clients: Sequence[Upstream],
        *,
        reactor: Any,
        offload: IOffload,
        recorder: IRecorder = UNRECORDED,
        patience: float = PATIENCE,
        clock: Clock = time.time,
    ) -> None:
        self._clock = clock
        self._clients = tuple(clients)
        self._ordered = index.policy == "ordered"
        self._reactor = reactor
        self._offload = offload
        self._standing = Standing(index, clients, reactor, offload, clock)
        self.rounds = Rounds(index, clients, reactor, patience)
        self._holders = Holders(self._standing, reactor, offload, recorder)
        self._fetching = Fetching(self.rounds, self._holders, reactor.seconds)

    def condition(self) -> Condition:
        best = Condition.DOWN
        for client in self._clients:
            condition = client.evidence.condition()
            if condition is _UP:
                return condition
            if condition is Condition.SUSPECT:
                best = condition
        return best

    def retry_in(self) -> float:
        return self.rounds.retry_in()

    def spare(self) -> bool:
        return self.condition() is Condition.UP and not any(client.crowded for client in self._clients)

    def slow(self, waited: float) -> None:
        for client in self._clients:
            client.slow(waited)

    def outranks(self, upstream: str, other: str) -> bool:
        names = [client.name for client in self._clients]
        if upstream not in names:
            return False
        return other not in names or (self._ordered and names.index(upstream) < names.index(other))

    def distrust(self, upstream: str, why: str) -> None:
        for client in self._clients:
            if client.name == upstream:
                client.mark(why)

    def last_modified(self) -> float | None:
        moments = [
            succeeded - (client.lag or 0.0) for client in self._clients if (succeeded := client.last_success_at) is not None
        ]
        return max(moments, default=None)

    async def look(self) -> None:
        """Learn how far each upstream is behind (PEP 381), before :meth:`states` is shown to somebody."""
        await self._standing.look_at_all()

    def states(self) -> list[UpstreamState]:
        """What operators see, in order of preference."""
        return [client.state() for client in self._clients]

    async def close(self) -> None:
        self._standing.close()

    # -- pages and documents -------------------------------------------------------------------------------------------------

    async def page(self, project: str, known: Validators | None) -> PageReply:
        async def ask(client: Upstream, manner: Manner) -> PageReply:
            settings, now = client.settings, self._clock()
            reply = await client.answer(
                page_url(settings, project),
                manner,
                lambda attempt: ask_page(attempt, settings, client.dialect, project, known, self._offload, now),
            )
            if isinstance(reply, PageFound) and len(reply.record.body) <= _SMALL:
                client.evidence.page_worked(project)
            return reply

        return await self._definite(f"the page of {project}", project, ask)

    async def document(self, path: str, known: Validators | None) -> DocumentReply:
        async def ask(client: Upstream, manner: Manner) -> DocumentReply:
            settings, now = client.settings, self._clock()
            return await client.answer(
                document_url(settings, path),
                manner,
                lambda attempt: ask_document(attempt, settings, path, known, self._offload, now),
            )

        return await self._definite(path, path.split("/")[1], ask)

    async def projects(self, known: Validators | None, receive: Receive) -> DocumentReply:
        async def ask(client: Upstream, manner: Manner) -> DocumentReply:
            settings, now = client.settings, self._clock()
            return await client.answer(
                settings.url, manner, lambda attempt: ask_projects(attempt, settings, known, receive, now)
            )

        return await self._definite("the list of projects", "", ask)

    async def companion(self, wanted: Wanted, known: Validators | None) -> DocumentReply:
        async def ask(client: Upstream, manner: Manner) -> DocumentReply:
            settings, now = client.settings, self._clock()
            return await client.answer(
                wanted.url,
                manner,
                lambda attempt: ask_companion(attempt, settings, wanted.url, known, self._offload, now),
            )

        return await self.rounds.all(self.rounds.attempts(wanted.name), lambda: self._holders.of(wanted), ask)

    async def _definite(self, what: str, project: str, ask: Callable[[Upstream, Manner], Awaitable[R]]) -> R | PageMissing:
        """What the first upstream answers that may: one that is not too far behind; a no only from those that may decide."""
        attempts = self.rounds.attempts(what)
        missing: list[PageMissing] = []
        lagging: list[Upstream] = []

        async def ask_one(client: Upstream, manner: Manner) -> R:
            if client not in lagging and not await self._standing.current(client):
                lagging.append(client)
                words = f"is {duration(client.lag or 0.0)} behind (upstream.{client.name}.max_lag)"
                raise Failed(words, fault=Fault.NO_EVIDENCE)
            reply = await ask(client, manner)
            if isinstance(reply, PageMissing) and not self._decides(client, lagging):
                missing.append(reply)
                raise Missing("answered 404 Not Found", reply.url)
            return reply

        try:
            return await self.rounds.all(attempts, lambda: self._standing.order(project), ask_one)
        except Exception:
            # A mirror that lags is better than none; its 404 alone says nothing.
            late = await self.rounds.first(lagging, attempts, ask_one) if lagging else None
            if late is not None:
                return late
            if missing and attempts.all_missing:
                return missing[-1]
            raise

    def _decides(self, client: Upstream, lagging: Sequence[Upstream]) -> bool:
        """Whether a 404 of *client* is definite on its own: it is authoritative, or the preferred upstream and has everything.

        That of a stand-in counts only when nobody fails: what the preferred upstream has is not known then.
        """
        if client.settings.partial or client in lagging:
            return False
        return client.settings.authoritative or (self._ordered and client is self._clients[0])

    # -- files -------------------------------------------------------------------------------------------------------------

    async def fetch(self, wanted: Wanted, sink: Any) -> None:
        await self._fetching.fetch(wanted, sink)

    async def facts(self, wanted: Wanted) -> FileFacts:
        async def ask(client: Upstream, manner: Manner) -> FileFacts:
            place = await self._holders.place(client, wanted, manner)
            return await client.answer(place.url, manner, lambda attempt: ask_facts(attempt, place, wanted), file=True)

        return await self.rounds.all(self.rounds.attempts(wanted.name), lambda: self._holders.of(wanted), ask)

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        async def ask(client: Upstream, manner: Manner) -> IBodyReader:
            place = await self._holders.place(client, wanted, manner)
            return await client.open(place.url, manner, lambda attempt: open_part(attempt, place, wanted, start, stop))

        return await self.rounds.all(self.rounds.attempts(wanted.name), lambda: self._holders.of(wanted), ask)

"""The upstreams of one index, seen as one: the first healthy one answers, the next takes over within the same request."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from zope.interface import implementer

from proxy.interfaces import Clock, IBodyReader, IOffload, IUpstreams, Receive
from proxy.model import Condition, DocumentReply, FileFacts, PageMissing, PageReply, Validators, Wanted
from proxy.settings import IndexSettings
from proxy.upstream.client import UpstreamClient, UpstreamState
from proxy.upstream.conditional import Manner
from proxy.upstream.documents import ask_companion, ask_document
from proxy.upstream.failures import Failed, Missing
from proxy.upstream.fetching import Fetching
from proxy.upstream.files import ask_facts, open_part
from proxy.upstream.health import Trial
from proxy.upstream.holders import Holders
from proxy.upstream.pages import ask_page
from proxy.upstream.projects import ask_projects
from proxy.upstream.rounds import PATIENCE, Rounds
from proxy.upstream.standing import Standing

R = TypeVar("R")


@implementer(IUpstreams)
class Upstreams:
    """The upstreams *clients* (in order of preference) of *index*.  *count* is told of each thing worth counting."""

    def __init__(
        self,
        index: IndexSettings,
        clients: Sequence[UpstreamClient],
        *,
        reactor: Any,
        offload: IOffload,
        count: Callable[[str], None] = lambda event: None,
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
        self._holders = Holders(self._standing, reactor, offload, count)
        self._fetching = Fetching(self.rounds, self._holders, reactor.seconds)

    def condition(self) -> Condition:
        conditions = [client.health.condition() for client in self._clients]
        for condition in (Condition.UP, Condition.SUSPECT):
            if condition in conditions:
                return condition
        return Condition.DOWN

    def retry_in(self) -> float:
        return self.rounds.retry_in()

    def spare(self) -> bool:
        return self.condition() is Condition.UP and not any(client.crowded for client in self._clients)

    def slow(self) -> None:
        for client in self._clients:
            if client.busy:
                client.health.slow()

    def outranks(self, upstream: str, other: str) -> bool:
        names = [client.name for client in self._clients]
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
        async def ask(client: UpstreamClient, manner: Manner) -> PageReply:
            return await ask_page(client, project, known, self._offload, self._clock(), manner)

        return await self._definite(f"the page of {project}", project, ask)

    async def document(self, path: str, known: Validators | None) -> DocumentReply:
        async def ask(client: UpstreamClient, manner: Manner) -> DocumentReply:
            return await ask_document(client, path, known, self._offload, self._clock(), manner)

        return await self._definite(path, path.split("/")[1], ask)

    async def projects(self, known: Validators | None, receive: Receive) -> DocumentReply:
        async def ask(client: UpstreamClient, manner: Manner) -> DocumentReply:
            return await ask_projects(client, known, receive, self._clock(), manner)

        return await self._definite("the list of projects", "", ask)

    async def companion(self, wanted: Wanted, known: Validators | None) -> DocumentReply:
        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> DocumentReply:
            manner = Manner(trial, self.rounds.silence, answering)
            return await ask_companion(client, wanted.url, known, self._offload, self._clock(), manner)

        return await self.rounds.all(self.rounds.attempts(wanted.name), lambda: self._holders.of(wanted), ask)

    async def _definite(
        self, what: str, project: str, ask: Callable[[UpstreamClient, Manner], Awaitable[R]]
    ) -> R | PageMissing:
        """What the first upstream answers that may: one that is not too far behind; a no only from one that has everything."""
        attempts = self.rounds.attempts(what)
        partial: list[PageMissing] = []
        lagging: list[UpstreamClient] = []

        async def ask_one(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> R:
            if client not in lagging and not await self._standing.current(client):
                lagging.append(client)
                trial.abandoned()
                raise Failed(f"is {client.lag or 0:,.0f} s behind (upstream.{client.name}.max_lag)", blames=False)
            reply = await ask(client, Manner(trial, self.rounds.silence, answering))
            if isinstance(reply, PageMissing) and (client.settings.partial or client in lagging):
                partial.append(reply)
                raise Missing("answered 404 Not Found", reply.url)
            return reply

        try:
            return await self.rounds.all(attempts, lambda: self._standing.order(project), ask_one)
        except Exception:
            # A mirror that lags is better than none; its 404 alone says nothing.
            late = await self.rounds.first(lagging, attempts, ask_one) if lagging else None
            if late is not None:
                return late
            if partial and attempts.all_missing:
                return partial[-1]
            raise

    # -- files -------------------------------------------------------------------------------------------------------------

    async def fetch(self, wanted: Wanted, sink: Any) -> None:
        await self._fetching.fetch(wanted, sink)

    async def facts(self, wanted: Wanted) -> FileFacts:
        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> FileFacts:
            place = await self._holders.place(client, wanted, trial, self.rounds.silence)
            return await ask_facts(place, wanted, trial)

        return await self.rounds.all(self.rounds.attempts(wanted.name), lambda: self._holders.of(wanted), ask)

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> IBodyReader:
            place = await self._holders.place(client, wanted, trial, self.rounds.silence)
            return await open_part(place, wanted, start, stop, trial, self.rounds.silence)

        return await self.rounds.all(self.rounds.attempts(wanted.name), lambda: self._holders.of(wanted), ask)

"""In which order the upstreams of an index are asked, and how those that are out or lag behind are looked at meanwhile.

A client's request is never spent on finding out whether an upstream is back while another one works: the probe of an open
breaker, and a mirror's ``/last-modified``, go out beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from proxy.interfaces import Clock, IOffload
from proxy.mechanism.flight import swallow
from proxy.mechanism.patience import within
from proxy.settings import IndexSettings
from proxy.upstream.http.attempt import Manner
from proxy.upstream.http.failures import Failed
from proxy.upstream.index.lag import LOOK_EVERY, ask_lag, lag_url
from proxy.upstream.pool.upstream import Upstream

#: How long operators wait for mirrors to say how old they are (seconds).
_LOOK_FOR = 2.0


class Standing:
    """The upstreams *clients* of *index*, in the order it prefers them."""

    def __init__(
        self, index: IndexSettings, clients: Sequence[Upstream], reactor: Any, offload: IOffload, clock: Clock
    ) -> None:
        self._clock = clock
        self._index = index
        self._clients = tuple(clients)
        self._reactor = reactor
        self._offload = offload
        self._looked_at: dict[str, float] = {}
        self._background: set[Deferred[Any]] = set()

    def close(self) -> None:
        """Stop what goes on beside requests."""
        for each in list(self._background):
            each.cancel()

    def order(self, project: str, *, files: bool = False) -> list[Upstream]:
        """Who is asked first.  Those that work come first, for *files* those that are trusted; then it is the index's policy.

        ``fastest``: by the running mean of the latency, those without one first, so that each is measured now and then.
        """
        if len(self._clients) == 1:
            return list(self._clients)
        clients = sorted(self._clients, key=lambda client: self._rank(client, files))
        if clients and clients[0].works:
            for client in clients:
                client.probe(project or None)
        return clients

    def _rank(self, client: Upstream, files: bool) -> tuple[bool, bool, float]:
        distrusted = client.marked is not None if files else client.lags
        latency = client.latency or 0.0 if self._index.policy == "fastest" else 0.0
        return not client.works, distrusted, latency

    async def current(self, client: Upstream) -> bool:
        """Whether *client* is as new as its ``max_lag`` asks; the first look is waited for, later ones go on beside."""
        if client.settings.max_lag is None:
            return True
        now = self._reactor.seconds()
        last = self._looked_at.get(client.name)
        if last is None or now - last > LOOK_EVERY:
            self._looked_at[client.name] = now
            if last is None:
                await self._look(client)
            else:
                self._beside(self._look(client))
        return not client.lags

    async def look_at_all(self) -> None:
        """Learn how far each upstream that works is behind, where that was not looked at lately; waits only a short while."""
        now = self._reactor.seconds()
        looks = []
        for client in self._clients:
            if client.works and now - self._looked_at.get(client.name, 0.0) > LOOK_EVERY:
                self._looked_at[client.name] = now
                looks.append(self._beside(self._look(client)))
        await within(_LOOK_FOR, DeferredList(looks, consumeErrors=True), self._reactor)

    async def _look(self, client: Upstream) -> None:
        """Learn how far *client* is behind."""
        now = self._clock()
        try:
            client.lag = await client.answer(
                lag_url(client.settings), Manner(), lambda attempt: ask_lag(attempt, client.settings, now)
            )
        except Failed:
            client.lag = None

    def _beside(self, work: Any) -> Deferred[Any]:
        running: Deferred[Any] = Deferred.fromCoroutine(work)
        self._background.add(running)
        running.addBoth(self._ended, running)
        swallow(running, Failed)
        return running

    def _ended(self, result: Any, running: Deferred[Any]) -> Any:
        self._background.discard(running)
        return result

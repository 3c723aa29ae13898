"""One request to several upstreams: a race in order of preference, gone through again while that is of use.

Theory of operation. The next upstream is asked when one fails, and also when one has been silent for too long; the first good
answer wins and the others are cancelled. "Too long" is ``hedge_after``; without it, a share of :data:`PATIENCE`, so that even
when all but the last are silent, its answer comes before a client gives up (pip: 15 s without a byte). The same share bounds
silence in a body while there are others to ask. Nobody's own timeouts shrink: an upstream that is merely slow is still listened
to, and answers if all are slow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.task import deferLater

from proxy.settings import IndexSettings
from proxy.upstream.http.attempt import Manner
from proxy.upstream.http.failures import Failed
from proxy.upstream.http.racing import race
from proxy.upstream.pool.attempts import Attempts
from proxy.upstream.pool.upstream import Upstream

T = TypeVar("T")

#: Seconds within which every upstream of an index has been asked, whoever is silent: under the 15 s that clients wait.
PATIENCE = 12.0
#: Where there are several upstreams, they are gone through this often, with a pause between (seconds, times the round).
ROUNDS = 4
_PAUSE = 0.25
#: When all of them are left alone for no longer than this, that is waited for (seconds): clients give up much later.
_SHORT_WAIT = 3.0

#: Asks one upstream in a manner.
AskOne = Callable[[Upstream, Manner], Awaitable[T]]


class Rounds:
    """Requests to *clients*, the upstreams of *index*; in *patience* seconds each of them has been asked."""

    def __init__(self, index: IndexSettings, clients: Sequence[Upstream], reactor: Any, patience: float) -> None:
        self._clients = tuple(clients)
        self._reactor = reactor
        self._hedge_after = index.hedge_after
        #: What bounds the silence in a body (seconds); ``None``: the upstream's own settings alone.
        self.silence: float | None = None
        # Of several upstreams each has its share of the patience; an only one has nobody to hurry it.
        self.hurry(patience / max(1, len(clients)))

    def hurry(self, share: float) -> None:
        """Give each upstream *share* seconds before the next one is asked too."""
        self._share = share
        self._stagger = self._hedge_after if self._hedge_after is not None else share
        self.silence = share if len(self._clients) > 1 else None

    def retry_in(self) -> float:
        """Seconds until the next upstream may be asked again."""
        return min((client.retry_in() for client in self._clients), default=0.0)

    def attempts(self, what: str) -> Attempts:
        """A new list of attempts at *what*."""
        return Attempts(what, self._reactor.seconds)

    async def first(self, clients: Sequence[Upstream], attempts: Attempts, ask: AskOne[T], *, insist: bool = False) -> T | None:
        """What the first of *clients* answers that can, ``None`` when none can; *insist*: nobody had an answer a moment ago."""
        manners: dict[int, Manner] = {}

        def entrant(number: int, client: Upstream) -> Callable[[Callable[[], None]], Awaitable[T]]:
            async def enter(answering: Callable[[], None]) -> T:
                began = self._reactor.seconds()
                manners[number] = manner = Manner(self.silence, answering, self._share, insist)
                try:
                    return await ask(client, manner)
                except Failed as error:
                    attempts.failed(client, error, began)
                    raise

            return enter

        def overtaken(number: int) -> None:
            manners[number].overtaken = True

        entrants = [entrant(number, client) for number, client in enumerate(clients)]
        return await race(entrants, self._stagger, self._reactor, overtaken)

    async def all(self, attempts: Attempts, holders: Callable[[], Sequence[Upstream]], ask: AskOne[T]) -> T:
        """What the first of *holders* answers that can.  Several are gone through again: mirrors fail at random too.

        Raises what *attempts* make of it when none can.
        """
        began = self._reactor.seconds()
        for number in range(ROUNDS):
            await self.pause(number)
            answer = await self.first(holders(), attempts, ask, insist=attempts.all_may_pass)
            if answer is not None:
                return answer
            if not self.may_go_on(attempts, began):
                break
        raise attempts.error()

    def may_go_on(self, attempts: Attempts, began: float) -> bool:
        """Whether another round is of use, and not too late for the clients."""
        late = self._reactor.seconds() - began > self._share
        return len(self._clients) > 1 and not late and not attempts.definite and self.retry_in() <= _SHORT_WAIT

    async def pause(self, number: int) -> None:
        """Between two rounds; *number* is that of the next."""
        if number:
            await deferLater(self._reactor, max(_PAUSE * number, self.retry_in()))

"""The upstreams of one index, seen as one: the first healthy one answers, the next takes over within the same request.

Theory of operation. A request is a race in order of preference: the next upstream is asked when one fails, and also when one
has been silent for too long; the first good answer wins and the others are cancelled. "Too long" is ``hedge_after``; without
it, a share of :data:`PATIENCE`, so that even when all but the last are silent, its answer comes before a client gives up (pip:
15 s without a byte). The same share bounds silence in a body while there are others to ask. Nobody's own timeouts shrink: an
upstream that is merely slow is still listened to, and answers if all are slow.

A file goes on at the byte where a connection broke, first at the same upstream, then at the next that lists the same digest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from proxy.errors import DigestMismatch
from proxy.interfaces import IBodyReader, IOffload, IUpstreams
from proxy.model import Condition, FileFacts, PageMissing, PageReply, Validators, Wanted
from proxy.settings import IndexSettings
from proxy.upstream.attempts import Attempts
from proxy.upstream.client import UpstreamClient, UpstreamState
from proxy.upstream.failures import Broken, Failed, Missing, Silent
from proxy.upstream.files import Opened, Place, ask_facts, open_file, open_part, pump
from proxy.upstream.health import Trial
from proxy.upstream.listing import Listing
from proxy.upstream.pages import ask_page
from proxy.upstream.racing import race
from proxy.upstream.standing import Standing

T = TypeVar("T")

#: Seconds within which every upstream of an index has been asked, whoever is silent: under the 15 s that clients wait.
PATIENCE = 12.0
#: Who has been silent for this long when another one answers has failed (seconds); hedging alone is no failure.
TOO_LONG = 4.0
#: Connections that may break in a row without a single byte of progress before an upstream is given up for a request.
MOST_BREAKS = 3
#: Where there are several upstreams, they are gone through this often, with a pause between (seconds, times the round).
ROUNDS = 4
_PAUSE = 0.25
#: When all of them are left alone for no longer than this, that is waited for (seconds): clients give up much later.
_SHORT_WAIT = 3.0


@define
class _Download:
    """One file on its way: where it can still be had, and what came from where."""

    wanted: Wanted
    sink: Any
    left: list[UpstreamClient] = field(factory=list)
    breaks: dict[str, int] = field(factory=dict)
    etags: dict[str, str | None] = field(factory=dict)
    #: Whose bytes the sink has; "" are those of an earlier run.
    sources: set[str] = field(factory=set)
    #: Bytes have left behind which nobody can go on.
    spent: bool = False


@implementer(IUpstreams)
class Upstreams:
    """The upstreams *clients* (in order of preference) of *index*.  *count* is told of each thing worth counting."""

    log = Logger()

    def __init__(
        self,
        index: IndexSettings,
        clients: Sequence[UpstreamClient],
        *,
        reactor: Any,
        offload: IOffload,
        count: Callable[[str], None] = lambda event: None,
        patience: float = PATIENCE,
    ) -> None:
        self._clients = tuple(clients)
        self._reactor = reactor
        self._offload = offload
        self._count = count
        self._standing = Standing(index, clients, reactor, offload)
        self._listing = Listing(reactor, offload, self._distrust)
        # Of several upstreams each has its share of the patience; an only one has nobody to hurry it.
        self._share = patience / max(1, len(clients))
        self._silence = self._share if len(clients) > 1 else None
        self._stagger = index.hedge_after if index.hedge_after is not None else self._share

    def condition(self) -> Condition:
        conditions = [client.health.condition() for client in self._clients]
        for condition in (Condition.UP, Condition.SUSPECT):
            if condition in conditions:
                return condition
        return Condition.DOWN

    def retry_in(self) -> float:
        return min((client.health.retry_in() for client in self._clients), default=0.0)

    def slow(self) -> None:
        for client in self._clients:
            if client.busy:
                client.health.slow()

    def states(self) -> list[UpstreamState]:
        """What operators see, in order of preference."""
        return [client.state() for client in self._clients]

    async def close(self) -> None:
        self._standing.close()

    # -- asking ------------------------------------------------------------------------------------------------------------

    async def _first(
        self,
        clients: Sequence[UpstreamClient],
        attempts: Attempts,
        ask: Callable[[UpstreamClient, Trial, Callable[[], None]], Awaitable[T]],
    ) -> T | None:
        """What the first of *clients* answers that can, ``None`` when none can."""
        trials: dict[int, Trial] = {}

        def entrant(number: int, client: UpstreamClient) -> Callable[[Callable[[], None]], Awaitable[T]]:
            async def enter(answering: Callable[[], None]) -> T:
                began = self._reactor.seconds()
                try:
                    trials[number] = trial = client.admit()
                    try:
                        return await ask(client, trial, answering)
                    except BaseException:
                        trial.abandoned()  # unless it says more already
                        raise
                except Failed as error:
                    attempts.failed(client, error, began)
                    raise

            return enter

        def overtaken(number: int) -> None:
            trials[number].overtaken(TOO_LONG)

        entrants = [entrant(number, client) for number, client in enumerate(clients)]
        return await race(entrants, self._stagger, self._reactor, overtaken)

    async def _rounds(
        self,
        attempts: Attempts,
        holders: Callable[[], list[UpstreamClient]],
        ask: Callable[[UpstreamClient, Trial, Callable[[], None]], Awaitable[T]],
    ) -> T:
        """What the first of *holders* answers that can.  Several are gone through again: mirrors fail at random too."""
        began = self._reactor.seconds()
        for number in range(ROUNDS):
            await self._pause(number)
            answer = await self._first(holders(), attempts, ask)
            if answer is not None:
                return answer
            if not self._may_go_on(attempts, began):
                break
        raise attempts.error(self.retry_in())

    def _may_go_on(self, attempts: Attempts, began: float) -> bool:
        """Whether another round is of use, and not too late for the clients."""
        late = self._reactor.seconds() - began > self._share
        return len(self._clients) > 1 and not late and not attempts.all_missing and self.retry_in() <= _SHORT_WAIT

    async def _pause(self, number: int) -> None:
        """Between two rounds."""
        if number:
            await deferLater(self._reactor, max(_PAUSE * number, self.retry_in()))

    # -- pages -------------------------------------------------------------------------------------------------------------

    async def page(self, project: str, known: Validators | None) -> PageReply:
        attempts = Attempts(f"the page of {project}", self._reactor.seconds)
        partial: list[PageMissing] = []
        lagging: list[UpstreamClient] = []

        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> PageReply:
            if client not in lagging and not await self._standing.current(client):
                lagging.append(client)
                trial.abandoned()
                raise Failed(f"is {client.lag or 0:,.0f} s behind (upstream.{client.name}.max_lag)", blames=False)
            now = self._reactor.seconds()
            reply = await ask_page(
                client, project, known, self._offload, now, trial=trial, silence=self._silence, answering=answering
            )
            if isinstance(reply, PageMissing) and (client.settings.partial or client in lagging):
                partial.append(reply)
                raise Missing("answered 404 Not Found", reply.url)
            return reply

        try:
            return await self._rounds(attempts, lambda: self._standing.order(project), ask)
        except Exception:
            # A mirror that lags is better than none; its 404 alone says nothing.
            late = await self._first(lagging, attempts, ask) if lagging else None
            if late is not None:
                return late
            if partial and attempts.all_missing:
                return partial[-1]
            raise

    # -- files -------------------------------------------------------------------------------------------------------------

    async def facts(self, wanted: Wanted) -> FileFacts:
        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> FileFacts:
            return await ask_facts(await self._place(client, wanted, trial), wanted, trial)

        return await self._rounds(self._attempts(wanted), lambda: self._holders(wanted), ask)

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> IBodyReader:
            place = await self._place(client, wanted, trial)
            return await open_part(place, wanted, start, stop, trial, self._silence)

        return await self._rounds(self._attempts(wanted), lambda: self._holders(wanted), ask)

    def _attempts(self, wanted: Wanted) -> Attempts:
        return Attempts(wanted.name, self._reactor.seconds)

    def _holders(self, wanted: Wanted) -> list[UpstreamClient]:
        """Who may have *wanted*: whose page named it first, as long as it works; the others only where a digest vouches."""
        clients = self._standing.order(wanted.project, files=True)
        named = [client for client in clients if client.name == wanted.upstream]
        if wanted.digest is None:
            return named
        if named and clients and named[0].health.condition() is not Condition.DOWN and named[0].marked is None:
            clients = named + [client for client in clients if client is not named[0]]
        return clients

    async def _place(self, client: UpstreamClient, wanted: Wanted, trial: Trial) -> Place:
        """Where *client*'s upstream has *wanted*.  Raises Failed."""
        if client.name == wanted.upstream:
            return Place(client, wanted.url, client.settings.url)
        return await self._listing.place(client, wanted, trial, self._silence)

    def _distrust(self, client: UpstreamClient, wanted: Wanted, what: str) -> None:
        client.mark(f"{what} {wanted.name} of {wanted.project}, which the index's page gives as {wanted.digest}")
        self._count("mirror with other bytes")

    async def fetch(self, wanted: Wanted, sink: Any) -> None:
        attempts = self._attempts(wanted)
        download = _Download(wanted, sink)
        if sink.offset:
            download.sources.add("")
        progress = self._reactor.seconds(), sink.offset
        for number in range(ROUNDS):
            await self._pause(number)
            download.left = self._holders(wanted)
            download.breaks.clear()
            while download.left:
                opened = await self._open(download, attempts)
                if opened is None:
                    break
                if await self._pump(download, opened, attempts):
                    return
                if sink.offset > progress[1]:
                    progress = self._reactor.seconds(), sink.offset
            if not self._may_go_on(attempts, progress[0]) or download.spent:
                break
        raise attempts.error(self.retry_in())

    async def _open(self, download: _Download, attempts: Attempts) -> Opened | None:
        wanted, sink = download.wanted, download.sink

        async def ask(client: UpstreamClient, trial: Trial, answering: Callable[[], None]) -> Opened:
            try:
                place = await self._place(client, wanted, trial)
                opened = await open_file(
                    place,
                    wanted,
                    sink.offset,
                    download.etags.get(client.name),
                    trial=trial,
                    silence=self._silence,
                    fresh=not sink.released,
                )
            except Failed:
                download.left.remove(client)
                raise
            return opened

        return await self._first(list(download.left), attempts, ask)

    async def _pump(self, download: _Download, opened: Opened, attempts: Attempts) -> bool:
        """Whether the download is complete; else *download* says who is left to go on with it."""
        wanted, sink, client = download.wanted, download.sink, opened.place.client
        began, start = self._reactor.seconds(), sink.offset
        if opened.restart or opened.skip or not start:
            download.etags[client.name] = opened.etag
        try:
            try:
                await pump(opened, wanted, sink)
                return True
            finally:
                if sink.offset != start:
                    download.sources.add(client.name)
        except Broken as error:
            attempts.failed(client, error, began)
            progressed = sink.offset > start
            breaks = download.breaks[client.name] = 0 if progressed else download.breaks.get(client.name, 0) + 1
            if wanted.digest is None and sink.offset and opened.etag is None:
                await self._start_over(download)
            if breaks >= MOST_BREAKS and client in download.left:
                download.left.remove(client)
            elif isinstance(error, Silent) and client in download.left:
                # Others are more likely to go on at once.
                download.left.remove(client)
                download.left.append(client)
        except DigestMismatch as error:
            attempts.failed(client, error, began)
            if download.sources <= {client.name}:
                self._distrust(client, wanted, "sent other bytes for")
                opened.exchange.trial.failed(f"sent wrong bytes for {wanted.name}")
                download.left.remove(client)
            await self._start_over(download)
        except Failed as error:
            attempts.failed(client, error, began)
            download.left.remove(client)
        return False

    async def _start_over(self, download: _Download) -> None:
        """Begin again at byte 0, which only an unseen beginning allows; else nobody can go on."""
        if download.sink.released:
            download.left.clear()
            download.spent = True
            return
        await download.sink.restart()
        download.sources.clear()

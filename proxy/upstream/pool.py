"""The upstreams of one index, seen as one: the first healthy one answers, the next takes over within the same request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.logger import Logger
from zope.interface import implementer

from proxy.errors import Attempt, DigestMismatch, LoopDetected, NotFound, ProxyError, UpstreamFailed
from proxy.interfaces import IBodyReader, IOffload, IUpstreams
from proxy.model import Condition, FileFacts, PageFound, PageMissing, PageReply, Validators, Wanted
from proxy.settings import IndexSettings
from proxy.upstream.client import UpstreamClient, UpstreamState
from proxy.upstream.failures import Failed, Looped, Missing
from proxy.upstream.files import ask_facts, deliver, open_part
from proxy.upstream.pages import ask_page

T = TypeVar("T")


@frozen
class _Source:
    """Where one upstream has a file: its URL, and the page that says so."""

    client: UpstreamClient
    url: str
    page_url: str


@define
class _Attempts:
    """What has been tried for one request so far."""

    what: str
    clock: Callable[[], float]
    made: list[Attempt] = field(factory=list)
    missing: Missing | None = None
    loop: Looped | None = None
    mismatch: DigestMismatch | None = None

    def failed(self, client: UpstreamClient, error: Exception, began: float) -> None:
        self.made.append(Attempt(client.name, str(error), self.clock() - began))
        match error:
            case Missing():
                self.missing = error
            case Looped():
                self.loop = error
            case DigestMismatch():
                self.mismatch = error

    def error(self, retry_in: float) -> ProxyError:
        """What to tell the client now that nobody is left to ask."""
        if self.loop is not None:
            return LoopDetected(str(self.loop))
        if self.missing is not None and len(self.made) == 1:
            return NotFound(f"{self.what}: {self.made[0]}")
        if self.mismatch is not None:
            return DigestMismatch(self.what, self.made, retry_in)
        return UpstreamFailed(self.what, self.made, retry_in)


@implementer(IUpstreams)
class Upstreams:
    """The upstreams *clients* (in order of preference) of *index*."""

    log = Logger()

    def __init__(self, index: IndexSettings, clients: Sequence[UpstreamClient], *, reactor: Any, offload: IOffload) -> None:
        self._index = index
        self._clients = tuple(clients)
        self._reactor = reactor
        self._offload = offload

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
            client.health.slow()

    def states(self) -> list[UpstreamState]:
        """What operators see, in order of preference."""
        return [client.state() for client in self._clients]

    async def close(self) -> None:
        """Nothing: the clients belong to whoever made them."""

    # -- pages -------------------------------------------------------------------------------------------------------------

    async def page(self, project: str, known: Validators | None) -> PageReply:
        attempts = _Attempts(f"the page of {project}", self._reactor.seconds)
        partial: PageMissing | None = None
        for client in self._order():
            began = self._reactor.seconds()
            try:
                reply = await ask_page(client, project, known, self._offload, began)
            except Failed as error:
                attempts.failed(client, error, began)
                continue
            if not isinstance(reply, PageMissing):
                return reply
            client.health.succeeded()
            if not client.settings.partial:
                return reply
            partial = reply
        if partial is not None and not attempts.made:
            return partial
        raise attempts.error(self.retry_in())

    # -- files -------------------------------------------------------------------------------------------------------------

    async def fetch(self, wanted: Wanted, sink: Any) -> None:
        attempts = _Attempts(wanted.name, self._reactor.seconds)
        async for source in self._sources(wanted, attempts):
            began = self._reactor.seconds()
            try:
                await deliver(source.client, wanted, source.url, source.page_url, sink)
                return
            except (Failed, DigestMismatch) as error:
                attempts.failed(source.client, error, began)
                if isinstance(error, DigestMismatch):
                    self.log.error(
                        "upstream {name} sent wrong bytes for {file}: {error}",
                        name=source.client.name,
                        file=wanted.name,
                        error=error,
                    )
                    if sink.released:
                        break
                    await sink.restart()
                elif sink.offset and wanted.digest is None:
                    if sink.released:
                        break
                    await sink.restart()
        raise attempts.error(self.retry_in())

    async def facts(self, wanted: Wanted) -> FileFacts:
        return await self._first(wanted, lambda source: ask_facts(source.client, wanted, source.url, source.page_url))

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        return await self._first(
            wanted, lambda source: open_part(source.client, wanted, source.url, source.page_url, start, stop)
        )

    async def _first(self, wanted: Wanted, ask: Callable[[_Source], Awaitable[T]]) -> T:
        """What the first source answers that can."""
        attempts = _Attempts(wanted.name, self._reactor.seconds)
        async for source in self._sources(wanted, attempts):
            began = self._reactor.seconds()
            try:
                return await ask(source)
            except Failed as error:
                attempts.failed(source.client, error, began)
        raise attempts.error(self.retry_in())

    async def _sources(self, wanted: Wanted, attempts: _Attempts) -> AsyncIterator[_Source]:
        """Where *wanted* can be had: where its page says, then wherever another upstream lists the same bytes."""
        first = next((client for client in self._clients if client.name == wanted.upstream), None)
        if first is not None:
            yield _Source(first, wanted.url, first.settings.url)
        if wanted.digest is None:
            return
        for client in self._order():
            if client is not first:
                began = self._reactor.seconds()
                try:
                    url = await self._listed(client, wanted)
                except Failed as error:
                    attempts.failed(client, error, began)
                    continue
                if url is not None:
                    yield _Source(client, url[0], url[1])

    async def _listed(self, client: UpstreamClient, wanted: Wanted) -> tuple[str, str] | None:
        """The URL under which *client*'s upstream lists the bytes of *wanted*, and the page that says so."""
        reply = await ask_page(client, wanted.project, None, self._offload, self._reactor.seconds())
        if not isinstance(reply, PageFound) or wanted.digest is None:
            return None
        for file in reply.page.files:
            if file.filename == wanted.filename:
                if wanted.companion:
                    return None
                if file.hashes.get(wanted.digest.algorithm) == wanted.digest.hex:
                    return file.url, reply.record.head.url
        return None

    def _order(self) -> list[UpstreamClient]:
        """Who is asked first.  Equal standing (``fastest``): by the running mean of the latency, unmeasured ones first."""
        clients = list(self._clients)
        if self._index.policy == "fastest":
            clients.sort(key=lambda client: client.latency or 0.0)
        return clients

"""What one upstream answers at each of its addresses: values, which :mod:`proxy.doctor.upstreams` judges.

The requests are those of the proxy itself, with its credentials, authorities, guards and outbound proxy, but each goes to one
address that is named, whatever is known of the others.  An upstream with N addresses gets N requests for one small page (up to
three each where it has none in JSON, or none at all), a byte of one file and one metadata file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import TimeoutError as ConnectTimeout

from proxy.core.amounts import duration
from proxy.interfaces import Clock, IOffload
from proxy.mechanism.rotating import Observing
from proxy.model import File, PageFound, PageMissing, PageReply
from proxy.settings import UpstreamSettings
from proxy.upstream.http.attempt import Attempt, Manner
from proxy.upstream.http.client import HttpClient
from proxy.upstream.http.connecting import Endpoints
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Failed, Missing, reason
from proxy.upstream.http.handshake import ShownCertificate, TlsClient, shown_certificate
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import Origin, origin_of
from proxy.upstream.http.slots import Slot, Slots
from proxy.upstream.http.trust import Trust
from proxy.upstream.index.dialect import Dialect
from proxy.upstream.index.pages import ask_page

T = TypeVar("T")

#: The largest metadata file, and the largest document, that is read (bytes).
_LARGEST = 4 * 1024 * 1024


class ProbeMeans(Struct, frozen=True):
    """What probes are made with; *limit*: seconds that each of them may take.

    *files* is for looks at files and processes of this machine, which may never end.
    """

    reactor: Any
    offload: IOffload
    files: IOffload
    observing: Observing
    clock: Clock
    identity: Identity
    limit: float = 10.0


class SeenHead(Struct, frozen=True):
    """The head of one answer: its ``Date`` and ``Age`` as they came, and when (seconds since the epoch)."""

    date: str | None
    age: str | None
    at: float
    seconds: float


class AtAddress(Struct, frozen=True):
    """What came of asking one *address*: a page (or that there is none), or the *failure*.

    *certificate* is what it shows, or why it shows none; ``None`` without TLS.
    """

    address: str
    failure: str | None
    page: PageFound | PageMissing | None
    answered: SeenHead | None
    certificate: ShownCertificate | str | None


class FileProbe(Struct, frozen=True):
    """What came of asking for a byte of *file*, and for its metadata if the page announces that; failures are texts."""

    file: File
    ranges: bool | str
    metadata: bool | str | None


class Probed(Struct, frozen=True):
    """What is known of one upstream.  *unresolved*: why its host has no address that may be asked."""

    settings: UpstreamSettings
    project: str
    unresolved: str | None = None
    resolved_in: float = 0.0
    addresses: tuple[AtAddress, ...] = ()
    file: FileProbe | None = None


class _Towards(Struct, frozen=True):
    """A permit to ask the host of *home* at *address*, and other hosts anywhere; nothing is learned from it."""

    home: Origin | None
    address: str
    void: bool = False

    def toward(self, origin: Origin) -> None:
        """Nothing is kept of it."""

    def order(self, origin: Origin, addresses: Sequence[str]) -> list[str]:
        """The named address, if it is one of this host."""
        return [self.address] if origin == self.home and self.address in addresses else list(addresses)

    def pace(self) -> float:
        """No pause: there are few requests."""
        return 0.0

    def answered(self, origin: Origin, address: str | None, status: int) -> None:
        """Nothing is kept of it."""

    def address_failed(self, origin: Origin, address: str, unreachable: bool) -> None:
        """Nothing is kept of it."""

    def proven(self) -> None:
        """Nothing is kept of it."""

    def settle(self, error: BaseException | None, overtaken: bool) -> None:
        """Nothing is kept of it."""


class _Noting:
    """Sends the requests of one attempt by *client*, and notes the head of the last answer."""

    def __init__(self, client: HttpClient, clock: Clock, seconds: Callable[[], float]) -> None:
        self.client = client
        self.clock = clock
        self.seconds = seconds
        self.answered: SeenHead | None = None

    @property
    def slots(self) -> Slots:
        """Those of the client."""
        return self.client.slots

    async def send(
        self, attempt: Attempt, place: Slot, method: str, url: str, headers: Mapping[str, str], named_by: str | None
    ) -> Exchange:
        """As the client does."""
        began = self.seconds()
        exchange = await self.client.send(attempt, place, method, url, headers, named_by)
        taken = self.seconds() - began
        self.answered = SeenHead(exchange.header("date"), exchange.header("age"), self.clock(), taken)
        return exchange


class Prober:
    """Asks the upstream of *settings*.  Raises ConfigError when a file that it names cannot be used."""

    def __init__(self, settings: UpstreamSettings, means: ProbeMeans) -> None:
        self._settings = settings
        self._means = means
        self._home = origin_of(settings.url)
        self._client = HttpClient(
            settings, reactor=means.reactor, identity=means.identity, clock=means.clock, observing=means.observing
        )
        trust = Trust(settings, means.observing, lambda: None)
        self._endpoints = Endpoints(settings, means.reactor, trust)

    async def probe(self, project: str) -> Probed:
        """All that can be found out with the page of *project*, in at most about three times the limit."""
        began = self._means.reactor.seconds()
        try:
            addresses = await self._bounded(self._endpoints.addresses(self._home.host))
        except Exception as error:  # noqa: BLE001  # whatever the resolver meets, there is no address
            return Probed(self._settings, project, unresolved=self._words(error))
        resolved_in = self._means.reactor.seconds() - began
        dialect = Dialect()
        asked = await at_once([self._at(each, project, dialect) for each in addresses])
        pages = [each.page for each in asked if isinstance(each.page, PageFound)]
        file = None if not pages else await self._file(pages[0])
        return Probed(self._settings, project, None, resolved_in, tuple(asked), file)

    async def document(self, url: str, accept: str) -> tuple[bytes, SeenHead | None]:
        """What is at *url*, at any address.  Raises Failed."""
        noting = self._noting()

        async def read(attempt: Attempt) -> bytes:
            exchange = await attempt.ask("GET", url, {"Accept": accept})
            return await exchange.read(_LARGEST)

        body = await self._asked(noting, _Towards(None, ""), read)
        return body, noting.answered

    async def certificate(self) -> ShownCertificate | str | None:
        """What the first address of the host shows, or why it shows none; ``None`` without TLS."""
        try:
            (first, *_) = await self._bounded(self._endpoints.addresses(self._home.host))
        except Exception as error:  # noqa: BLE001  # whatever the resolver meets, there is no address
            return self._words(error)
        return await self._certificate(first)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _noting(self) -> _Noting:
        return _Noting(self._client, self._means.clock, self._means.reactor.seconds)

    async def _at(self, address: str, project: str, dialect: Dialect) -> AtAddress:
        noting = self._noting()

        async def page(attempt: Attempt) -> PageReply:
            now = self._means.clock()
            return await ask_page(attempt, self._settings, dialect, project, None, self._means.offload, now)

        async def ask() -> PageReply | str:
            try:
                return await self._asked(noting, _Towards(self._home, address), page)
            except Failed as error:
                return str(error)

        reply, certificate = await at_once([ask(), self._certificate(address)])
        failure = reply if isinstance(reply, str) else None
        found = reply if isinstance(reply, (PageFound, PageMissing)) else None
        return AtAddress(address, failure, found, noting.answered, certificate)

    async def _certificate(self, address: str) -> ShownCertificate | str | None:
        """What *address* shows; why it shows none; ``None`` without TLS."""
        if self._home.scheme != "https":
            return None
        settings, reactor = self._settings, self._means.reactor
        endpoint = self._endpoints.plain(self._home.host, self._home.port, [address], lambda at, error: None)
        client = TlsClient(self._home.host, settings.ca_file, settings.client_cert, settings.client_key)
        try:
            return await shown_certificate(endpoint, client, reactor, self._means.limit)
        except Exception as error:  # noqa: BLE001  # whatever it is, there was no handshake
            return self._words(error)

    async def _file(self, found: PageFound) -> FileProbe | None:
        """What comes of asking for a file of the page, the last wheel with metadata if there is one."""
        if not found.page.files:
            return None
        with_metadata = [each for each in found.page.files if each.core_metadata]
        file = (with_metadata or found.page.files)[-1]
        page = found.record.head.url

        async def ranges(attempt: Attempt) -> bool:
            exchange = await attempt.ask("GET", file.url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"}, named_by=page)
            return exchange.status == 206

        async def metadata(attempt: Attempt) -> bool:
            exchange = await attempt.ask("GET", f"{file.url}.metadata", {"Accept-Encoding": "identity"}, named_by=page)
            return exchange.status == 200 and bool(await exchange.read(_LARGEST))

        async def outcome(work: Callable[[Attempt], Awaitable[bool]]) -> bool | str:
            try:
                return await self._asked(self._noting(), _Towards(None, ""), work, file=True)
            except Failed as error:
                return str(error)

        return FileProbe(file, await outcome(ranges), await outcome(metadata) if file.core_metadata else None)

    async def _asked(
        self, noting: _Noting, permit: _Towards, work: Callable[[Attempt], Awaitable[T]], *, file: bool = False
    ) -> T:
        """What *work* makes of an attempt.  Raises Failed, also after the limit."""
        attempt = Attempt(self._settings.name, noting, permit, Manner(), file=file)
        try:
            result = await self._bounded(work(attempt))
        except ConnectTimeout as error:
            failed = Failed(f"no answer within {duration(self._means.limit)}")
            attempt.end(failed)
            raise failed from error
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends the attempt and is raised
            raise attempt.fail(error) from error.__cause__
        attempt.end()
        return result

    async def _bounded(self, work: Awaitable[T]) -> T:
        return await bounded(work, self._means.limit, self._means.reactor)

    def _words(self, error: BaseException) -> str:
        return str(error) if isinstance(error, (Failed, Missing)) else reason(error, self._means.limit)


async def bounded(work: Awaitable[T], seconds: float, reactor: Any) -> T:
    """The result of *work*, which is cancelled after so many *seconds*.  Raises TimeoutError of Twisted then."""

    async def run() -> T:
        return await work

    return await Deferred.fromCoroutine(run()).addTimeout(seconds, reactor, _too_late)


def _too_late(result: Any, timeout: float) -> Any:
    raise ConnectTimeout


async def at_once(work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The results of all *work*, done at the same time.  Raises the first exception, when all has ended."""
    outcomes = await DeferredList([Deferred.fromCoroutine(each) for each in work], consumeErrors=True)
    for success, result in outcomes:
        if not success:
            result.raiseException()
    return [result for _, result in outcomes]

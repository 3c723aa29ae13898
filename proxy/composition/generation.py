"""One generation of a service: all that is made from one configuration, and works until another one holds.

Theory of operation.  A generation is built whole before anything is asked of it; what it has in common with the generations
before it, it takes over from them (:mod:`proxy.composition.shared`): upstream clients with what is known of their upstreams,
indexes with their caches and their requests under way, logins.  When another generation is there, new requests go to that one.
This one ends what it has begun, then closes what nobody else holds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList, succeed

from proxy.access.rights import Rights
from proxy.administration.parts import Observed
from proxy.composition.accounts import AccessRoom, LoginRoom, build_access
from proxy.composition.claims import reserving
from proxy.composition.indexes import BuiltIndex, Indexes, IndexKind, build_indexes
from proxy.composition.lasting import Lasting, SharedRooms
from proxy.composition.proxied import ProxyKind
from proxy.composition.serving import Serving, build_serving
from proxy.composition.shared import HeldParts
from proxy.composition.storage import refuse_unmeetable
from proxy.composition.upstreams import Clients, build_clients, build_identity
from proxy.interfaces import Operation
from proxy.mechanism.late import Late
from proxy.mechanism.offload import Offload
from proxy.mechanism.rotating import Rotating
from proxy.mechanism.waiters import Waiters
from proxy.mechanism.waiting import WaitingRoom
from proxy.model import EMPTY
from proxy.policy.policy import Policy
from proxy.settings import HostedSettings, IndexSettings, PageLimits, Settings
from proxy.upstream.http.identity import Identity
from proxy.upstream.pool.upstream import Upstream
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.dashboard.state import SpaceState
from proxy.web.operations import Health

if TYPE_CHECKING:
    from proxy.administration.operations import Administration
    from proxy.composition.ci import BuiltExchange


class Founded(Struct, frozen=True, kw_only=True):
    """What generations are built on, besides what lasts: the same for all of one service.

    *rights* is what clients may do, if that is not what the configuration says; *kinds* builds indexes of other kinds, or of
    the same ones; *others* are operations besides those on indexes.
    """

    policy: Policy
    rights: Rights | None
    kinds: Mapping[str, IndexKind]
    observed: Observed
    health: Health
    carrying: Offload
    room: WaitingRoom
    reading: bool
    #: What is known of the store and its disk.
    space: Callable[[], SpaceState]
    sessions: BrowserSessions
    #: Whether each request is logged.
    access_log: bool = True
    others: Mapping[str, Operation] = EMPTY


class Holdings(Struct, frozen=True):
    """What one generation holds of *shared*."""

    identities: HeldParts[Identity]
    clients: HeldParts[Upstream]
    indexes: HeldParts[BuiltIndex]
    logins: HeldParts[LoginRoom]
    exchanges: HeldParts[BuiltExchange]

    @classmethod
    def of(cls, shared: SharedRooms) -> Holdings:
        """Nothing yet."""
        return cls(
            HeldParts(shared.identities),
            HeldParts(shared.clients),
            HeldParts(shared.indexes),
            HeldParts(shared.logins),
            HeldParts(shared.exchanges),
        )

    def leave(self) -> Left:
        """Hold nothing any more."""
        self.identities.leave()
        return Left(self.indexes.leave(), self.clients.leave(), self.exchanges.leave(), self.logins.leave())


class Left(Struct, frozen=True):
    """Parts that nobody holds any more, to be closed in this order."""

    indexes: Sequence[BuiltIndex]
    clients: Sequence[Upstream]
    exchanges: Sequence[BuiltExchange]
    logins: Sequence[LoginRoom]

    def stop(self) -> None:
        """Stop what is under way."""
        for index in self.indexes:
            index.stop()
        for logins in self.logins:
            logins.close()

    async def close(self) -> None:
        """End what is asked of upstream and of others, and the threads."""
        pools = [each.parts.proxied.upstreams.close() for each in self.indexes if each.parts.proxied is not None]
        await _all(pools)
        await _all([each.close() for each in self.clients])
        await _all([each.close() for each in self.exchanges])
        for each in self.logins:
            each.stop()


async def _all(closing: Sequence[Any]) -> None:
    await DeferredList([Deferred.fromCoroutine(each) for each in closing], consumeErrors=True)


class Generation:
    """All of it."""

    def __init__(
        self,
        *,
        settings: Settings,
        clients: Clients,
        indexes: Indexes,
        access: AccessRoom,
        exchange: BuiltExchange | None,
        administration: Late[Administration],
        serving: Serving,
        holdings: Holdings,
        lasting: Lasting,
    ) -> None:
        self.settings = settings
        self.clients = clients
        self.indexes = indexes
        self.access = access
        self.exchange = exchange
        self._administration = administration
        self.serving = serving
        self.holdings = holdings
        self._lasting = lasting
        #: How many operations are under way, and who waits for their end.
        self._performing = 0
        self._done: Waiters[None] = Waiters()

    @property
    def administration(self) -> Administration:
        """The operations, made when the first one is asked for."""
        return self._administration()

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        of_issuers = () if self.exchange is None else self.exchange.rotating
        return [*self.clients.rotating, *self.access.logins.rotating, *of_issuers]

    def operation(self, name: str) -> Operation:
        """The operation called *name*, which this generation waits for before it ends.  Raises KeyError."""
        operation = self.administration.operations[name]

        @wraps(operation)
        async def performed(*args: Any, **arguments: Any) -> object:
            self._performing += 1
            try:
                return await operation(*args, **arguments)
            finally:
                self._performing -= 1
                if not self._performing:
                    self._done.wake(None)

        return performed

    def hold(self) -> None:
        """Have all that is shared work by these settings from now on."""
        self._lasting.configure(self.settings)
        for index in self.indexes.built.values():
            index.configure(self.settings)

    def start(self) -> None:
        """Begin what works by itself, as far as no generation before has begun it."""
        for index in self.holdings.indexes.made:
            for each in index.starting:
                each.start()

    async def quiet(self) -> None:
        """Wait until nothing of this generation is under way that would end with it."""
        await self.serving.quiet()
        await (self._done.wait() if self._performing else succeed(None))
        alone = [each.parts.proxied.upstreams for each in self.holdings.indexes.alone if each.parts.proxied is not None]
        await self._lasting.caches.files.done_with(alone)


class PresentOperations(Mapping[str, Operation]):
    """The operations of the generation that is *present* when one of them is asked for."""

    def __init__(self, present: Callable[[], Generation]) -> None:
        self._present = present

    def __getitem__(self, name: str) -> Operation:
        return self._present().operation(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._present().administration.operations)

    def __len__(self) -> int:
        return len(self._present().administration.operations)


def build_generation(settings: Settings, lasting: Lasting, founded: Founded) -> Generation:
    """The generation of *settings*, which holds nothing of another kind than what it needs.  Raises ConfigError.

    What was built for one that cannot be built is closed.
    """
    holdings = Holdings.of(lasting.shared)
    try:
        return _built(settings, lasting, founded, holdings)
    except BaseException:
        left = holdings.leave()
        left.stop()
        Deferred.fromCoroutine(left.close()).addErrback(lambda failure: None)
        raise


def _built(settings: Settings, lasting: Lasting, founded: Founded, holdings: Holdings) -> Generation:
    means, storage, caches, claims = lasting.means, lasting.storage, lasting.caches, lasting.claims
    refuse_unmeetable(settings.server, storage)
    contact = settings.server.contact
    identity = holdings.identities.take(contact, lambda: build_identity(contact, storage.place.name))
    clients = build_clients(settings, identity, holdings.clients, means)
    indexes = build_indexes(settings.indexes, _kinds(settings, lasting, founded, clients, holdings.indexes))
    access = build_access(settings, lasting.stores, holdings.logins, storage, means, indexes.first_uploader)
    exchange = _exchange(settings, access, identity, holdings.exchanges, lasting)

    def operations() -> Administration:
        from proxy.composition.operations import build_administration

        return build_administration(
            settings,
            indexes,
            storage,
            caches,
            access,
            means,
            clients,
            claims,
            founded.observed,
            founded.carrying,
            founded.others,
        )

    administration = Late(operations)
    serving = build_serving(
        settings,
        indexes,
        caches,
        identity,
        means,
        founded.health,
        access,
        founded.rights or access.rights,
        storage,
        None if exchange is None else exchange.exchange,
        claims,
        lasting.statistics.book,
        founded.room,
        founded.space,
        founded.sessions,
        access_log=founded.access_log,
    )
    return Generation(
        settings=settings,
        clients=clients,
        indexes=indexes,
        access=access,
        exchange=exchange,
        administration=administration,
        serving=serving,
        holdings=holdings,
        lasting=lasting,
    )


def _kinds(
    settings: Settings, lasting: Lasting, founded: Founded, clients: Clients, holding: HeldParts[BuiltIndex]
) -> Mapping[str, IndexKind]:
    """How indexes are built; one that would be made of the same as before is the same."""
    means, storage, caches, claims = lasting.means, lasting.storage, lasting.caches, lasting.claims
    proxied = ProxyKind(settings, storage, caches, clients, founded.policy, means)
    limited = frozenset((each.name, each.file_hosts) for each in settings.upstreams if each.file_hosts is not None)

    # Many services have none of these, and what they need takes a while to load.
    def hosted(index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
        from proxy.composition.hosted import HostedKind

        kind = HostedKind(settings, storage, caches, founded.policy, means, claims, reading=founded.reading)
        return kind.build(index, members)

    def group(index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
        from proxy.composition.group import GroupKind

        return GroupKind(settings, storage, claims, means).build(index, members)

    def of_proxy(index: IndexSettings, members: Sequence[BuiltIndex]) -> Hashable:
        asked = tuple(clients.by_name[name] for name in index.upstreams if not index.offline)
        return replace(index, limits=PageLimits(), default=False), asked, reserving(settings, index.name), limited

    def of_hosted(index: IndexSettings, members: Sequence[BuiltIndex]) -> Hashable:
        own = index.hosted or HostedSettings()
        return index.name, own.path, own.layout, own.overwrite

    def of_group(index: IndexSettings, members: Sequence[BuiltIndex]) -> Hashable:
        return replace(index, default=False), tuple(members)

    def shared(kind: str, build: IndexKind, made_of: Callable[[IndexSettings, Sequence[BuiltIndex]], Hashable]) -> IndexKind:
        def take(index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
            key = (kind, made_of(index, list(members.values())))
            return holding.take(key, lambda: build(index, members))

        return take

    return {
        "proxy": shared("proxy", proxied.build, of_proxy),
        "hosted": shared("hosted", hosted, of_hosted),
        "group": shared("group", group, of_group),
        **{kind: shared(kind, build, of_group) for kind, build in founded.kinds.items()},
    }


def _exchange(
    settings: Settings, access: AccessRoom, identity: Identity, holding: HeldParts[BuiltExchange], lasting: Lasting
) -> BuiltExchange | None:
    ci, means = settings.ci, lasting.means
    if ci is None:
        return None
    # Few services have one, and what verifies signatures takes a while to load.
    from proxy.composition.ci import build_exchange, exchange_key

    key = exchange_key(ci, access.logins, identity)
    return holding.take(key, lambda: build_exchange(ci, identity, access.jobs, access.audit, means))

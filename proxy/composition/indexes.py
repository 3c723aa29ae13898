"""The indexes of a service.  :func:`build_indexes` is told how each kind of index is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from proxy.administration.parts import IndexParts, Proxied, proxied
from proxy.core.troubles import Reason, Trouble
from proxy.interfaces import IReceiving, IRepository
from proxy.mechanism.flight import Flights
from proxy.model import Condition
from proxy.settings import IndexSettings, Settings
from proxy.statistics.definitions import FlightKind

#: Indexes that are named in one line.
_NAMED = 10


class Closing(Protocol):
    """A part of an index that may have something under way."""

    def close(self) -> None:
        """Stop what is under way."""


class Starting(Protocol):
    """A part of an index that works by itself."""

    def start(self) -> None:
        """Begin."""


class BuiltIndex(Struct, frozen=True, eq=False):
    """One index, and what of it has to be stopped, in this order.  *receiving* takes uploads; ``None``: none are taken.

    *starting* works by itself while clients are served; *look* says what is wrong with the index, if anything is.
    *first_uploader* tells who uploaded first to a project (:attr:`proxy.access.principals.Principal.uploads_as`), ``None``:
    nobody.  *under_way* is what many may wait for together.
    """

    parts: IndexParts
    closing: tuple[Closing, ...]
    receiving: IReceiving | None = None
    starting: tuple[Starting, ...] = ()
    look: Callable[[], Trouble | None] = lambda: None
    first_uploader: Callable[[str], str | None] = lambda project: None
    under_way: Mapping[FlightKind, Sequence[Flights[Any]]] = field(default_factory=dict)
    #: Told of settings that follow and need no other index.
    configure: Callable[[Settings], None] = lambda settings: None
    #: What a group consists of.
    leaves: tuple[tuple[str, IndexParts], ...] = ()

    def stop(self) -> None:
        """Stop what is under way."""
        for each in self.closing:
            each.close()


#: Builds an index of one kind; the indexes that it consists of are built before and given, by name, in their order.
IndexKind = Callable[[IndexSettings, Mapping[str, BuiltIndex]], BuiltIndex]


class Indexes(Struct, frozen=True):
    """All indexes, by name; the *default* one is also served under ``/simple/``."""

    built: Mapping[str, BuiltIndex]
    default: str | None

    @property
    def parts(self) -> Mapping[str, IndexParts]:
        """What operations work on."""
        return {name: each.parts for name, each in self.built.items()}

    @property
    def repositories(self) -> Mapping[str, IRepository]:
        """What clients are answered from."""
        return {name: each.parts.repository for name, each in self.built.items()}

    @property
    def receiving(self) -> Mapping[str, IReceiving]:
        """What takes uploads."""
        return {name: each.receiving for name, each in self.built.items() if each.receiving is not None}

    def first_uploader(self, index: str, project: str) -> str | None:
        """Who uploaded first to *project* of *index*."""
        return self.built[index].first_uploader(project)

    @property
    def proxied(self) -> Mapping[str, Proxied]:
        """Those that ask upstreams themselves."""
        return proxied(self.parts)

    async def look(self) -> Sequence[Trouble]:
        """The indexes whose upstreams are all down, upstreams that refuse the credentials, and what is wrong with others."""
        troubles = [trouble for each in self.built.values() if (trouble := each.look()) is not None]
        states = [state for each in self.proxied.values() for state in each.upstreams.states()]
        if refusing := sorted({each.name for each in states if each.refuses_credentials}):
            served = "what is cached is served; correct them: pypiproxy upstreams says what was answered"
            troubles.insert(0, Trouble(Reason.REFUSED, f"the credentials of {_named(refusing)} are refused: {served}"))
        if down := [name for name, each in self.proxied.items() if each.upstreams.condition() is Condition.DOWN]:
            words = f"no upstream answers for {_named(down)}: what is cached is served; pypiproxy upstreams says why"
            troubles.insert(0, Trouble(Reason.UPSTREAM, words))
        return troubles

    def stop(self) -> None:
        """Stop what is under way."""
        for index in self.built.values():
            index.stop()


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def build_indexes(wanted: Iterable[IndexSettings], kinds: Mapping[str, IndexKind]) -> Indexes:
    """The indexes *wanted*, each by its kind, those that a group consists of before it."""
    by_name = {each.name: each for each in wanted}
    built: dict[str, BuiltIndex] = {}

    def build(name: str) -> BuiltIndex:
        if name not in built:
            index = by_name[name]
            built[name] = kinds[index.kind](index, {member: build(member) for member in index.members})
        return built[name]

    for name in by_name:
        build(name)
    default = next((each.name for each in by_name.values() if each.default), None)
    return Indexes({name: built[name] for name in by_name}, default)

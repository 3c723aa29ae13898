"""The indexes of a service.  :func:`build_indexes` is told how each kind of index is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList

from proxy.administration.parts import IndexParts
from proxy.core.troubles import Reason, Trouble
from proxy.interfaces import IRepository
from proxy.model import Condition
from proxy.settings import IndexSettings

#: Indexes that are named in one line.
_NAMED = 10


class Closing(Protocol):
    """A part of an index that may have something under way."""

    def close(self) -> None:
        """Stop what is under way."""


@frozen
class BuiltIndex:
    """One index, and what of it has to be stopped, in this order."""

    parts: IndexParts
    closing: tuple[Closing, ...]


#: Builds an index of one kind.
IndexKind = Callable[[IndexSettings], BuiltIndex]


@frozen
class Indexes:
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

    async def look(self) -> Sequence[Trouble]:
        """The indexes whose upstreams are all down."""
        down = [name for name, each in self.built.items() if each.parts.upstreams.condition() is Condition.DOWN]
        if not down:
            return []
        names = ", ".join(down[:_NAMED]) + (", …" if len(down) > _NAMED else "")
        words = f"no upstream answers for {names}: what is cached is served; pypiproxy upstreams says why"
        return [Trouble(Reason.UPSTREAM, words)]

    def stop(self) -> None:
        """Stop what is under way."""
        for index in self.built.values():
            for each in index.closing:
                each.close()

    async def close(self) -> None:
        """End what is asked of upstream."""
        pools = [Deferred.fromCoroutine(each.parts.upstreams.close()) for each in self.built.values()]
        await DeferredList(pools, consumeErrors=True)


def build_indexes(wanted: Iterable[IndexSettings], kinds: Mapping[str, IndexKind]) -> Indexes:
    """The indexes *wanted*, each by its kind."""
    wanted = tuple(wanted)
    default = next((each.name for each in wanted if each.default), None)
    return Indexes({each.name: kinds[each.kind](each) for each in wanted}, default)

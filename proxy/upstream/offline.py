"""The upstreams of an index that has none to ask: an air gap lies between, or an operator wants quiet."""

from __future__ import annotations

import math
from typing import NoReturn

from zope.interface import implementer

from proxy.errors import NotHere
from proxy.interfaces import IBodyReader, ISink, IUpstreams, Receive
from proxy.model import Condition, DocumentReply, FileFacts, PageReply, Validators, Wanted
from proxy.upstream.pool.upstream import UpstreamState


@implementer(IUpstreams)
class Offline:
    """Asks nobody.  Whoever has nothing to serve is told that *index* is offline."""

    def __init__(self, index: str) -> None:
        self._index = index

    def condition(self) -> Condition:
        return Condition.OFFLINE

    def retry_in(self) -> float:
        return math.inf

    def spare(self) -> bool:
        return False

    async def look(self) -> None:
        """There is nobody to look at."""

    def states(self) -> list[UpstreamState]:
        """What operators see: nobody."""
        return []

    def outranks(self, upstream: str, other: str) -> bool:
        return False

    def distrust(self, upstream: str, why: str) -> None:
        pass

    def last_modified(self) -> float | None:
        return None

    def slow(self, waited: float) -> None:
        pass

    async def close(self) -> None:
        pass

    async def page(self, project: str, known: Validators | None) -> PageReply:
        self._refuse(f"the page of {project}")

    async def document(self, path: str, known: Validators | None) -> DocumentReply:
        self._refuse(path)

    async def companion(self, wanted: Wanted, known: Validators | None) -> DocumentReply:
        self._refuse(wanted.name)

    async def projects(self, known: Validators | None, receive: Receive) -> DocumentReply:
        self._refuse("the list of projects")

    async def fetch(self, wanted: Wanted, sink: ISink) -> None:
        self._refuse(wanted.name)

    async def facts(self, wanted: Wanted) -> FileFacts:
        self._refuse(wanted.name)

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        self._refuse(wanted.name)

    def _refuse(self, what: str) -> NoReturn:
        raise NotHere(self._index, what)

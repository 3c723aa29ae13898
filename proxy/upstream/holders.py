"""Who has a file, and where: the upstream whose page named it, and every other one that lists the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.interfaces import IOffload
from proxy.model import Condition, Wanted
from proxy.upstream.client import UpstreamClient
from proxy.upstream.files import Place
from proxy.upstream.health import Trial
from proxy.upstream.listing import Listing
from proxy.upstream.standing import Standing


class Holders:
    """Those among the upstreams in *standing*.  *count* is told of each thing worth counting."""

    def __init__(self, standing: Standing, reactor: Any, offload: IOffload, count: Callable[[str], None]) -> None:
        self._standing = standing
        self._count = count
        self._listing = Listing(reactor, offload, self.distrust)

    def of(self, wanted: Wanted) -> list[UpstreamClient]:
        """Who may have *wanted*: whose page named it first, as long as it works; the others only where a digest vouches."""
        clients = self._standing.order(wanted.project, files=True)
        named = [client for client in clients if client.name == wanted.upstream]
        if wanted.digest is None:
            return named
        if named and clients and named[0].health.condition() is not Condition.DOWN and named[0].marked is None:
            clients = named + [client for client in clients if client is not named[0]]
        return clients

    async def place(self, client: UpstreamClient, wanted: Wanted, trial: Trial, silence: float | None) -> Place:
        """Where *client*'s upstream has *wanted*.  Raises Failed."""
        if client.name == wanted.upstream:
            return Place(client, wanted.url, client.settings.url)
        return await self._listing.place(client, wanted, trial, silence)

    def distrust(self, client: UpstreamClient, wanted: Wanted, what: str) -> None:
        """Mark *client*, which *what* (sent or lists other bytes); metadata that is wrong tells nothing about its files."""
        if wanted.companion:
            return
        client.mark(f"{what} {wanted.name} of {wanted.project}, which the index's page gives as {wanted.digest}")
        self._count("mirror with other bytes")

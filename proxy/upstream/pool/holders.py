"""Who has a file, and where: the upstream whose page named it, and every other one that lists the same bytes."""

from __future__ import annotations

from typing import Any

from proxy.core.events import Incident, Notice
from proxy.interfaces import IOffload, IRecorder
from proxy.model import Wanted
from proxy.upstream.http.attempt import Manner
from proxy.upstream.index.files import FilePlace
from proxy.upstream.pool.listing import Listing
from proxy.upstream.pool.standing import Standing
from proxy.upstream.pool.upstream import Upstream


class Holders:
    """Those among the upstreams in *standing*.  *recorder* is told what is worth counting."""

    def __init__(self, standing: Standing, reactor: Any, offload: IOffload, recorder: IRecorder) -> None:
        self._standing = standing
        self._recorder = recorder
        self._listing = Listing(reactor, offload, self.distrust)

    def of(self, wanted: Wanted) -> list[Upstream]:
        """Who may have *wanted*: whose page named it first, as long as it works; the others only where a digest vouches."""
        clients = self._standing.order(wanted.project, files=True)
        named = [client for client in clients if client.name == wanted.upstream]
        if wanted.digest is None:
            return named
        if named and clients and named[0].works and named[0].marked is None:
            clients = named + [client for client in clients if client is not named[0]]
        return clients

    async def place(self, client: Upstream, wanted: Wanted, manner: Manner) -> FilePlace:
        """Where *client*'s upstream has *wanted*.  Raises Failed."""
        if client.name == wanted.upstream:
            return FilePlace(wanted.url, client.settings.url)
        return await self._listing.place(client, wanted, manner)

    def distrust(self, client: Upstream, wanted: Wanted, what: str) -> None:
        """Mark *client*, which *what* (sent or lists other bytes)."""
        client.mark(f"{what} {wanted.name} of {wanted.project}, which the index's page gives as {wanted.digest}")
        self._recorder.record(Notice(Incident.MIRROR_WITH_OTHER_BYTES, wanted.index, wanted.project, wanted.filename))

"""The sources that a hosted index takes projects over from, each opened for one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxy.composition.means import Means
from proxy.composition.upstreams import Clients, build_client, build_pool
from proxy.moving.index_source import IndexSource
from proxy.moving.sources import ProjectSource
from proxy.moving.tree_source import TreeSource
from proxy.settings import IndexSettings, UpstreamSettings

#: What the source is called in messages.
_NAME = "source"


def opening(clients: Clients, means: Means) -> Callable[[Path | UpstreamSettings], ProjectSource]:
    """Opens a directory, or an index with these settings."""

    def open_source(place: Path | UpstreamSettings) -> ProjectSource:
        if isinstance(place, Path):
            return TreeSource(place, means.disk)
        client = build_client(place, clients.identity, means)
        pool = build_pool(
            IndexSettings(name=_NAME, upstreams=(place.name,), default=False),
            Clients(clients.identity, {place.name: client}),
            means,
        )

        async def close() -> None:
            await pool.close()
            await client.close()

        return IndexSource(place.name, pool, means.work, close)

    return open_source

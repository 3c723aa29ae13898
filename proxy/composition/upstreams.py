"""The configured upstreams, each with one client that all indexes share."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList

import proxy
from proxy.composition.means import Means
from proxy.mechanism.rotating import Rotating
from proxy.settings import IndexSettings, Settings, UpstreamSettings
from proxy.upstream.http.identity import Identity
from proxy.upstream.offline import Offline
from proxy.upstream.pool.upstream import Upstream
from proxy.upstream.pool.upstreams import Upstreams


@frozen
class Clients:
    """The clients of all upstreams, by name; *identity* is how they introduce themselves."""

    identity: Identity
    by_name: Mapping[str, Upstream]

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return [each for client in self.by_name.values() for each in client.rotating]

    async def close(self) -> None:
        """End what is under way, and close the connections."""
        await DeferredList([Deferred.fromCoroutine(each.close()) for each in self.by_name.values()], consumeErrors=True)


def build_clients(settings: Settings, instance: str, means: Means) -> Clients:
    """A client for each upstream of *settings*; *instance* is the name of this instance of the proxy."""
    identity = Identity(user_agent=_user_agent(settings.server.contact), via=f"pypiproxy-{instance}")
    return Clients(identity, {each.name: build_client(each, identity, means) for each in settings.upstreams})


def build_client(upstream: UpstreamSettings, identity: Identity, means: Means) -> Upstream:
    """The client of *upstream*."""
    return Upstream(
        upstream,
        reactor=means.reactor,
        offload=means.work,
        identity=identity,
        rng=random.Random(),  # noqa: S311  # jitter, no secret
        observing=means.observing,
        clock=means.clock,
    )


def build_pool(index: IndexSettings, clients: Clients, means: Means) -> Upstreams | Offline:
    """The upstreams of *index* as one; nobody, if it is offline."""
    if index.offline:
        return Offline(index.name)
    return Upstreams(
        index,
        [clients.by_name[name] for name in index.upstreams],
        reactor=means.reactor,
        offload=means.work,
        recorder=means.recorder,
        clock=means.clock,
    )


def _user_agent(contact: str | None) -> str:
    return f"pypiproxy/{proxy.__version__}" + (f" (+{contact})" if contact else "")

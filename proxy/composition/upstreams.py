"""The configured upstreams, each with one client that all indexes share."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

import proxy
from proxy.composition.means import Means
from proxy.composition.shared import HeldParts
from proxy.mechanism.rotating import Rotating
from proxy.settings import IndexSettings, Settings, UpstreamSettings
from proxy.upstream.http.identity import Identity
from proxy.upstream.offline import Offline
from proxy.upstream.pool.upstream import Upstream
from proxy.upstream.pool.upstreams import Upstreams


class Clients(Struct, frozen=True):
    """The clients of all upstreams, by name; *identity* is how they introduce themselves."""

    identity: Identity
    by_name: Mapping[str, Upstream]

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return [each for client in self.by_name.values() for each in client.rotating]


def build_identity(contact: str | None, instance: str) -> Identity:
    """How clients introduce themselves; *instance* is the name of this instance of the proxy."""
    return Identity(user_agent=_user_agent(contact), via=f"pypiproxy-{instance}")


def build_clients(settings: Settings, identity: Identity, holding: HeldParts[Upstream], means: Means) -> Clients:
    """A client for each upstream of *settings*.  One whose settings are the same as before is the same."""

    def client(upstream: UpstreamSettings) -> Upstream:
        key = (_without_secrets_of_files(upstream), identity.user_agent)
        return holding.take(key, lambda: build_client(upstream, identity, means))

    return Clients(identity, {each.name: client(each) for each in settings.upstreams})


def _without_secrets_of_files(upstream: UpstreamSettings) -> UpstreamSettings:
    """*upstream* without what is read again from its file when that changes."""
    if upstream.netrc is not None:
        return replace(upstream, username=None, password=None)
    if upstream.password_file is not None:
        return replace(upstream, password=None)
    return upstream if upstream.token_file is None else replace(upstream, token=None)


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

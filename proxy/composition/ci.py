"""What CI jobs exchange ID tokens at."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList

from proxy.composition.means import Means
from proxy.core.troubles import Trouble
from proxy.identity.exchange import TokenExchange
from proxy.identity.issuers import Issuer, site_of
from proxy.interfaces import IAuditLog, IMinting
from proxy.mechanism.rotating import Rotating
from proxy.settings import CiSettings
from proxy.upstream.http.fetching import SiteFetcher
from proxy.upstream.http.identity import Identity


class BuiltExchange(Struct, frozen=True):
    """The *exchange*, and who vouches for its jobs."""

    exchange: TokenExchange
    issuers: tuple[Issuer, ...]

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return [file for each in self.issuers for file in each.rotating]

    async def look(self) -> Sequence[Trouble]:
        """The issuers whose keys cannot be had."""
        return [trouble for each in self.issuers if (trouble := each.look()) is not None]

    async def close(self) -> None:
        """Close the connections to issuers."""
        await DeferredList([Deferred.fromCoroutine(each.close()) for each in self.issuers], consumeErrors=True)


def exchange_key(settings: CiSettings, logins: Hashable, identity: Identity) -> Hashable:
    """What an exchange is made of: the same exchange goes on while that is the same."""
    issuers = tuple(each if each.token_file is None else replace(each, token=None) for each in settings.issuers)
    return replace(settings, issuers=issuers), logins, identity.user_agent


def build_exchange(
    settings: CiSettings, identity: Identity, minting: IMinting, audit: IAuditLog, means: Means
) -> BuiltExchange:
    """The exchange of *settings*, whose tokens *minting* makes; *identity* is how issuers are asked."""
    issuers = tuple(
        Issuer(
            each,
            SiteFetcher(site_of(each), reactor=means.reactor, identity=identity, clock=means.clock, observing=means.observing),
            means.reactor,
            means.work,
        )
        for each in settings.issuers
    )
    by_url = {each.settings.url: each for each in issuers}
    exchange = TokenExchange(settings, by_url, minting, audit, reactor=means.reactor, clock=means.clock, offload=means.work)
    return BuiltExchange(exchange, issuers)

"""Documents of a site that is no upstream of an index: fetched by the same client, and no evidence is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.interfaces import Clock
from proxy.mechanism.rotating import Observing, Rotating
from proxy.settings import UpstreamSettings
from proxy.upstream.http.attempt import Attempt, Manner
from proxy.upstream.http.client import HttpClient
from proxy.upstream.http.identity import Identity
from proxy.upstream.http.origin import Origin


class SiteFetcher:
    """Fetches from the site of *settings*, with its authorities, its credentials and its outbound proxy."""

    def __init__(
        self, settings: UpstreamSettings, *, reactor: Any, identity: Identity, clock: Clock, observing: Observing
    ) -> None:
        self._name = settings.name
        self._client = HttpClient(settings, reactor=reactor, identity=identity, clock=clock, observing=observing)

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return self._client.rotating

    async def get(self, url: str, accept: str, limit: int, *, named_by: str | None = None) -> bytes:
        """The document at *url*, of at most *limit* bytes; *named_by* is the https document that named it.

        Raises Failed.
        """
        attempt = Attempt(self._name, self._client, AnyPermit(), Manner())
        try:
            exchange = await attempt.ask("GET", url, {"Accept": accept}, named_by=named_by)
            document = await exchange.read(limit)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends the attempt and is raised
            raise attempt.fail(error) from error.__cause__
        attempt.end()
        return document

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.close()


class AnyPermit:
    """See :class:`proxy.upstream.http.attempt.IPermit`: leave to ask whatever came of it before."""

    void = False

    def toward(self, origin: Origin) -> None:
        pass

    def order(self, origin: Origin, addresses: Sequence[str]) -> list[str]:
        return list(addresses)

    def pace(self) -> float:
        return 0.0

    def answered(self, origin: Origin, address: str | None, status: int) -> None:
        pass

    def address_failed(self, origin: Origin, address: str, unreachable: bool) -> None:
        pass

    def proven(self) -> None:
        pass

    def settle(self, error: BaseException | None, overtaken: bool) -> None:
        pass

"""The keys of one issuer, as fresh as they have to be.

Theory of operation.  Keys are fetched when they are first needed, an hour later, and when a token names one that is not among
them: issuers change their keys, and sign with a new one at once.  Tokens with invented names must not make the proxy ask an
issuer without end, so there is a pause between two fetches, whatever came of the first.  An issuer that does not answer changes
nothing for a day: the keys that are known are still its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from joserfc.jwk import Key
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxy.core.troubles import Reason, Trouble
from proxy.identity.keys import Keys, read_discovery, read_keys
from proxy.interfaces import IOffload
from proxy.mechanism.flight import Flights
from proxy.mechanism.patience import within
from proxy.mechanism.rotating import Rotating
from proxy.settings import KIB, IssuerSettings, UpstreamSettings
from proxy.upstream.http.failures import Failed
from proxy.upstream.http.fetching import SiteFetcher

#: How long keys are used without asking again, and how long while the issuer does not answer (seconds).
FRESH, USABLE = 3600.0, 86400.0
#: Seconds between two fetches.
PAUSE = 10.0
#: How long somebody waits for newer keys who could do with the known ones (seconds).
_PATIENCE = 2.0
#: The largest document that is read (bytes).
_LARGEST = 256 * KIB


class IssuerDown(Exception):
    """The keys of an issuer cannot be had; ``str()`` says why."""


def site_of(settings: IssuerSettings) -> UpstreamSettings:
    """How the site of the issuer of *settings* is asked."""
    table = f"ci.issuer.{settings.name}"
    return UpstreamSettings(
        name=table,
        other_table=table,
        url=settings.url,
        ca_file=settings.ca_file,
        token=settings.token,
        token_file=settings.token_file,
        outbound_proxy=settings.outbound_proxy,
        first_byte_timeout=5.0,
        body_idle_timeout=5.0,
        max_connections=2,
        forbidden="failure",
    )


class Issuer:
    """The issuer of *settings*, whose documents *fetcher* fetches; *offload* reads them."""

    log = Logger()

    def __init__(self, settings: IssuerSettings, fetcher: SiteFetcher, reactor: IReactorTime, offload: IOffload) -> None:
        self.settings = settings
        self._fetcher = fetcher
        self._now: Callable[[], float] = reactor.seconds
        self._reactor = reactor
        self._offload = offload
        self._keys = Keys(())
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        #: Why the last fetch came to nothing.
        self.trouble: str | None = None
        self._fetches: Flights[None] = Flights()

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return self._fetcher.rotating

    async def key(self, kid: str | None, algorithm: str) -> Key | None:
        """The key named *kid* for *algorithm*; ``None`` if the issuer has none.  Raises IssuerDown."""
        if not self._younger_than(USABLE):
            await self._fetch()
            if not self._younger_than(USABLE):
                raise IssuerDown(f"the issuer {self.settings.url} {self.trouble}")
        elif not self._younger_than(FRESH):
            await within(_PATIENCE, self._fetch(), self._reactor)
        key = self._keys.find(kid, algorithm)
        if key is None:
            await self._fetch()
            key = self._keys.find(kid, algorithm)
        return key

    def look(self) -> Trouble | None:
        """What is wrong, if the keys could not be had when a job needed them within the last hour."""
        if self.trouble is None or self._tried_at is None or self._now() - self._tried_at >= FRESH:
            return None
        meanwhile = "the keys that are known are used" if self._younger_than(USABLE) else "its CI jobs get no tokens"
        return Trouble(Reason.ISSUER, f"the issuer {self.settings.name} ({self.settings.url}) {self.trouble}: {meanwhile}")

    async def close(self) -> None:
        """Close idle connections."""
        await self._fetcher.close()

    def _younger_than(self, age: float) -> bool:
        """Whether the keys are known and younger than *age* (seconds)."""
        return self._fetched_at is not None and self._now() - self._fetched_at < age

    async def _fetch(self) -> None:
        """Fetch the keys, unless that was tried shortly ago; whether it succeeded shows in what is known then."""
        if "keys" not in self._fetches and self._tried_at is not None and self._now() - self._tried_at < PAUSE:
            return
        await self._fetches.join("keys", self._fetch_once)

    async def _fetch_once(self) -> None:
        self._tried_at = self._now()
        try:
            keys = await self._fetch_keys()
        except (Failed, ValueError) as error:
            self._failed(str(error))
            return
        if not keys:
            self._failed("publishes no key that an ID token may be signed with")
            return
        if self.trouble is not None:
            self.log.info("issuer {name} answers again", name=self.settings.name)
        self.trouble = None
        self._keys, self._fetched_at = keys, self._now()

    async def _fetch_keys(self) -> Keys:
        settings = self.settings
        url, discovery = settings.jwks_url, None
        if url is None:
            discovery = f"{settings.url.rstrip('/')}/.well-known/openid-configuration"
            document = await self._fetcher.get(discovery, "application/json", _LARGEST)
            url = await self._offload.run(read_discovery, document, settings.url)
            if urlsplit(url).scheme != urlsplit(discovery).scheme:
                raise ValueError("has its keys at a URL that is not https")
        keys = await self._fetcher.get(url, "application/jwk-set+json, application/json", _LARGEST, named_by=discovery)
        return await self._offload.run(read_keys, keys)

    def _failed(self, why: str) -> None:
        if why != self.trouble:
            self.log.warn("issuer {name} ({url}): {why}", name=self.settings.name, url=self.settings.url, why=why)
        self.trouble = why

"""The index kind ``proxy``: one index out of its pool of upstreams, its caches and its repositories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from proxy.administration.parts import IndexParts, Proxied
from proxy.cache.documents import DocumentCache
from proxy.cache.pages import PageCache
from proxy.cache.projects import ProjectList
from proxy.cache.records import DOCUMENTS, PROJECTS, HeadedRecords
from proxy.cache.refreshed import Terms
from proxy.composition.caches import Caches
from proxy.composition.claims import reserving
from proxy.composition.indexes import BuiltIndex
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.composition.upstreams import Clients, build_pool
from proxy.errors import StorageFailed
from proxy.interfaces import IUpstreams
from proxy.model import DocumentReply, Validators
from proxy.policy.policy import Policy
from proxy.repository.documents import Documents, ProvenancePlaces
from proxy.repository.hosts import FileHosts
from proxy.repository.metadata import Sidecars
from proxy.repository.presence import Presence
from proxy.repository.proxying import ProxyRepository
from proxy.repository.sources import Offering, Sources
from proxy.settings import IndexSettings, Settings
from proxy.statistics.definitions import FlightKind


class ProxyKind:
    """Builds the proxy indexes of *settings*; *policy* says what clients may see of them."""

    def __init__(
        self, settings: Settings, storage: Storage, caches: Caches, clients: Clients, policy: Policy, means: Means
    ) -> None:
        self._storage = storage
        self._caches = caches
        self._clients = clients
        self._policy = policy
        self._means = means
        self._hosts = FileHosts(settings.upstreams)
        self._reserving = {each.name: reserving(settings, each.name) for each in settings.indexes}

    def build(self, index: IndexSettings, members: Mapping[str, BuiltIndex]) -> BuiltIndex:
        """The index that *index* describes."""
        means, caches = self._means, self._caches
        pool = build_pool(index, self._clients, means)
        terms = Terms(index.limits, means.reactor, means.clock, means.recorder)
        pages = PageCache(index.name, pool, caches.records, means.work, terms, caches.parsed, caches.ledger.sightings)
        documents = self._documents(index.name, pool, pages, terms)
        metadata = Sidecars(caches.files, caches.ledger, means.work, means.clock, means.reactor, means.recorder)
        sources = Sources(name=index.name, upstreams=pool, pages=pages, files=caches.files, ledger=caches.ledger)

        def repository(offering: Offering) -> ProxyRepository:
            return ProxyRepository(sources, offering, metadata, documents, means.work, means.clock, means.recorder)

        def configure(settings: Settings) -> None:
            terms.limits = next((each.limits for each in settings.indexes if each.name == index.name), index.limits)

        offered = repository(self._offering(index, self._policy, prefetch=index.prefetch and not index.offline))
        everything = repository(self._offering(index, Policy(), prefetch=False))
        return BuiltIndex(
            IndexParts(offered, everything, Proxied(pages, documents, pool, partial(self._is_reserved, index.name))),
            closing=(pages, documents, metadata, offered, everything),
            under_way={
                FlightKind.PAGE: [pages.under_way],
                FlightKind.DOCUMENT: documents.documents_under_way,
                FlightKind.LIST: [documents.lists_under_way],
                FlightKind.METADATA: [metadata.under_way],
            },
            configure=configure,
        )

    def _offering(self, index: IndexSettings, policy: Policy, *, prefetch: bool) -> Offering:
        # What is present is remembered for what one policy lets be seen.
        presence = Presence(self._storage.files, self._caches.private, self._means.work) if index.offline else None
        return Offering(
            policy=policy, hosts=self._hosts, presence=presence, prefetch=prefetch, reserved=self._reserved(index.name)
        )

    async def _is_reserved(self, index: str, project: str) -> bool:
        hosted, claims = self._reserving[index], self._caches.claims
        if not hosted:
            return False
        await claims.read()
        return claims.reserved(hosted, project)

    def _reserved(self, index: str) -> Callable[[str], bool]:
        """Whether the name of a project belongs to a hosted index that *index* is in a group with, or may do so."""
        hosted, claims = self._reserving[index], self._caches.claims

        def reserved(project: str) -> bool:
            try:
                return bool(hosted) and claims.reserved(hosted, project)
            except StorageFailed:
                return True

        return reserved

    def _documents(self, index: str, pool: IUpstreams, pages: PageCache, terms: Terms) -> Documents:
        places, work = ProvenancePlaces(index), self._means.work

        def provenance(key: str, known: Validators | None) -> Awaitable[DocumentReply]:
            return pool.companion(places.wanted(key), known)

        def records(kind: str) -> HeadedRecords:
            return HeadedRecords(kind, index, self._caches.records, work)

        documents, lists = records(DOCUMENTS), self._storage.lists(index, work)
        return Documents(
            DocumentCache(pool, pool.document, documents, terms),
            DocumentCache(pool, provenance, documents, terms),
            places,
            ProjectList(index, pool, pages, records(PROJECTS), lists, work, self._policy, terms),
        )

"""The dashboard: what it reads of the service, and for whom."""

from __future__ import annotations

from collections.abc import Callable

from proxy.administration.hosting import Hosting
from proxy.administration.parts import Stores
from proxy.administration.pinning import Pinning
from proxy.administration.purging import Purging
from proxy.composition.caches import Caches
from proxy.composition.indexes import Indexes
from proxy.composition.means import Means
from proxy.composition.process import for_dashboards, raise_descriptor_limit
from proxy.interfaces import IClaims, Operation
from proxy.settings import ServerSettings
from proxy.statistics.book import StatisticsBook
from proxy.upstream.pool.upstream import UpstreamState
from proxy.web.changing import Changes
from proxy.web.dashboard.assets import Assets
from proxy.web.dashboard.gathering import StateGatherer
from proxy.web.dashboard.home import Dashboard
from proxy.web.dashboard.logins import BrowserLogins
from proxy.web.dashboard.performing import ProjectActions
from proxy.web.dashboard.projects import ProjectPages
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.dashboard.shell import Shell
from proxy.web.dashboard.state import DownloadState, SpaceState, StateSources
from proxy.web.dashboard.stored import CachedFiles
from proxy.web.dashboard.streams import EventStreams
from proxy.web.dashboard.viewers import Viewers
from proxy.web.door import Door
from proxy.web.operations import Health
from proxy.web.overview import Overview


def build_dashboard(
    server: ServerSettings,
    indexes: Indexes,
    caches: Caches,
    claims: IClaims,
    means: Means,
    health: Health,
    door: Door,
    overview: Overview,
    statistics: StatisticsBook,
    space: Callable[[], SpaceState],
    stores: Stores,
    sessions: BrowserSessions,
    changes: Changes,
) -> Dashboard:
    """The dashboard over *indexes*, as *door* admits to them; its buttons work on these and on *stores*.

    *changes* tells who may promote to which index.
    """

    def upstreams() -> list[tuple[str, UpstreamState]]:
        return [(name, state) for name, each in indexes.proxied.items() for state in each.upstreams.states()]

    def downloads() -> list[DownloadState]:
        return [
            DownloadState(wanted.index, wanted.project, wanted.name, arrived, size)
            for wanted, arrived, size in caches.files.under_way()
        ]

    gatherer = StateGatherer(StateSources(upstreams, downloads, space), health, statistics, means.reactor, means.clock)
    assets = Assets()
    # What is kept live must not keep clients out.
    apart = bool(server.dashboard_listen)
    most = for_dashboards(raise_descriptor_limit()) * 4 // 5 if apart else server.max_connections // 4
    streams = EventStreams(gatherer, means.work, means.reactor, server.stall_timeout, most)
    viewers, shell = Viewers(door, sessions, indexes.repositories), Shell(means.work, assets, apart=apart)
    cached = CachedFiles(caches.ledger, caches.usage, caches.pinned)
    parts = indexes.parts
    purging = Purging(parts, stores, means.clock)
    # Those of the admin socket would be recorded as performed by whoever may connect to that.
    operations: dict[str, Operation] = {
        "refresh": purging.refresh,
        "purge": purging.purge,
        **Pinning(parts, stores).operations,
        **Hosting(parts, means.work).operations,
    }
    hosted = frozenset(name for name, each in parts.items() if each.hosted is not None)
    logins = BrowserLogins(door, sessions, shell)
    return Dashboard(
        viewers,
        gatherer,
        streams,
        shell,
        assets,
        None if apart else overview,
        ProjectPages(indexes.repositories, cached, claims, means.work, means.reactor, apart=apart),
        logins,
        ProjectActions(viewers, door, sessions, indexes.repositories, hosted, operations, changes, shell, logins),
        door,
        indexes.repositories,
        indexes.default,
        means.work,
    )

"""What answers requests, as one configuration has it: the door, the routes, the hot lane and the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from msgspec import Struct, field

from proxy.access.forwarded import TrustedProxies
from proxy.access.rights import Rights
from proxy.access.scrapers import Scrapers
from proxy.access.stated import StatedUsers
from proxy.composition.accounts import AccessRoom
from proxy.composition.caches import Caches, stores_of
from proxy.composition.indexes import Indexes
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.interfaces import IExchange, IOwnership, Operation
from proxy.mechanism.late import Late
from proxy.mechanism.waiting import WaitingRoom
from proxy.settings import ReverseProxySettings, Settings
from proxy.statistics.book import StatisticsBook
from proxy.upstream.http.identity import Identity
from proxy.web.apart import DashboardApart
from proxy.web.callers import Callers
from proxy.web.changing import Changes
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.dashboard.state import SpaceState
from proxy.web.documents import JsonDocuments
from proxy.web.door import Door
from proxy.web.exchanging import Exchanging
from proxy.web.files import Files
from proxy.web.hot import HotRequests
from proxy.web.operations import Health, Operations
from proxy.web.pages import Pages
from proxy.web.patience import Patience
from proxy.web.projects import ProjectLists
from proxy.web.renderings import Renderings
from proxy.web.routes import UrlSpace
from proxy.web.scraping import Scraping
from proxy.web.serving import Front
from proxy.web.site import PERMISSIONS, ROUTES, Routes
from proxy.web.upload import Uploads

if TYPE_CHECKING:
    from proxy.web.browsing import Browsing
    from proxy.web.dashboard.home import Dashboard
    from proxy.web.links import FlatPages
    from proxy.web.local_stats import LocalStats
    from proxy.web.overview import Overview

#: The shares of ``page_memory`` for finished bytes.
_FOR_RENDERINGS, _FOR_HOT, _FOR_SMALL_FILES, _FOR_DOCUMENTS = 0.35, 0.1, 0.15, 0.05


class Serving(Struct, frozen=True, eq=False):
    """What answers, as one configuration has it: *front* for the whole site, and *beside* it another one at the listeners of
    the dashboard, if there are any.
    """

    front: Front
    scraping: Scraping
    callers: Callers
    identity: Identity
    uploads: Uploads
    lists: ProjectLists
    dashboard: Late[Dashboard] | None
    apart: DashboardApart
    beside: list[Front] = field(default_factory=list)

    @property
    def fronts(self) -> Sequence[Front]:
        """All that answer to people and to their clients."""
        return (self.front, *self.beside)

    def end_streams(self) -> None:
        """End what would be kept live for long; browsers ask again."""
        if self.dashboard is not None and self.dashboard.made is not None:
            self.dashboard.made.close()

    async def quiet(self) -> None:
        """Wait until no response is in progress, and no upload is being stored."""
        self.end_streams()
        for each in self.fronts:
            await each.quiet()
        await self.uploads.settled()

    def close(self) -> None:
        """Give back what is kept."""
        self.lists.close()


def build_serving(
    settings: Settings,
    indexes: Indexes,
    caches: Caches,
    identity: Identity,
    means: Means,
    health: Health,
    access: AccessRoom,
    rights: Rights,
    storage: Storage,
    exchange: IExchange | None,
    claims: IOwnership,
    statistics: StatisticsBook,
    room: WaitingRoom,
    space: Callable[[], SpaceState],
    sessions: BrowserSessions,
    *,
    access_log: bool,
) -> Serving:
    """What answers for *indexes*, as *rights* permit; *health* is what those who probe the service are told.

    *access* knows who sends a request.  *identity* knows the requests that this instance has sent upstream.  *exchange* is
    where CI jobs exchange ID tokens, if they do.  *claims* tell whom names belong to; *statistics* count what clients ask for.
    In *room* requests wait for upstream.  *space* is what is known of the store and its disk.  *access_log* is whether each
    request is logged.
    *sessions* are those of browsers, which last.
    """
    server = settings.server
    memory = server.page_memory
    scrapers = Scrapers(server.metrics_for, settings.access.groups) if server.metrics_for else None
    door = Door(rights, access.accounts, access.audit, indexes.repositories, PERMISSIONS, claims.ready, means.metrics, scrapers)
    scraping = Scraping(means.metrics, health.look, door, means.work)
    callers = Callers(
        TrustedProxies(server.trusted_proxies),
        plaintext=settings.access.allow_plaintext_auth,
        stated=_stated(settings.access.reverse_proxy),
    )
    uploads = Uploads(indexes.receiving, indexes.default, door)
    lists = ProjectLists(door, storage.scratch, means.work)

    # What few requests ask for, such as all that is for people, takes a while to load: none of it is at the start.
    def overview() -> Overview:
        from proxy.web.overview import Overview

        return Overview({each.name: each.kind for each in settings.indexes}, indexes.default, health, means.work)

    def browsing() -> Browsing:
        from proxy.web.browsing import Browsing

        return Browsing(means.work)

    def flat_pages() -> FlatPages:
        from proxy.web.links import FlatPages

        return FlatPages(means.work)

    def local_stats() -> LocalStats:
        from proxy.web.local_stats import LocalStats

        return LocalStats(statistics, means.work, means.clock)

    def operations() -> Mapping[str, Operation]:
        from proxy.administration.hosting import Hosting

        return Hosting(indexes.parts, means.work).operations

    changes = Changes(door, indexes.repositories, _hosted(indexes), Late(operations))
    pages = Late(overview)

    def dashboard() -> Dashboard:
        from proxy.composition.dashboard import build_dashboard

        stores = stores_of(server, storage, caches)
        return build_dashboard(
            server, indexes, caches, claims, means, health, door, pages(), statistics, space, stores, sessions, changes
        )

    load = partial(means.work.run_first, import_module, "proxy.composition.dashboard")
    shown = Late(dashboard, load) if server.dashboard else None
    routes = Routes(
        indexes.repositories,
        Pages(Renderings(means.work, int(memory * _FOR_RENDERINGS))),
        Files(int(memory * _FOR_SMALL_FILES), caches.usage.used),
        JsonDocuments(means.work, int(memory * _FOR_DOCUMENTS)),
        Operations(health, None if server.metrics_listen else scraping, means.work),
        pages,
        Late(browsing),
        Late(flat_pages),
        uploads,
        changes,
        lists,
        Exchanging(exchange, _taking_uploads(settings, indexes), indexes.default),
        Late(local_stats),
        identity,
        door,
        None if server.dashboard_listen else shown,
    )
    front = Front(
        routes,
        HotRequests(means.clock, identity.via, int(memory * _FOR_HOT), door),
        callers,
        means.reactor,
        means.disk,
        via=identity.via,
        patience=Patience(stall_timeout=server.stall_timeout),
        space=UrlSpace(ROUTES, indexes.built, indexes.default),
        recorder=means.metrics,
        visits=statistics,
        room=room,
        access_log=access_log,
    )
    return Serving(front, scraping, callers, identity, uploads, lists, shown, DashboardApart(shown))


def _hosted(indexes: Indexes) -> frozenset[str]:
    """The indexes with files of their own."""
    return frozenset(name for name, each in indexes.parts.items() if each.hosted is not None)


def _taking_uploads(settings: Settings, indexes: Indexes) -> list[str]:
    """The indexes that take uploads under *settings*, which may not hold yet."""
    stated = {each.name: each.hosted.uploads for each in settings.indexes if each.hosted is not None}
    return [name for name, each in indexes.receiving.items() if stated.get(name, each.takes_uploads)]


def _stated(settings: ReverseProxySettings | None) -> StatedUsers | None:
    """What reads the users that reverse proxies state."""
    return None if settings is None else StatedUsers(settings.user_header, settings.groups_header)

"""A site with indexes that take uploads, on a real socket: everything above the port of a hosted index, and nothing below."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Hashable
from typing import Any

from msgspec import Struct, field
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import maybeDeferred

from proxy.access.forwarded import TrustedProxies
from proxy.access.principals import Principal
from proxy.access.rights import Access, Permission, Rights
from proxy.core.health import Phase
from proxy.interfaces import IAccounts, IExchange
from proxy.mechanism.late import Late
from proxy.mechanism.offload import Inline
from proxy.statistics.book import StatisticsBook
from proxy.statistics.metrics import Metrics
from proxy.storage.memory import MemoryRecords
from proxy.upstream.http.identity import Identity
from proxy.web.browsing import Browsing
from proxy.web.callers import Callers
from proxy.web.changing import Changes
from proxy.web.connections import BoundedSite
from proxy.web.documents import JsonDocuments
from proxy.web.door import Door, NoAccounts
from proxy.web.exchanging import Exchanging
from proxy.web.files import Files
from proxy.web.hot import HotRequests
from proxy.web.links import FlatPages
from proxy.web.local_stats import LocalStats
from proxy.web.operations import Health, Operations
from proxy.web.overview import Overview
from proxy.web.pages import Pages
from proxy.web.patience import Patience
from proxy.web.projects import ProjectLists
from proxy.web.renderings import Renderings
from proxy.web.routes import UrlSpace
from proxy.web.scraping import Scraping
from proxy.web.serving import Front
from proxy.web.site import PERMISSIONS, ROUTES, Routes
from proxy.web.upload import Uploads
from tests.shelf import Shelf
from tests.support import wire
from tests.support.forms import Form
from tests.support.receiving import Shop
from tests.support.wheels import wheel

reactor: Any = default_reactor


class Doorkeeper(Struct):
    """Rights that a test gives: uploads are answered by *uploads*, those of a project by *of_project*; all may read."""

    uploads: Access = Access.ALLOWED
    of_project: dict[str, Access] = field(default_factory=dict)
    #: What was asked, in order.
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def may(self, principal: Principal, permission: Permission, index: str, project: str | None) -> Access:
        if permission is Permission.READ:
            return Access.ALLOWED
        self.asked.append((index, project))
        return self.of_project.get(project or "", self.uploads)

    def reads_all(self, principal: Principal, index: str) -> bool:
        return True

    def standing(self, principal: Principal) -> Hashable:
        return None


class Counter:
    """A site whose indexes *shops* take uploads, and whose other indexes, *shelves*, do not; *default* is at the root too."""

    def __init__(
        self,
        *shops: Shop,
        shelves: Collection[Shelf] = (),
        default: str | None = None,
        rights: Doorkeeper | None = None,
        granted: Rights | None = None,
        accounts: IAccounts | None = None,
        exchange: IExchange | None = None,
        clock: Any = reactor,
        patience: Patience | None = None,
    ) -> None:
        self.rights = rights or Doorkeeper()
        self.shops = {each.name: each for each in shops}
        here = wheel("here")
        repositories = {each.name: each for each in (*(Shelf(shop.name, here) for shop in shops), *shelves)}
        offload, identity, health = Inline(), Identity("pypiproxy/test", "pypiproxy-test"), Health(lambda: Phase.SERVING, _well)
        door = Door(granted or self.rights, accounts or NoAccounts(), repositories=repositories, permissions=PERMISSIONS)
        self.uploads = Uploads(self.shops, default, door)
        routes = Routes(
            repositories,
            Pages(Renderings(offload, 1 << 20)),
            Files(1 << 20, lambda digest: None),
            JsonDocuments(offload, 1 << 20),
            Operations(health, Scraping(Metrics(), health.look, door, offload), offload),
            Late(lambda: Overview(dict.fromkeys(repositories, "proxy"), default, health, offload)),
            Late(lambda: Browsing(offload)),
            Late(lambda: FlatPages(offload)),
            self.uploads,
            Changes(door),
            ProjectLists(door, tempfile.TemporaryFile, offload),
            Exchanging(exchange, [each.name for each in shops if each.takes_uploads], default),
            Late(lambda: LocalStats(StatisticsBook(MemoryRecords(), Inline(), time.time), offload, time.time)),
            identity,
            door,
        )
        self.front = Front(
            routes,
            HotRequests(clock.seconds, identity.via, 1 << 20, door),
            Callers(TrustedProxies([])),
            clock,
            offload,
            via=identity.via,
            patience=patience or Patience(stall_timeout=60.0),
            space=UrlSpace(ROUTES, repositories, default),
        )
        self.site = BoundedSite(self.front, clock, 1000, 75.0, lambda full: None)
        self._port: Any = None

    def open(self, tls: Any = None) -> Counter:
        """Listen on a free port of 127.0.0.1; with *tls* (see ``tests.support.certs``), over https."""
        if tls is None:
            self._port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, self.site, tls, interface="127.0.0.1")
        return self

    async def close(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        await self.site.close(0.0)
        await self.uploads.settled()

    @property
    def port(self) -> int:
        number: int = self._port.getHost().port
        return number

    @property
    def base(self) -> str:
        """``http://host:port``."""
        return f"http://127.0.0.1:{self.port}"

    async def send(self, form: Form, path: str = "/index/internal/", **headers: str) -> wire.Reply:
        """The answer to *form* at *path*."""
        return await post(self.port, path, form.body, form.content_type, **headers)


async def post(port: int, path: str, body: bytes, content_type: str, **headers: str) -> wire.Reply:
    """The answer to a form, on a connection of its own."""
    client = await wire.connect(port)
    client.ask(path, "POST", Content_Type=content_type, Content_Length=str(len(body)), **headers)
    client.transport.write(body)
    reply = await client.reply()
    await client.close()
    return reply


async def _well() -> tuple[()]:
    return ()

"""A site with restricted indexes, on a real socket: real accounts and rights, and small repositories in memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from proxy.access.forwarded import TrustedProxies
from proxy.access.rights import Grant, GrantedRights
from proxy.access.roles import ALL, Extent, Role, Scope
from proxy.access.stated import StatedUsers
from proxy.access.tokens import Confinement, narrowed, read_token
from proxy.accounts.accounts import Accounts
from proxy.accounts.failures import FailedLogins
from proxy.accounts.tokens import IssuedScope, Tokens
from proxy.accounts.users import UsersFile
from proxy.core.audited import Audited
from proxy.core.health import Phase
from proxy.errors import NotFound
from proxy.interfaces import IAuditLog, IExchange, IFileHandle
from proxy.mechanism.late import Late
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.statistics.book import StatisticsBook
from proxy.statistics.metrics import Metrics
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.memory import MemoryRecords, MemoryVersioned
from proxy.upstream.http.identity import Identity
from proxy.web.browsing import Browsing
from proxy.web.callers import Callers
from proxy.web.changing import Changes
from proxy.web.connections import BoundedSite
from proxy.web.documents import JsonDocuments
from proxy.web.door import Door
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
from tests.support.logins import QUICK, basic
from tests.support.receiving import Shop
from tests.support.wheels import Distribution

reactor: Any = default_reactor


class Together(Shelf):
    """A group of two shelves: *first* has the projects that it holds, *second* all others."""

    def __init__(self, name: str, first: Shelf, second: Shelf, *both: Distribution) -> None:
        super().__init__(name, *both)
        self.leaves = (first.name, second.name)
        self.of_first: set[str] = set()
        self._first, self._second = first, second

    def owners(self, project: str) -> Sequence[str]:
        return (self._first.name if project in self.of_first else self._second.name,)

    async def file(self, project: str, digest: str, name: str) -> IFileHandle:
        if project in self.of_first:
            return await self._first.file(project, digest, name)
        try:
            return await self._second.file(project, digest, name)
        except NotFound as error:
            raise NotFound(f"neither of {self.leaves} has {name}") from error


@implementer(IAuditLog)
class AuditBook:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.entries: list[Audited] = []

    def note(self, entry: Audited) -> None:
        self.entries.append(entry)


def grant(role: Role, to: str, index: str, projects: str = ALL) -> Grant:
    """A grant on one index; several principals, or patterns, have spaces between them."""
    return Grant(Scope(role, Extent((index,), tuple(projects.split()))), tuple(to.split()))


class Guarded:
    """A site of *repositories*, of which *shops* take uploads, with users in *folder* who may do what *grants* say."""

    def __init__(
        self,
        folder: Path,
        *repositories: Shelf,
        shops: Collection[Shop] = (),
        grants: Collection[Grant] = (),
        trusted: Collection[str] = (),
        plaintext: bool = False,
        stated: StatedUsers | None = None,
        exchange: IExchange | None = None,
    ) -> None:
        by_name = {each.name: each for each in repositories}
        self.repositories = repositories
        offload, identity, health = Inline(), Identity("pypiproxy/test", "pypiproxy-test"), Health(lambda: Phase.SERVING, _well)
        self.audit = AuditBook()
        self.users = UsersFile(
            folder / "users",
            expected=False,
            observing=Observing(offload, UNRECORDED, lambda: 2e9),
            hashing=offload,
            changed=lambda: self.accounts.forget(),
            cost=QUICK,
        )
        self.records = MemoryVersioned()
        self.tokens = Tokens(self.records, lambda: 2e9)
        failures = FailedLogins(reactor.seconds, longest=0.0)
        self.accounts = Accounts(self.users, self.tokens, reactor, lambda: 2e9, self.audit, failures)
        door = Door(GrantedRights(grants, first_uploader=_began), self.accounts, self.audit, by_name, PERMISSIONS)
        self.uploads = Uploads({each.name: each for each in shops}, None, door)
        self._lists = ProjectLists(door, tempfile.TemporaryFile, offload)
        routes = Routes(
            by_name,
            Pages(Renderings(offload, 1 << 20)),
            Files(1 << 20, lambda digest: None),
            JsonDocuments(offload, 1 << 20),
            Operations(health, Scraping(Metrics(), health.look, door, offload), offload),
            Late(lambda: Overview(dict.fromkeys(by_name, "proxy"), None, health, offload)),
            Late(lambda: Browsing(offload)),
            Late(lambda: FlatPages(offload)),
            self.uploads,
            Changes(door, by_name, frozenset(each.name for each in shops)),
            self._lists,
            Exchanging(exchange, [each.name for each in shops], None),
            Late(lambda: LocalStats(StatisticsBook(MemoryRecords(), Inline(), time.time), offload, time.time)),
            identity,
            door,
        )
        self.front = Front(
            routes,
            HotRequests(lambda: 2e9, identity.via, 1 << 20, door),
            Callers(TrustedProxies(list(trusted)), plaintext=plaintext, stated=stated),
            reactor,
            offload,
            via=identity.via,
            patience=Patience(stall_timeout=60.0),
            space=UrlSpace(ROUTES, by_name, None),
        )
        self.site = BoundedSite(self.front, reactor, 1000, 75.0, lambda full: None)
        self._port: Any = None

    async def open(self) -> Guarded:
        """Listen on a free port of 127.0.0.1.  alice and bob have the passwords ``alice!`` and ``bob!``."""
        for user in ("alice", "bob"):
            await self.users.add(user, f"{user}!".encode())
        self._port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self._clients = wire.KeptConnections(self.port)
        return self

    async def token(self, *scopes: IssuedScope, user: str = "ci", confined: Confinement | None = None) -> str:
        """The value of ``Authorization`` with a new token."""
        _, text = await self.tokens.issue(user, scopes or None, None)
        return basic("__token__", text if confined is None else str(narrowed(read_token(text), confined, bytes(32))))

    async def get(self, path: str, login: str | None = None, method: str = "GET", **headers: str) -> wire.Reply:
        """The answer to who sends the credential *login*, on a connection that nobody uses."""
        return await self._clients.fetch(path, method, **({} if login is None else {"Authorization": login}), **headers)

    async def close(self) -> None:
        if self._port is not None:
            await self._clients.close()
            await maybeDeferred(self._port.stopListening)
        await self.site.close(0.0)
        await self.uploads.settled()
        self._lists.close()

    @property
    def port(self) -> int:
        number: int = self._port.getHost().port
        return number


def _began(index: str, project: str) -> str:
    """The user ``ci`` uploaded first to everything."""
    return "user:ci"


async def _well() -> tuple[()]:
    return ()

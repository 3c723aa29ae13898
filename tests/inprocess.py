"""The whole service inside the test's own process, on a real socket."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import succeed

from proxy.access.rights import Rights
from proxy.composition.indexes import IndexKind
from proxy.interfaces import Clock
from proxy.model import EMPTY
from proxy.policy.policy import STANDARD, Policy
from proxy.service import ProxyService, build
from proxy.settings import (
    AccessSettings,
    CiSettings,
    GrantSettings,
    IndexSettings,
    PageLimits,
    ServerSettings,
    Settings,
    UpstreamSettings,
)
from tests.support import wire
from tests.support.logins import QUICK

LOOPBACK = "tcp:0:interface=127.0.0.1"
JSON = "application/vnd.pypi.simple.v1+json"


class Running:
    """A running service.  Paths are relative to its root."""

    def __init__(self, service: ProxyService) -> None:
        self.service = service
        (port,) = service.listenings[0].ports
        self.port = port.getHost().port  # type: ignore[attr-defined]  # a TCP port's address has one
        self._connections = wire.Persistent()

    @property
    def base(self) -> str:
        """``http://host:port``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The default index."""
        return f"{self.base}/simple/"

    async def connect(self, path: str, method: str = "GET", **headers: str) -> wire.Client:
        """A connection on which *method* *path* has been asked."""
        return await wire.ask(self.port, path, method, **headers)

    async def fetch(self, path: str, method: str = "GET", **headers: str) -> wire.Reply:
        """The response as soon as it is whole, over a connection that may have had others before."""
        return await self._connections.fetch(self.port, path, method, **headers)

    async def get(self, path: str, **headers: str) -> wire.Reply:
        """The response; that to a request for a file once its connection has ended: then it is known to have been stored."""
        if re.search("/(?:files|packages)/", path):
            return await wire.fetch(self.port, path, **headers)
        return await self.fetch(path, **headers)

    async def head(self, path: str, **headers: str) -> wire.Reply:
        return await self.fetch(path, "HEAD", **headers)

    async def page(self, project: str = "six", index: str = "") -> Any:
        """The JSON page of *project*."""
        reply = await self.get(f"{index}/simple/{project}/", Accept=JSON)
        assert reply.status == 200, reply
        return reply.json

    async def link(self, project: str, filename: str) -> str:
        """The path of a file, from its project's page."""
        page = await self.page(project)
        url: str
        (url,) = [file["url"] for file in page["files"] if file["filename"] == filename]
        return urljoin(f"/simple/{project}/", url)

    async def stop(self) -> None:
        """Stop the service, unless that is done."""
        stopped = self.service.stopService() if self.service.running else succeed(None)
        await self._connections.close()
        await stopped


def upstream_settings(url: str, name: str = "pypi", **settings: Any) -> UpstreamSettings:
    """An upstream with the short timeouts that tests can wait for."""
    quick = UpstreamSettings(
        name=name, url=url, connect_timeout=2.0, first_byte_timeout=1.0, body_idle_timeout=5.0, allow_private_addresses=True
    )
    return replace(quick, **settings)


_UNTOLD = AccessSettings()


async def start(
    data_dir: Path,
    *upstreams: UpstreamSettings,
    limits: PageLimits | None = None,
    indexes: tuple[IndexSettings, ...] | None = None,
    clock: Clock = time.time,
    policy: Policy = STANDARD,
    kinds: Mapping[str, IndexKind] = EMPTY,
    rights: Rights | None = None,
    access: AccessSettings = _UNTOLD,
    grants: tuple[GrantSettings, ...] = (),
    ci: CiSettings | None = None,
    access_log: bool = True,
    **server: Any,
) -> Running:
    """Run a service over *upstreams*, with one default index of all of them unless *indexes* says otherwise.

    *clock* is what it takes for the wall time, *policy* what it goes by, *rights* what its clients may do if that is not what
    *access* and *grants* say, *kinds* builds indexes of other kinds, *ci* which jobs of CI systems it gives tokens,
    *access_log* whether it logs requests.
    """
    names = tuple(each.name for each in upstreams)
    limits = limits or PageLimits(soft_deadline=0.1)
    # Tests count what upstream is asked for; what is asked for ahead has tests of its own.
    index = IndexSettings(name="pypi", upstreams=names, default=True, limits=limits, prefetch=False)
    settings = Settings(
        server=ServerSettings(data_dir=data_dir, drain_time=1.0, **{"listen": (LOOPBACK,), **server}),
        upstreams=upstreams,
        indexes=indexes or (index,),
        access=access,
        grants=grants,
        ci=ci,
    )
    service = build(
        settings, default_reactor, clock, policy=policy, rights=rights, kinds=kinds, access_log=access_log, hashing_cost=QUICK
    )
    service.startService()
    return Running(service)


#: What the ``run`` fixture is: starts a service over fake upstreams; takes what `start` takes.
Start = Callable[..., Awaitable[Running]]

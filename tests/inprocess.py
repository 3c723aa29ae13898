"""The whole service inside the test's own process, on a real socket, and a small HTTP client to look at its answers with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from attrs import evolve, field, frozen
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from proxy.service import ProxyService, build
from proxy.settings import IndexSettings, PageLimits, ServerSettings, Settings, UpstreamSettings

JSON = "application/vnd.pypi.simple.v1+json"


@frozen
class Reply:
    """A response as it stood on the wire; ``complete`` is whether as many bytes came as were promised."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    complete: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class Client(Protocol):
    """One connection that sends one request and keeps what comes until the connection ends."""

    transport: Any

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.received = bytearray()
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)
        waiting, self._waiting = self._waiting, []
        for _, waiter in waiting:
            waiter.errback(EOFError(f"ended after {len(self.received)} bytes"))

    def _look(self) -> None:
        for entry in [each for each in self._waiting if len(self.received) >= each[0]]:
            self._waiting.remove(entry)
            entry[1].callback(None)

    def got(self, count: int) -> Deferred[None]:
        """Fires when *count* bytes (head included) have come; fails if the connection ends before."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((count, waiter))
        self._look()
        return waiter

    async def reply(self) -> Reply:
        """The response, once the connection has ended."""
        await self.ended
        return parse(bytes(self.received), head=self._request.startswith(b"HEAD"))


def parse(raw: bytes, *, head: bool = False) -> Reply:
    """A response out of the bytes of a connection that ended after it."""
    top, _, body = raw.partition(b"\r\n\r\n")
    line, *fields = top.decode("latin-1").split("\r\n")
    _, status, reason = ([*line.split(" ", 2), "", ""])[:3]
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    complete = True
    if headers.get("transfer-encoding") == "chunked":
        body, complete = _dechunked(body)
    elif not head and "content-length" in headers:
        complete = len(body) == int(headers["content-length"])
    return Reply(int(status or 0), reason, headers, body, complete)


def _dechunked(raw: bytes) -> tuple[bytes, bool]:
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return body, True
        body, raw = body + raw[:length], raw[length + 2 :]
    return body, False


class Running:
    """A running service.  Paths are relative to its root."""

    def __init__(self, service: ProxyService) -> None:
        self.service = service
        (port,) = service.listenings[0].ports
        self.port = port.getHost().port  # type: ignore[attr-defined]  # a TCP port's address has one

    async def connect(self, path: str, method: str = "GET", **headers: str) -> Client:
        """A connection on which *method* *path* has been asked."""
        lines = [f"{method} {path} HTTP/1.1", "Host: proxy.example", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        client = Client("\r\n".join([*lines, "", ""]).encode())
        await connectProtocol(TCP4ClientEndpoint(default_reactor, "127.0.0.1", self.port), client)
        return client

    async def get(self, path: str, **headers: str) -> Reply:
        return await (await self.connect(path, **headers)).reply()

    async def head(self, path: str, **headers: str) -> Reply:
        return await (await self.connect(path, "HEAD", **headers)).reply()

    async def page(self, project: str = "six", index: str = "") -> Any:
        """The JSON page of *project*."""
        reply = await self.get(f"{index}/simple/{project}/", Accept=JSON)
        assert reply.status == 200, reply
        return reply.json

    async def link(self, project: str, filename: str) -> str:
        """The path of a file, from its project's page."""
        page = await self.page(project)
        return next(urljoin(f"/simple/{project}/", file["url"]) for file in page["files"] if file["filename"] == filename)

    async def stop(self) -> None:
        """Stop the service, unless that is done."""
        if self.service.running:
            await self.service.stopService()


def upstream_settings(url: str, name: str = "pypi", **settings: Any) -> UpstreamSettings:
    """An upstream with the short timeouts that tests can wait for."""
    quick = UpstreamSettings(
        name=name, url=url, connect_timeout=1.0, first_byte_timeout=0.3, body_idle_timeout=0.3, allow_private_addresses=True
    )
    return evolve(quick, **settings)


async def start(
    data_dir: Path,
    *upstreams: UpstreamSettings,
    limits: PageLimits | None = None,
    indexes: tuple[IndexSettings, ...] | None = None,
    **server: Any,
) -> Running:
    """Run a service over *upstreams*, with one default index of all of them unless *indexes* says otherwise."""
    names = tuple(each.name for each in upstreams)
    index = IndexSettings(name="pypi", upstreams=names, default=True, limits=limits or PageLimits(soft_deadline=0.1))
    settings = Settings(
        server=ServerSettings(data_dir=data_dir, listen=("tcp:0:interface=127.0.0.1",), drain_time=1.0, **server),
        upstreams=upstreams,
        indexes=indexes or (index,),
    )
    service = build(settings, default_reactor)
    service.startService()
    return Running(service)

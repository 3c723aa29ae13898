"""A cold stampede: fifty agents install the same things at the same moment, and nothing of it is in the cache yet.

Each agent does what ``uv pip install`` does with requirements that are pinned: it asks for all pages at once, for the metadata
of a release as soon as it has its page, and for all files when it has all metadata, over a few connections that stay open.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import urljoin, urlsplit

from msgspec import Struct, field

from bench.herd import request
from bench.reply import Reply
from bench.scenarios import FILE_HEADERS, PAGE_HEADERS, Metric, Scenario, Settings, get
from bench.servers import Server
from bench.upstream import SMALL_PAGE
from tests.support.catalogue import INSTALL, installed

#: Agents that begin at the same moment, and connections that each of them has.
AGENTS = 50
CONNECTIONS = 8
#: Seconds before each answer of the upstream, and bytes a second that it sends on each connection.
DELAY = 0.02
RATE = 100_000_000

_PIECE = 1 << 20
#: Seconds after which agents that are not done have failed.
_DEADLINE = 120.0


class _Release(Struct, frozen=True):
    """What an agent wants of one project."""

    filename: str
    data: bytes
    metadata: bytes


@cache
def _releases() -> Mapping[str, _Release]:
    made = {project: installed(project) for project in INSTALL}
    return {project: _Release(each.filename, each.data, each.metadata) for project, each in made.items()}


class _Agent(Struct, eq=False):
    """One agent: the URLs that it will ask for next, and how many metadata it waits for before it asks for files."""

    todo: deque[tuple[str, str]]
    missing: int
    files: list[tuple[str, str]] = field(default_factory=list)
    connections: list[_Connection] = field(default_factory=list)


class _Connection(Struct, eq=False):
    """One connection of an agent; *asked* is what it waits for: the kind (page, metadata, file) and the project."""

    socket: socket.socket
    agent: _Agent
    asked: tuple[str, str] | None = None
    reply: Reply | None = None


class _Stampede:
    """All agents on one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        #: The first of fifty equal pages, as it came and decoded, and what it says of the project's file.
        self._pages: dict[str, tuple[bytes, bytes]] = {}
        self._urls: dict[str, str] = {}
        self._piece = bytearray(_PIECE)
        self._view = memoryview(self._piece)
        self._selector = selectors.DefaultSelector()
        self._busy = 0
        self.wrong = 0

    def run(self) -> float:
        """Let all agents install; the seconds until the last one has everything.  Raises RuntimeError when they do not end."""
        releases = _releases()
        parts = urlsplit(self._server.base)
        connections = []
        for _ in range(AGENTS):
            agent = _Agent(deque(("page", project) for project in releases), len(releases))
            for _ in range(CONNECTIONS):
                made = socket.create_connection((parts.hostname, parts.port), _DEADLINE)
                made.setblocking(False)
                agent.connections.append(_Connection(made, agent))
            connections += agent.connections
        began = time.perf_counter()
        try:
            for each in connections:
                self._selector.register(each.socket, selectors.EVENT_READ, each)
                self._ask(each)
            while self._busy:
                if time.perf_counter() - began > _DEADLINE:
                    raise RuntimeError(f"{self._busy} answers are missing after {_DEADLINE:.0f} s")
                for key, _ in self._selector.select(1.0):
                    self._receive(key.data)
            return time.perf_counter() - began
        finally:
            self._selector.close()
            for each in connections:
                each.socket.close()

    def _ask(self, connection: _Connection) -> None:
        """Ask for what comes next, if anything does."""
        if connection.asked is not None or not connection.agent.todo:
            return
        kind, project = connection.asked = connection.agent.todo.popleft()
        release = _releases()[project]
        expected = {"page": None, "metadata": release.metadata, "file": release.data}[kind]
        connection.reply = Reply(expected)
        connection.socket.send(
            request(self._server.page(project), PAGE_HEADERS)
            if kind == "page"
            else request(self._urls[project] + (".metadata" if kind == "metadata" else ""), FILE_HEADERS)
        )
        self._busy += 1

    def _receive(self, connection: _Connection) -> None:
        count = connection.socket.recv_into(self._piece)
        reply = connection.reply
        if not count or reply is None or connection.asked is None:
            raise RuntimeError("a connection was closed")
        reply.take(self._view[:count])
        if reply.done:
            asked, connection.asked = connection.asked, None
            self._busy -= 1
            self._answered(connection.agent, *asked, reply)
            self._ask(connection)

    def _answered(self, agent: _Agent, kind: str, project: str, reply: Reply) -> None:
        self.wrong += not reply.is_right()
        if kind == "page":
            self._read(project, reply)
            agent.todo.appendleft(("metadata", project))
            self._set_to_work(agent)
        elif kind == "metadata":
            agent.files.append(("file", project))
            agent.missing -= 1
            if not agent.missing:
                agent.todo.extend(agent.files)
                self._set_to_work(agent)

    def _read(self, project: str, reply: Reply) -> None:
        """Find the file on a page, or see that it is the page that it was found on."""
        body = bytes(reply.body)
        if project not in self._pages:
            decoded = reply.decoded()
            page = json.loads(decoded)
            [url] = [each["url"] for each in page["files"] if each["filename"] == _releases()[project].filename]
            self._pages[project], self._urls[project] = (body, decoded), urljoin(self._server.page(project), url)
        elif self._pages[project][0] != body:
            # Chunks may have been cut in another way.
            self.wrong += self._pages[project][1] != reply.decoded()

    def _set_to_work(self, agent: _Agent) -> None:
        for each in agent.connections:
            self._ask(each)


def _stampede(settings: Settings, server: Server) -> Sequence[float]:
    # The parts that any request needs have run once.
    get(server.page(SMALL_PAGE[0]), PAGE_HEADERS)
    _releases()
    settings.upstream.delay(DELAY)
    settings.upstream.rate(RATE)
    try:
        settings.upstream.forget()
        used = server.process.processor()
        stampede = _Stampede(server)
        took = stampede.run()
        return took, server.process.processor() - used, settings.upstream.asked(), stampede.wrong
    finally:
        settings.upstream.delay(0)
        settings.upstream.rate(None)


STAMPEDE = Scenario(
    "cold stampede, 50 agents",
    (
        Metric("until all have everything", "s", goal=1.5),
        Metric("processor time", "s", goal=3.0),
        Metric("upstream requests", ""),
        Metric("wrong answers", ""),
    ),
    _stampede,
    cold=True,
    needs_wrk=False,
)

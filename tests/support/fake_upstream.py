"""The one fake upstream of the suite: a small HTTP/1.1 server that can be made to fail in every way a real one does.

A test adds files, scripts faults (`FakeUpstream.script`),
holds responses (`FakeUpstream.hold`), counts what was asked and waits for events (`FakeUpstream.until`) instead of sleeping.

``python -m tests.support.fake_upstream --help`` runs one in a process of its own.
"""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Factory

from tests.support.connection import Connection
from tests.support.content import Content, Project, normalize
from tests.support.faults import Answer, Fault, Gate, Match, Request, matches

__all__ = ["Answer", "FakeUpstream", "Fault", "Gate", "Request"]

_NO_FAULT = Fault()


class FakeUpstream:
    """An upstream at *address*.  ``content`` holds what it has and how it speaks; see `Content` for its settings.

    *tls* is a Twisted context factory (see ``tests.support.certs``).  *file_host* is another `FakeUpstream` that serves this
    one's files.  *rate* bounds every response, in bytes per second.  *host* is the name that its URLs give it, the address by
    default; ``tests.support.addresses`` has several of them under one name.
    """

    def __init__(
        self,
        *,
        tls: Any = None,
        file_host: FakeUpstream | None = None,
        rate: float | None = None,
        port: int = 0,
        address: str = "127.0.0.1",
        host: str | None = None,
        reactor: Any = default_reactor,
    ) -> None:
        self.content = Content()
        self.address = address
        self.host = host or address
        self.reactor = reactor
        self.rate = rate
        #: Every request so far, in order of arrival.
        self.asked: list[Request] = []
        #: Bytes of bodies sent, responses ended, responses in progress, and the most of these at once.
        self.sent = 0
        self.answered = 0
        self.in_progress = 0
        self.most_in_progress = 0
        #: Connections open now, the most at once, and all there ever were.
        self.connections = 0
        self.most_connections = 0
        self.all_connections = 0
        self.is_silent = False
        self._tls = tls
        self._file_host = file_host
        self._port: Any = None
        self._number: int = port
        #: What keeps the port while nothing is accepted, and the connection that fills its queue.
        self._reserved: socket.socket | None = None
        self._filler: socket.socket | None = None
        self._live: set[Connection] = set()
        self._script: list[tuple[Match, Fault, list[float]]] = []
        self._expected: list[tuple[Callable[[], bool], Deferred[None]]] = []

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> FakeUpstream:
        """Listen, on the port it had before if it had one."""
        factory = Factory.forProtocol(Connection)
        factory.noisy = False
        factory.upstream = self  # type: ignore[attr-defined]  # how the protocols find their way back
        self._release()
        if self._tls is None:
            self._port = self.reactor.listenTCP(self._number, factory, interface=self.address, backlog=1024)
        else:
            self._port = self.reactor.listenSSL(self._number, factory, self._tls, interface=self.address, backlog=1024)
        self._number = self._port.getHost().port
        return self

    up = start

    def down(self) -> Deferred[None]:
        """Refuse connections from now on, and reset those that are open.  The port stays reserved for :meth:`up`."""
        return Deferred.fromCoroutine(self._down())

    async def _down(self) -> None:
        port, self._port = self._port, None
        for connection in list(self._live):
            connection.abort()
        if port is not None:
            await port.stopListening()
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind((self.address, self._number))
        await self.until(lambda: not self._live)

    async def deaf(self) -> None:
        """Let attempts to connect hang from now on, as behind a firewall that drops packets, and reset what is open."""
        await self.down()
        assert self._reserved is not None
        # Linux ignores whoever comes to a full queue, and one connection fills a queue of length 0.
        self._reserved.listen(0)
        self._filler = socket.create_connection((self.address, self._number))

    def _release(self) -> None:
        for each in (self._filler, self._reserved):
            if each is not None:
                each.close()
        self._filler = self._reserved = None

    def silent(self, on: bool = True) -> None:
        """Accept connections and say nothing: the requests are counted and never answered.  Responses in progress stop."""
        self.is_silent = on

    async def close(self) -> None:
        """Be gone, and leave nothing behind in the reactor."""
        await self.down()
        self._release()

    @property
    def port(self) -> int:
        return self._number

    @property
    def base(self) -> str:
        """``scheme://host:port``."""
        return f"http{'s' if self._tls else ''}://{self.host}:{self._number}"

    @property
    def url(self) -> str:
        """The simple index's root."""
        return f"{self.base}/simple/"

    # -- content --------------------------------------------------------------------------------------------------------------

    def add_file(
        self,
        project: str,
        filename: str,
        data: bytes,
        *,
        metadata: bytes | None = None,
        entry: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> str:
        """Add or replace a file and list it on its project's page.  Returns its absolute URL.

        *metadata* is served beside it and advertised.  *keys* (``requires_python=…``, underscores for hyphens) and *entry*
        (keys as they stand) go into its JSON entry over what is there by default; ``None`` removes a key.
        """
        listed = {name.replace("_", "-"): value for name, value in keys.items()} | dict(entry or {})
        host = self._file_host or self
        base = "" if self.content.relative and host is self else host.base
        path = self.content.put(base, project, filename, data, metadata, listed)
        host.content.keep(path, data, metadata)
        return host.base + quote(path)

    def remove_file(self, project: str, filename: str) -> None:
        """Take the file from its page; its URL goes on working."""
        found = self.content.project(project)
        del found.files[filename]
        found.serial += 1

    def remove_project(self, project: str) -> None:
        del self.content.projects[normalize(project)]

    def project(self, name: str) -> Project:
        """The project *name* (made if need be), to set ``keys``, ``serial`` or a ``raw`` page."""
        return self.content.project(name)

    def add_path(
        self, path: str, body: bytes, content_type: str = "text/html", *, ranges: bool = False, **headers: str
    ) -> None:
        """Answer *path* with *body*."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.content.paths[path] = Answer(200, {"Content-Type": content_type, **named}, body, ranges)

    # -- faults ---------------------------------------------------------------------------------------------------------------

    def script(self, match: Match, fault: Fault, times: int | None = None) -> None:
        """Apply *fault* to the next *times* responses (``None``: to all) to requests that *match*.

        The script that was given first wins.
        """
        self._script.append((match, fault, [math.inf if times is None else times]))

    def heal(self) -> None:
        """Forget all scripts and silence."""
        self._script.clear()
        self.is_silent = False

    def hold(self, match: Match, after: int | None = None, times: int | None = None) -> Gate:
        """Hold responses before their status line, or after *after* bytes of the body, until the gate is released."""
        gate = Gate()
        self.script(match, Fault(hold=gate, hold_after=after), times)
        return gate

    def answer(self, request: Request) -> Answer:
        """The answer to *request* before any fault."""
        return self.content.answer(request)

    def fault_for(self, request: Request) -> Fault:
        """The fault that applies to *request*; counts it down."""
        for match, fault, left in self._script:
            if left[0] > 0 and matches(match, request):
                left[0] -= 1
                return fault
        return _NO_FAULT

    # -- counting and waiting -------------------------------------------------------------------------------------------------

    def count(self, glob: Match = "*", method: str | None = None) -> int:
        """How many requests so far match."""
        return sum(1 for each in self.asked if matches(glob, each) and method in (None, each.method))

    async def until(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until *condition* holds; it is looked at whenever something happens here.  Raises TimeoutError."""
        if condition():
            return
        waiting: Deferred[None] = Deferred()
        entry = (condition, waiting)
        self._expected.append(entry)
        waiting.addTimeout(timeout, self.reactor)
        try:
            await waiting
        except DeferredTimeout:
            raise TimeoutError(f"not within {timeout} s; asked so far: {[each[:2] for each in self.asked]}") from None
        finally:
            if entry in self._expected:
                self._expected.remove(entry)

    def arrived(self, glob: Match, times: int = 1) -> Awaitable[None]:
        """Wait until *times* requests that match have come in, counting those that are in already."""
        return self.until(lambda: self.count(glob) >= times)

    def happened(self) -> None:
        """Told by connections: look at what is waited for."""
        for entry in [each for each in self._expected if each[0]()]:
            if entry in self._expected:
                self._expected.remove(entry)
                entry[1].callback(None)

    def arrive(self, request: Request) -> None:
        """Told by a connection: a request is in."""
        self.asked.append(request)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        self.happened()

    def depart(self) -> None:
        """Told by a connection: a response has ended, well or not."""
        self.in_progress -= 1
        self.answered += 1
        self.happened()

    def connected(self, connection: Connection) -> None:
        self._live.add(connection)
        self.connections += 1
        self.all_connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        self.happened()

    def disconnected(self, connection: Connection) -> None:
        self._live.discard(connection)
        self.connections -= 1
        self.happened()


if __name__ == "__main__":
    from tests.support.standalone import main

    sys.exit(main())

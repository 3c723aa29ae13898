"""HAProxy with the file that is shipped, in front of two nodes: no request fails when one is stopped, refuses or ends."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread

from tests.support import certs
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ROOT, ProxyProcess, Running, environment
from tests.support.wheels import wheel
from tests.test_conf import free_port

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SHIPPED = (ROOT / "conf" / "haproxy" / "haproxy.cfg").read_text("utf-8")
CLIENTS = 4
#: Projects that no node has, for requests that one of them refuses.
COLD = 60

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not here (Debian: apt install haproxy)")

#: Listens at a port and becomes the command that follows, which finds the socket at a descriptor: no client comes too early.
_BOUND = """import os, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listening.fileno(), int(sys.argv[2]))
print("bound", flush=True)
os.execv(sys.argv[3], sys.argv[3:])"""
_DESCRIPTOR = 19


class Node:
    """One of the two proxies, with an upstream of its own."""

    def __init__(self, proxy: ProxyProcess, upstream: FakeUpstream, probes: int) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self.probes = probes

    async def serves(self, path: str) -> None:
        """Wait until the process that runs has answered *path* (access lines are written many at a time)."""
        process = self.proxy.process
        assert process is not None
        await process.until(lambda: re.search(f"{path}.* 200 ", process.output) is not None, 60.0)


class Clients:
    """Clients of HAProxy that trust the authority in *ca*, each in a thread."""

    def __init__(self, port: int, ca: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(ca))
        self._ending = threading.Event()
        self._answered = threading.Event()
        #: What was answered to those that go on asking.
        self.statuses: list[int] = []
        self._busy: list[Deferred[None]] = []

    def get(self, path: str, address: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
        """The status and body of *path*, asked from *address* of this machine."""
        connection = self._connection(address)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask_on(self, paths: list[str]) -> None:
        """Ask for *paths* again and again, on a few connections, until `end`."""
        self._busy = [deferToThread(self._ask_on, paths) for _ in range(CLIENTS)]

    async def more(self, count: int) -> None:
        """Wait for that many further answers to those that go on asking."""
        before = len(self.statuses)
        await deferToThread(self._until, before + count)

    async def end(self) -> None:
        """Let them end; raises what any of them met."""
        self._ending.set()
        for succeeded, outcome in await DeferredList(self._busy, consumeErrors=True):
            if not succeeded:
                outcome.raiseException()  # type: ignore[attr-defined]  # a failure, as it did not succeed

    def _connection(self, address: str = "127.0.0.1") -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, source_address=(address, 0), timeout=60
        )

    def _ask_on(self, paths: list[str]) -> None:
        connection = self._connection()
        while not self._ending.is_set():
            for path in paths:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
                self._answered.set()
        connection.close()

    def _until(self, count: int) -> None:
        while len(self.statuses) < count and not self._ending.is_set():
            self._answered.clear()
            assert self._answered.wait(60.0), "the clients are answered nothing more"


@asynccontextmanager
async def balanced(nodes: list[Node], folder: Path) -> AsyncIterator[Clients]:
    """HAProxy in front of *nodes*, with the file that is shipped but for addresses and shorter times between checks."""
    port = free_port()
    authority, _ = certs.authority().write(folder, "ca")
    certificate, key = certs.server("127.0.0.1").write(folder, "server")
    (folder / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    text = SHIPPED
    for theirs, ours in {
        "bind :443 ": f"bind fd@{_DESCRIPTOR} ",
        "/etc/haproxy/tls/pypiproxy.pem": str(folder / "both.pem"),
        "check port 3144 inter 2s fall 2": "check inter 100ms fall 2",
        "192.0.2.11:3143": f"127.0.0.1:{nodes[0].proxy.port} port {nodes[0].probes}",
        "192.0.2.12:3143": f"127.0.0.1:{nodes[1].proxy.port} port {nodes[1].probes}",
    }.items():
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    (folder / "haproxy.cfg").write_text(text, "utf-8")
    command = [str(HAPROXY), "-db", "-f", str(folder / "haproxy.cfg")]
    started = [sys.executable, "-c", _BOUND, str(port), str(_DESCRIPTOR), *command]
    checked = await Running().spawn([*started, "-c"], environment(folder), folder).end()
    assert (checked.status, "WARNING" in checked.output) == (0, False), checked.output
    haproxy = Running().spawn(started, environment(folder), folder)
    clients = Clients(port, authority)
    try:
        await haproxy.until(lambda: "bound" in haproxy.output or haproxy.ended is not None, 60.0)
        yield clients
    finally:
        try:
            await clients.end()
        finally:
            haproxy.signal(signal.SIGTERM)
            await haproxy.end()


@needs_haproxy
@pytest_twisted.ensureDeferred
async def test_no_request_fails_when_a_node_is_stopped_refuses_or_is_gone(
    make_proxy: Callable[..., ProxyProcess], make_upstream: Callable[..., FakeUpstream], tmp_path: Path
) -> None:
    contents = [wheel("hot"), wheel("big", size=400_000), *(wheel(f"cold-{number}") for number in range(COLD))]
    big = contents[1]
    nodes = []
    for _ in range(2):
        upstream, probes = make_upstream(), free_port()
        for made in contents:
            upstream.add_file(made.project, made.filename, made.data, metadata=made.metadata)
        config = f'probe_listen = ["127.0.0.1:{probes}"]\nstop_pause = "1s"\ntrusted_proxies = ["127.0.0.1"]\n'
        nodes.append(Node(await make_proxy(upstream.url, config=f"[server]\n{config}").started(), upstream, probes))
    async with balanced(nodes, tmp_path) as clients:
        status, page = await deferToThread(clients.get, "/simple/hot/")
        found = re.search(rb'href="([^"#]+)', page)
        assert (status, found is not None) == (200, True)
        assert found is not None
        clients.ask_on(["/simple/hot/", urljoin("/simple/hot/", found[1].decode())])
        for node in nodes:
            await node.serves("/simple/hot/")

        # The address of the client is the one that HAProxy sees, and operators' paths are asked elsewhere.
        forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
        await deferToThread(clients.get, "/simple/forged/", "127.0.0.3", **forged)
        assert (await deferToThread(clients.get, "/-/metrics"))[0] == 403

        # The node that is in the middle of a download is stopped.
        gates = [node.upstream.hold("*/big-*.whl", after=100_000) for node in nodes]
        page = (await deferToThread(clients.get, "/simple/big/"))[1]
        found = re.search(rb'href="([^"#]+)', page)
        assert found is not None
        download = deferToThread(clients.get, urljoin("/simple/big/", found[1].decode()))
        asked = [Deferred.fromCoroutine(_asked(node)) for node in nodes]
        await DeferredList(asked, fireOnOneCallback=True, consumeErrors=True)
        for each in asked:
            each.cancel()
        stopped, other = nodes if nodes[0].upstream.count("*/big-*.whl") else nodes[::-1]
        process = stopped.proxy.process
        assert process is not None
        ending = Deferred.fromCoroutine(stopped.proxy.stop())
        await process.until(lambda: "SIGTERM" in process.output, 60.0)
        for gate in gates:
            gate.release()
        assert await download == (200, big.data)
        assert await ending == -signal.SIGTERM
        await clients.more(200)

        # It is started again; and then its upstream is out, so that it refuses what it does not have.
        await stopped.proxy.started()
        await stopped.serves("/simple/hot/")
        await stopped.upstream.down()
        refused = re.compile(r"/simple/cold-.* 503 ")
        for number in range(COLD):
            assert (await deferToThread(clients.get, f"/simple/cold-{number}/"))[0] == 200
            if refused.search(stopped.proxy.log):
                break
        assert refused.search(stopped.proxy.log)

        # The other one is gone from one moment to the next.
        await other.proxy.kill()
        await clients.more(200)
    assert set(clients.statuses) == {200}
    forgeries = [
        line for node in nodes for line in node.proxy.log.splitlines() if "/simple/forged/" in line and " 404 " in line
    ]
    assert len(forgeries) == 1
    assert "127.0.0.3" in forgeries[0]
    assert "203.0.113.9" not in forgeries[0]


async def _asked(node: Node) -> None:
    """Wait until *node* asks for the large file."""
    await node.upstream.arrived("*/big-*.whl")

"""The service manager is told when the proxy serves, by systemd's protocol: a datagram to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess

reactor: Any = default_reactor
ENV = shutil.which("env") or "/usr/bin/env"

MakeProxy = Callable[..., ProxyProcess]


class Manager(DatagramProtocol):
    """A service manager: ``told`` is the first thing it hears, and ``last`` the second."""

    def __init__(self) -> None:
        self.told: Deferred[bytes] = Deferred()
        self.last: Deferred[bytes] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        (self.last if self.told.called else self.told).callback(datagram)


@pytest.mark.parametrize("abstract", [False, True], ids=["in the file system", "abstract"])
@pytest_twisted.ensureDeferred
async def test_the_manager_is_told_when_the_proxy_serves_and_when_it_stops(
    abstract: bool, make_proxy: MakeProxy, upstream: FakeUpstream, tmp_path: Path
) -> None:
    name = str(tmp_path / "notify")
    manager = Manager()
    port = reactor.listenUNIXDatagram(f"\0{name}" if abstract else name, manager)
    try:
        proxy = make_proxy(upstream.url)
        proxy.before = (ENV, f"NOTIFY_SOCKET={'@' if abstract else ''}{name}")
        await proxy.started()
        assert await manager.told.addTimeout(60.0, reactor) == b"READY=1"
        assert (await wire.fetch(proxy.port, "/-/ready")).status == 200
        await proxy.stop()
        # 30 s of responses that may end, and some to close the databases.
        assert await manager.last.addTimeout(10.0, reactor) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=50000000"
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_without_the_manager_it_serves_and_says_so(make_proxy: MakeProxy, upstream: FakeUpstream, tmp_path: Path) -> None:
    proxy = make_proxy(upstream.url)
    proxy.before = (ENV, f"NOTIFY_SOCKET={tmp_path}/gone")
    await proxy.started()
    assert (await wire.fetch(proxy.port, "/-/live")).status == 200
    await proxy.stop()
    assert f'NOTIFY_SOCKET="{tmp_path}/gone" cannot be told that the proxy serves: No such file or directory' in proxy.log

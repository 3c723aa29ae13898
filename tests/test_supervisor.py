"""The service manager is told when the proxy serves, by systemd's protocol: a datagram to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent

from proxy.composition.starting import ConfigSource
from proxy.config import CommandLine
from proxy.host.supervisor import Watchdog, tell_ready
from proxy.service import build
from tests.inprocess import LOOPBACK, Running
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


class Hearing(DatagramProtocol):
    """A service manager that hears everything."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.heard.append(datagram)

    async def until(self, words: bytes, times: int = 1) -> None:
        """Until *words* were heard so many times."""
        while self.heard.count(words) < times:
            await deferLater(reactor, 0.001)


@pytest.fixture
def hearing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _clean_reactor: None) -> Iterator[Hearing]:
    manager = Hearing()
    port = reactor.listenUNIXDatagram(str(tmp_path / "notify"), manager)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield manager
    port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_watchdog_hears_of_the_reactor_until_the_proxy_has_stopped_and_nothing_after_it_stops(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch, upstream: FakeUpstream, tmp_path: Path, logged: list[LogEvent]
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    file = tmp_path / "pypiproxy.toml"
    file.write_text(f'[upstream.corp]\nurl = "{upstream.url}"\n[[index]]\nname = "pypi"\nupstreams = ["corp"]\n')
    source = ConfigSource(file, CommandLine(listen=(LOOPBACK,), data_dir=tmp_path / "data"))
    service = build(source.read(reactor), reactor, source=source)
    service.startService()
    proxy = Running(service)
    await hearing.until(b"WATCHDOG=1", 2)
    service.hung_up()
    await hearing.until(b"READY=1", 2)
    gate = upstream.hold("/simple/*")
    client = await proxy.connect("/simple/six/")
    await upstream.arrived("/simple/*")
    stopped = ensureDeferred(proxy.stop())
    assert service.reloading is not None
    read = ensureDeferred(service.reloading.reload(lambda said: None))
    assert (await read)["changes"] == []
    before = hearing.heard.count(b"WATCHDOG=1")
    await hearing.until(b"WATCHDOG=1", before + 2)
    gate.release()
    assert (await client.reply()).status == 404
    await stopped
    heard = [each for each in hearing.heard if each != b"WATCHDOG=1"]
    assert [each.split(b"\n")[0] for each in heard] == [b"READY=1", b"RELOADING=1", b"READY=1", b"STOPPING=1"]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WATCHDOG_USEC": "30000000"}, [b"WATCHDOG=1"] * 3),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, [b"WATCHDOG=1"] * 3),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, []),
        ({"WATCHDOG_USEC": "0"}, []),
        ({"WATCHDOG_USEC": "soon"}, []),
        ({}, []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_only_who_is_watched_says_twice_in_the_time_that_the_reactor_turns(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], told: list[bytes]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    clock = Clock()
    watchdog = Watchdog(clock)
    watchdog.start()
    clock.pump([14.0, 2.0, 14.0])  # a turn is late, and the next one is not put off for that
    watchdog.stop()
    clock.advance(60.0)
    tell_ready()
    await hearing.until(b"READY=1")
    assert hearing.heard == [*told, b"READY=1"]


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

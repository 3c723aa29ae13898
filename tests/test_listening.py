"""Listening: bound at once, failures in words, closed when stopped."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import defer, endpoints
from twisted.internet.address import IPv4Address
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import Site

from proxy.errors import ConfigError
from proxy.host import listening
from proxy.host.listening import Listening

LOOPBACK = "tcp:0:interface=127.0.0.1"


def site() -> Any:
    """A factory of some protocol.  Any: Site's declared bases and Factory's type parameter do not agree."""
    return Site(Resource())


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor  # after pytest-twisted has chosen one

    return reactor


@pytest_twisted.ensureDeferred
async def test_it_accepts_connections_until_it_is_stopped(reactor: Any) -> None:
    events: list[LogEvent] = []
    remember = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(remember)
    service = Listening(LOOPBACK, site(), reactor)
    service.open()
    (port,) = service.ports
    service.privilegedStartService()
    service.startService()
    address = ("127.0.0.1", cast(IPv4Address, port.getHost()).port)
    socket.create_connection(address).close()
    await service.stopService()
    globalLogPublisher.removeObserver(remember)
    assert not service.ports
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert [event["url"] for event in events if "url" in event] == [f"http://127.0.0.1:{address[1]}/"]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("127.0.0.1:0", r"http://127\.0\.0\.1:\d+/"),
        ("localhost:0", r"http://127\.0\.0\.1:\d+/"),
        ("[::1]:0", r"http://\[::1\]:\d+/"),
        ("0", r"http://127\.0\.0\.1:\d+/"),
        ("[::]:0", r"http://\[::1\]:\d+/"),
    ],
)
async def test_an_address_and_a_port_are_enough(reactor: Any, written: str, url: str) -> None:
    service = Listening(written, site(), reactor)
    service.open()
    assert service.plain
    assert re.fullmatch(url, service.local_url())
    (port,) = service.ports
    host = "::1" if ":" in service.local_url().removeprefix("http:").rpartition(":")[0] else "127.0.0.1"
    socket.create_connection((host, cast(IPv4Address, port.getHost()).port)).close()
    service.startService()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_works_too(reactor: Any, tmp_path: Path) -> None:
    service = Listening(f"unix:{tmp_path}/s", site(), reactor)
    service.startService()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
    await service.stopService()


def test_a_port_in_use_is_told(reactor: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        description = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        with pytest.raises(ConfigError) as caught:
            Listening(description, site(), reactor).privilegedStartService()
    assert f'"{description}": cannot listen there: Address already in use' in str(caught.value)
    assert str(caught.value).endswith("that is free, for example --port 3144")


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("3143x", "expected a Twisted endpoint"),
        ("70000", "there is no port 70000"),
        ("::1", "written in brackets"),
        ("nonsense:1", "Unknown endpoint type"),
        ("tcp:http", "expected a Twisted endpoint"),
        ("tcp:1:interfac=127.0.0.1", "interfac"),
        ("ssl:0:privateKey=/nonexistent.pem", "/nonexistent.pem"),
    ],
)
def test_what_is_no_endpoint_is_told(reactor: Any, description: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        listening.endpoint(description, reactor)
    assert f'"{description}": ' in str(caught.value)
    assert said in str(caught.value)
    assert str(caught.value).count(": expected") + str(caught.value).count("; expected") == 1


def test_an_interface_of_another_machine_is_told(reactor: Any) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    with pytest.raises(ConfigError, match="cannot listen there"):
        Listening("tcp:0:interface=192.0.2.1", site(), reactor).open()


def test_an_endpoint_that_needs_time_is_refused(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def listen(self, factory: object) -> defer.Deferred[None]:
            return defer.Deferred()

    monkeypatch.setattr(endpoints, "serverFromString", lambda reactor, description: Slow())
    with pytest.raises(ConfigError, match="does not listen at once"):
        Listening("slow:", site(), reactor).open()

"""A request over plain http from another machine, which no socket of a test's own machine can send."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.wire import Reply, parse

reactor: Any = default_reactor


async def from_elsewhere(factory: IProtocolFactory, path: str, **headers: str) -> Reply:
    """The answer of *factory*, a site, to a request for *path*; underscores in names of *headers* stand for hyphens."""
    transport = StringTransport(peerAddress=IPv4Address("TCP", "198.51.100.7", 40000))
    channel: Any = factory.buildProtocol(IPv4Address("TCP", "198.51.100.7", 40000))
    channel.makeConnection(transport)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "proxy.example", **headers}.items()]
    channel.dataReceived("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
    while b"\r\n\r\n" not in transport.value():
        await deferLater(reactor, 0)
    channel.connectionLost(Failure(ConnectionDone()))
    return parse(transport.value())

"""The addresses of a host: how they are looked up, checked and connected to (RFC 8305)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, field
from twisted.internet import reactor as default_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from proxy.settings import UpstreamSettings
from proxy.upstream.http.addresses import MOST_ADDRESSES, REMEMBERED_FOR, Addresses, FirstOf, interleaved
from proxy.upstream.http.guard import Forbidden, Guard

reactor: Any = default_reactor
HOST = "packages.example"


class Resolver(Struct):
    """A reactor's clock and name resolver; *answers* holds addresses by name."""

    answers: dict[str, list[str]]
    clock: Clock = field(default_factory=Clock)
    asked: list[str] = field(default_factory=list)

    @property
    def nameResolver(self) -> Resolver:
        return self

    def seconds(self) -> float:
        return self.clock.seconds()

    def resolveHostName(self, receiver: Any, hostName: str, *rest: Any) -> Any:
        self.asked.append(hostName)
        receiver.resolutionBegan(None)
        for address in self.answers.get(hostName, ()):
            receiver.addressResolved(IPv4Address("TCP", address, 0))
        receiver.resolutionComplete()
        return None


def looked_up(resolver: Resolver, url: str = f"https://{HOST}/simple/", **settings: Any) -> Addresses:
    return Addresses(resolver, Guard(UpstreamSettings(name="up", url=url, **settings)))


@pytest_twisted.ensureDeferred
async def test_addresses_are_looked_up_once_and_again_when_that_is_long_ago() -> None:
    resolver = Resolver({HOST: ["192.0.2.1", "192.0.2.2"]})
    addresses = looked_up(resolver)
    for _ in range(3):
        assert await addresses.of(HOST) == ("192.0.2.1", "192.0.2.2")
    assert resolver.asked == [HOST]
    resolver.clock.advance(REMEMBERED_FOR)
    resolver.answers[HOST] = ["192.0.2.3"]
    assert await addresses.of(HOST) == ("192.0.2.1", "192.0.2.2"), "nobody waits for the second look-up"
    assert await addresses.of(HOST) == ("192.0.2.3",)


@pytest_twisted.ensureDeferred
async def test_known_addresses_serve_on_while_the_name_server_is_down() -> None:
    resolver = Resolver({HOST: ["192.0.2.1"]})
    addresses = looked_up(resolver)
    await addresses.of(HOST)
    resolver.answers.clear()
    for _ in range(5):
        resolver.clock.advance(REMEMBERED_FOR)
        assert await addresses.of(HOST) == ("192.0.2.1",)
    with pytest.raises(DNSLookupError, match=r"other\.example has no address"):
        await addresses.of("other.example")


@pytest_twisted.ensureDeferred
async def test_a_page_leads_to_no_private_address_when_its_upstream_is_a_public_one() -> None:
    resolver = Resolver({HOST: ["8.8.8.8"], "files.example": ["10.0.0.1", "8.8.4.4"], "inside.example": ["127.0.0.1"]})
    addresses = looked_up(resolver)
    assert await addresses.of("files.example") == ("8.8.4.4",)
    for host in ("inside.example", "127.0.0.1", "::ffff:10.0.0.1"):
        with pytest.raises(Forbidden, match="private address"):
            await addresses.of(host)


@pytest_twisted.ensureDeferred
async def test_an_upstream_at_a_private_address_may_lead_to_others_also_when_it_was_not_asked_before() -> None:
    resolver = Resolver({HOST: ["10.0.0.1"], "files.example": ["10.0.0.2"]})
    assert await looked_up(resolver).of("files.example") == ("10.0.0.2",)
    with pytest.raises(Forbidden):
        await looked_up(resolver, allow_private_addresses=False).of("files.example")


@pytest_twisted.ensureDeferred
async def test_a_name_with_hundreds_of_addresses_costs_no_more_than_some() -> None:
    resolver = Resolver({HOST: [f"192.0.2.{number}" for number in range(1, 250)]})
    assert len(await looked_up(resolver).of(HOST)) == MOST_ADDRESSES


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"])))
def test_families_take_turns_and_nothing_is_lost(addresses: list[str]) -> None:
    found = interleaved(addresses)
    assert sorted(found) == sorted(set(addresses))
    six = [":" in each for each in found]
    paired = 2 * min(six.count(True), six.count(False))
    assert all(one is not other for one, other in pairwise(six[:paired]))
    if found:
        assert found[0] == addresses[0]


@pytest.fixture
def listening() -> Iterator[list[Any]]:
    """One port on 127.0.0.2 and 127.0.0.3; nobody listens on 127.0.0.4."""
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    first = reactor.listenTCP(0, factory, interface="127.0.0.2")
    ports = [first, reactor.listenTCP(first.getHost().port, factory, interface="127.0.0.3")]
    yield ports
    pytest_twisted.blockon(gatherResults([maybeDeferred(port.stopListening) for port in ports]))


class _Closing(Protocol):
    closed: Deferred[None]

    def connectionMade(self) -> None:
        self.closed = Deferred()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed.callback(None)


async def connected_to(addresses: list[str], port: int) -> tuple[str, list[str]]:
    """The address that was connected to, and those that failed before."""
    failed: list[str] = []
    factory = Factory.forProtocol(_Closing)
    factory.noisy = False
    protocol: Any = await FirstOf(reactor, addresses, port, 5.0, lambda address, error: failed.append(address)).connect(factory)
    address: str = protocol.transport.getPeer().host
    protocol.transport.abortConnection()
    await protocol.closed
    return address, failed


@pytest_twisted.ensureDeferred
async def test_the_first_address_is_connected_to_and_the_next_when_it_refuses(listening: list[Any]) -> None:
    port = listening[0].getHost().port
    assert await connected_to(["127.0.0.2", "127.0.0.3"], port) == ("127.0.0.2", [])
    assert await connected_to(["127.0.0.4", "127.0.0.3"], port) == ("127.0.0.3", ["127.0.0.4"])


@pytest_twisted.ensureDeferred
async def test_an_address_without_a_route_costs_nothing(listening: list[Any]) -> None:
    port = listening[0].getHost().port
    assert (await connected_to(["2001:db8::1", "127.0.0.3"], port))[0] == "127.0.0.3"


@pytest_twisted.ensureDeferred
async def test_when_every_address_refuses_so_does_the_host(listening: list[Any]) -> None:
    port = listening[0].getHost().port
    failed: list[str] = []
    refusing = FirstOf(reactor, ["127.0.0.4", "127.0.0.5"], port, 5.0, lambda address, error: failed.append(address))
    with pytest.raises(ConnectionRefusedError):
        await refusing.connect(Factory.forProtocol(Protocol))
    assert failed == ["127.0.0.4", "127.0.0.5"]

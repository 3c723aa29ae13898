"""The addresses of a host: looked up, remembered, checked by the guard, and connected to as RFC 8305 says.

Theory of operation.  A host's addresses are looked up once for all who ask, and remembered for :data:`REMEMBERED_FOR` seconds;
after that the known ones serve on while they are looked up again, also when that fails.  Each is checked before it is used, and
connections are made to addresses and never to names, so there is nothing to rebind in between.  A connection begins with the
first address and, every :data:`ATTEMPT_DELAY` seconds or when one fails, with the next one too; the first that is made wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.core.bounded import BoundedTable
from proxy.mechanism.flight import Flights, swallow
from proxy.upstream.http.guard import Forbidden, Guard, is_address

#: Seconds for which a host's addresses are remembered.
REMEMBERED_FOR = 30.0
#: Seconds after which the next address is tried beside one that has not answered (RFC 8305 section 8: 250 ms).
ATTEMPT_DELAY = 0.25
#: Addresses of one host that are used; more are looked at by nobody.
MOST_ADDRESSES = 16

#: What is remembered of hosts, in bytes.
_MEMORY = 500_000


def interleaved(addresses: Sequence[str]) -> list[str]:
    """*addresses* with the families in turn, IPv6 first as the resolver gave it (RFC 8305 section 4)."""
    unique = list(dict.fromkeys(addresses))
    if not unique:
        return []
    first_family = ":" in unique[0]
    one = [each for each in unique if (":" in each) is first_family]
    other = [each for each in unique if (":" in each) is not first_family]
    return [each for pair in zip_longest(one, other) for each in pair if each is not None]


class _Known(Struct, frozen=True):
    addresses: tuple[str, ...]
    until: float


class Addresses:
    """The addresses of the hosts that one upstream uses, as *guard* allows them."""

    def __init__(self, reactor: Any, guard: Guard) -> None:
        self._reactor = reactor
        self._guard = guard
        self._known: BoundedTable[str, _Known] = BoundedTable(_MEMORY, lambda known: 500 + 60 * len(known.addresses))
        self._look_ups: Flights[tuple[str, ...]] = Flights()

    def known(self, host: str) -> tuple[str, ...] | None:
        """What :meth:`of` returns at once, or ``None`` where anything is to be looked up or refused."""
        if self._guard.undecided(host):
            return None
        if is_address(host):
            return (host,) if self._guard.allows(host, host) else None
        found = self._known.get(host)
        if found is None or found.until <= self._reactor.seconds():
            return None
        allowed = tuple(each for each in found.addresses if self._guard.allows(host, each))
        return allowed or None

    async def of(self, host: str) -> tuple[str, ...]:
        """The addresses of *host* that may be connected to, families interleaved.

        Raises DNSLookupError when it has none, Forbidden when the guard allows none of them.
        """
        if self._guard.undecided(host):
            await self.of(self._guard.home)
        return self._allowed(host, (host,) if is_address(host) else await self._of_name(host))

    async def _of_name(self, host: str) -> tuple[str, ...]:
        known = self._known.get(host)
        if known is None:
            return await self._look_ups.join(host, lambda: self._look_up(host))
        if known.until <= self._reactor.seconds():
            # When the name server is out, the host need not be.
            swallow(self._look_ups.join(host, lambda: self._look_up(host)), DNSLookupError)
        return known.addresses

    async def _look_up(self, host: str) -> tuple[str, ...]:
        receiver = _Receiver()
        self._reactor.nameResolver.resolveHostName(receiver, host)
        found = tuple(interleaved(await receiver.complete)[:MOST_ADDRESSES])
        if not found:
            raise DNSLookupError(f"{host} has no address")
        self._known.put(host, _Known(found, self._reactor.seconds() + REMEMBERED_FOR))
        return found

    def _allowed(self, host: str, addresses: tuple[str, ...]) -> tuple[str, ...]:
        allowed = tuple(each for each in addresses if self._guard.allows(host, each))
        if not allowed:
            names = ", ".join(addresses)
            where = "is a private address" if is_address(host) else f"is at {names}, a private address"
            raise Forbidden(string=f"{host} {where}, which this upstream's pages may not lead to")
        return allowed


@implementer(IResolutionReceiver)
class _Receiver:
    """All addresses of a name."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self.complete: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        self._found.append(address.host)  # type: ignore[attr-defined]  # resolvers give IP addresses

    def resolutionComplete(self) -> None:
        self.complete.callback(self._found)


def address_endpoint(reactor: Any, address: str, port: int, timeout: float) -> IStreamClientEndpoint:
    """Where a connection to *address* is made."""
    kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    endpoint: IStreamClientEndpoint = kind(reactor, address, port, timeout)
    return endpoint


@implementer(IStreamClientEndpoint)
class FirstOf:
    """The first of *addresses* that can be connected to.  *failed* is told (address, error) of each that cannot.

    One that had not answered when another one did counts as failed if it had :data:`ATTEMPT_DELAY` seconds.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        timeout: float,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._reactor = reactor
        self._addresses = list(addresses)
        self._port = port
        self._timeout = timeout
        self._failed = failed

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        return _Connecting(self._reactor, self._addresses, self._port, self._timeout, self._failed, protocolFactory).begin()


class _Connecting:
    """One connection on its way."""

    def __init__(
        self,
        reactor: Any,
        addresses: list[str],
        port: int,
        timeout: float,
        failed: Callable[[str, BaseException], None],
        factory: Any,
    ) -> None:
        self._reactor = reactor
        self._left = list(addresses)
        self._port = port
        self._timeout = timeout
        self._failed = failed
        self._factory = factory
        self._running: dict[str, tuple[Deferred[Any], float]] = {}
        self._timer: Any = None
        self._over = False
        self._last: Failure | None = None
        self._done: Deferred[Any] = Deferred(lambda _: self._end())

    def begin(self) -> Deferred[Any]:
        self._next()
        return self._done

    def _next(self) -> None:
        self._stop_timer()
        if not self._left:
            if not self._running and not self._over:
                self._over = True
                self._done.errback(self._last or Failure(ConnectError(string="there is no address to connect to")))
            return
        address = self._left.pop(0)
        if self._left:
            self._timer = self._reactor.callLater(ATTEMPT_DELAY, self._impatient)
        connecting = address_endpoint(self._reactor, address, self._port, self._timeout).connect(self._factory)
        self._running[address] = connecting, self._reactor.seconds()
        connecting.addCallbacks(self._made, self._lost, callbackArgs=(address,), errbackArgs=(address,))

    def _impatient(self) -> None:
        self._timer = None
        self._next()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _made(self, protocol: Any, address: str) -> None:
        del self._running[address]
        if self._over:
            protocol.transport.abortConnection()
            return
        now = self._reactor.seconds()
        for other, (_, began) in self._running.items():
            if now - began >= ATTEMPT_DELAY:
                self._failed(other, ConnectError(string="no connection when another address had one"))
        self._end()
        self._done.callback(protocol)

    def _lost(self, failure: Failure, address: str) -> None:
        self._running.pop(address, None)
        if self._over:
            return
        if not failure.check(CancelledError):
            assert failure.value is not None
            self._failed(address, failure.value)
        self._last = failure
        self._next()

    def _end(self) -> None:
        self._over = True
        self._left.clear()
        self._stop_timer()
        for connecting, _ in list(self._running.values()):
            connecting.cancel()

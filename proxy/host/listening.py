"""Listening for clients at one endpoint, with failures that say what to change.

`Listening.open` binds the port.  ``proxy.tap`` calls it while twistd is still in the foreground, so that a taken port ends the
start with a message and an exit status, in daemon mode too.  The sockets pass to the daemon over the fork (reactors that cannot
have that re-register them: twisted.internet.interfaces.IReactorDaemonize).  Until the reactor runs, connections wait in the
kernel.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet import defer, endpoints
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from proxy.core.endpoint import endpoint_of
from proxy.errors import ConfigError
from proxy.host.accepting import Accepting
from proxy.host.ports import TCP, another_port, cannot_listen, endpoint_kind, reason_of
from proxy.mechanism.rotating import Observing, Rotating

if TYPE_CHECKING:
    from proxy.host.presented import Presented

#: Connections that may wait in the kernel while the reactor is busy, as those of a farm do whose builds begin together.
_BACKLOG = 1024
_EXPECTED = (
    'a Twisted endpoint, such as "tcp:3143:interface=127.0.0.1" or "unix:/run/pypiproxy.sock", or an address and a port, '
    'such as "127.0.0.1:3143" or "[::1]:3143"'
)


def speaks_tls(description: str) -> bool:
    """Whether the endpoint that *description* names ends TLS itself."""
    return description.partition(":")[0] in ("ssl", "tls")


def presented(description: str, observing: Observing | None = None) -> Presented | None:
    """The certificates of the endpoint that *description* names, ``None`` without TLS.

    *observing* is what their files are looked at with, ``None`` for who reads them once.  Raises ConfigError when it names no
    endpoint, or the files cannot be used.
    """
    if not speaks_tls(description):
        return None
    # Few endpoints speak TLS, and what it needs takes a while to load.
    from proxy.host.presented import ONCE, Arguments, Presented

    try:
        return Presented(Arguments(description), observing or ONCE)
    except Exception as error:  # every kind of endpoint has its own way to refuse its arguments
        raise ConfigError(f'"{description}": {reason_of(error)}; expected {_EXPECTED}') from error


def endpoint(description: str, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint that *description* names, in any of the forms that :mod:`proxy.core.endpoint` knows.

    Raises ConfigError when it names none, or files it needs cannot be used.
    """
    return _endpoint(description, reactor, presented(description))


def _endpoint(description: str, reactor: Any, presented: Presented | None) -> IStreamServerEndpoint:
    if presented is not None:
        return presented.endpoint(reactor)
    try:
        found: IStreamServerEndpoint = endpoints.serverFromString(reactor, endpoint_of(description))
    except Exception as error:  # every kind of endpoint has its own way to refuse its arguments
        raise ConfigError(f'"{description}": {reason_of(error)}; expected {_EXPECTED}') from error
    return found


def bound(description: str, chosen: IStreamServerEndpoint, factory: Any, another: str = "") -> IListeningPort:
    """The port of *chosen*, the endpoint *description*, bound now; *another* says how another one is named.

    Raises ConfigError.
    """
    opened: list[IListeningPort] = []
    failures: list[Exception] = []
    waiting = chosen.listen(factory)
    waiting.addCallbacks(opened.append, lambda failure: failures.append(failure.value))
    if failures:
        raise cannot_listen(description, failures[0], another) from failures[0]
    if not opened:
        waiting.cancel()
        raise ConfigError(f'"{description}": does not listen at once; expected {_EXPECTED}')
    return opened[0]


class Listening(Service):
    """Serves *factory* at the endpoint *description* from `open` (or the start of the service) until it is stopped.

    ``ports`` holds the ports that are open.  Stopping closes them to new connections and leaves running ones alone.  *short* is
    called when there is no descriptor for a connection that waits: it may close another one.  *observing* is what the files of
    certificates are looked at with.
    """

    log = Logger()

    def __init__(
        self,
        description: str,
        factory: Any,
        reactor: Any,
        short: Callable[[], None] = lambda: None,
        observing: Observing | None = None,
    ) -> None:
        self.description = description
        self.ports: tuple[IListeningPort, ...] = ()
        self._factory = factory
        self._reactor = reactor
        self._short = short
        self._observing = observing
        self._presented: Presented | None = None
        self._accepting: list[Accepting] = []

    @property
    def plain(self) -> bool:
        """Whether http is spoken here over TCP, so that this process can ask itself."""
        return endpoint_kind(self.description) in TCP

    @property
    def rotating(self) -> tuple[Rotating[Any], ...]:
        """The files that have to be looked at regularly."""
        return () if self._presented is None else (self._presented.rotating,)

    @property
    def expires(self) -> float | None:
        """When the first of its certificates expires, in seconds since 1970."""
        return None if self._presented is None else self._presented.expires

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it listens, of each port that is open."""
        return tuple(url_of(self.description, port) for port in self.ports)

    def local_url(self) -> str:
        """Where this process finds itself, once the port is open."""
        (port, *_) = self.ports
        address: Any = port.getHost()
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # what it listens on, not we
        return _http_url("http", host, address.port)

    def open(self) -> None:
        """Bind now, unless that is done.  Raises ConfigError."""
        if self.ports:
            return
        self._factory.noisy = False
        self._presented = presented(self.description, self._observing)
        chosen = _endpoint(self.description, self._reactor, self._presented)
        self.ports = (bound(self.description, chosen, self._factory, another=another_port(self.description)),)
        for port in self.ports:
            if "backlog=" not in self.description:
                _deepen(port)
            self._accepting.append(Accepting(port, self._reactor, self._short))

    def hold(self) -> None:
        """Accept nothing until `go_on`: connections wait in the kernel."""
        for each in self._accepting:
            each.hold()

    def go_on(self) -> None:
        """Accept again."""
        for each in self._accepting:
            each.go_on()

    def privilegedStartService(self) -> None:
        self.open()

    def startService(self) -> None:
        self.open()
        super().startService()
        # Said when the reactor runs, which is when signals are heeded too: who waits for this line may then stop the service.
        self._reactor.callWhenRunning(self._announce)

    def _announce(self) -> None:
        for url in self.urls:
            self.log.info("serving on {url}", url=url)

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        ports, self.ports = self.ports, ()
        while self._accepting:
            self._accepting.pop().stop()
        closing = defer.DeferredList([defer.maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        return closing.addCallback(lambda results: None)


def _deepen(port: Any) -> None:
    """Let as many connections wait for *port* as a farm has, and not the 50 of Twisted's endpoints."""
    with socket.socket(fileno=os.dup(port.fileno())) as listening:
        listening.listen(_BACKLOG)


def url_of(description: str, port: IListeningPort) -> str:
    """Where clients find *port*."""
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        name = address.name or b""
        return f"unix:{name.decode('utf-8', 'replace') if isinstance(name, bytes) else name}"
    scheme = "https" if speaks_tls(description) else "http"
    if isinstance(address, IPv4Address | IPv6Address):
        return _http_url(scheme, address.host, address.port)
    return description


def _http_url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

"""One try at one URL of one upstream: it owns the permit, a place among the connections, the timers and the exchange.

Theory of operation.  The pool makes an attempt once its evidence permits one, what is asked and how the answer is read is the
business of :mod:`proxy.upstream.index`, and :meth:`Attempt.end` is the one place where an attempt is settled: it closes the
exchange, gives the place back and tells the permit what came of it.  :meth:`Attempt.fail` is the border around it: whatever
surprise an answer holds (bytes that are no text, numbers that are none) is a failed attempt and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.errors import ProxyError
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Broken, Failed, Missing, Refused
from proxy.upstream.http.origin import Origin, origin_of
from proxy.upstream.http.slots import Slot, Slots

#: What passes the border as it is: what is said already, what the other side of a transfer raises, and cancellation.
_KNOWN = (Failed, ProxyError, OSError, CancelledError)


class IPermit(Protocol):
    """Leave to ask one upstream for one URL, as the pool gives it: what is learned on the way goes back to its evidence."""

    @property
    def void(self) -> bool:
        """Whether the leave is withdrawn: what has not been sent yet is not to be."""

    def toward(self, origin: Origin) -> None:
        """A request is about to go to *origin*; what comes of it is about that one."""

    def order(self, origin: Origin, addresses: Sequence[str]) -> list[str]:
        """*addresses* of the host of *origin*, the one to try first first."""

    def pace(self) -> float:
        """Seconds to leave between two requests, because upstream asks for fewer."""

    def answered(self, origin: Origin, address: str | None, status: int) -> None:
        """*address* has answered with *status*."""

    def address_failed(self, origin: Origin, address: str, unreachable: bool) -> None:
        """*address* has not accepted a connection (*unreachable*), or has not answered on it, or broke it."""

    def proven(self) -> None:
        """What has come so far is what was asked for."""

    def settle(self, error: BaseException | None, overtaken: bool) -> None:
        """The attempt has ended, with *error* or well; *overtaken*: cancelled, for another upstream was first.  Called once."""


class Manner(Struct):
    """How one upstream is asked.

    ``silence``: a bound on pauses in the body that is tighter than the settings' (seconds).  ``answering`` is told when the
    first byte is in.  ``stagger``: seconds of silence after which another address of the same host is asked too.
    ``insist``: ask although the URL rests, now and then, for nobody else has an answer.
    ``overtaken``: another upstream has answered first; set by whoever cancels the attempt for that.
    """

    silence: float | None = None
    answering: Callable[[], None] = lambda: None
    stagger: float | None = None
    insist: bool = False
    overtaken: bool = False


class RequestSender(Protocol):
    """What sends an attempt's requests: the client of one upstream."""

    @property
    def slots(self) -> Slots:
        """The places among the connections."""

    async def send(
        self, attempt: Attempt, place: Slot, method: str, url: str, headers: Mapping[str, str], named_by: str | None
    ) -> Exchange:
        """The response to a request that *attempt* permits, redirects followed; *place* is where it counts.

        Raises Failed for everything but an answer below 400 (and 416), Missing for 404 and 410.
        """


class Attempt:
    """A try that *permit* allows, sent by *sender* in *manner*; *file* requests leave room for pages.

    *upstream* is the name of who is asked.
    """

    log = Logger()

    def __init__(self, upstream: str, sender: RequestSender, permit: IPermit, manner: Manner, *, file: bool = False) -> None:
        self.upstream = upstream
        self.permit = permit
        self.manner = manner
        #: Whether the host that was asked last has other addresses.
        self.elsewhere = False
        self._sender = sender
        self._file = file
        self._place: Slot | None = None
        self._exchange: Exchange | None = None
        self._ended = False
        self._proven = False

    async def ask(self, method: str, url: str, headers: Mapping[str, str], *, named_by: str | None = None) -> Exchange:
        """Send a request and return its response, redirects followed; the response before it is closed.

        *named_by* is the page that named *url*: another host than its own is asked only as ``file_hosts`` allows, redirects
        included.  Raises Failed for everything but an answer below 400 (and 416), Missing for 404 and 410.
        """
        if self._exchange is not None:
            self._exchange.close()
        if self._place is None:
            self._place = await self._sender.slots.take(file=self._file, pace=self.permit.pace())
            if self.permit.void:
                raise Refused("has gone down meanwhile")
        self._exchange = await self._sender.send(self, self._place, method, url, headers, named_by)
        return self._exchange

    def proven(self) -> None:
        """What has come so far is what was asked for; what breaks off later still counts."""
        if not self._proven:
            self._proven = True
            self.permit.proven()

    def fail(self, error: BaseException) -> BaseException:
        """End it because of *error*; returns what to raise in its place."""
        if isinstance(error, Exception) and not isinstance(error, _KNOWN):
            self.log.failure("an answer of upstream that is not understood", Failure(error))
            error = Failed(f"sent an answer that cannot be understood: {type(error).__name__}: {error}"[:500])
        self.end(error)
        return error

    def end(self, error: BaseException | None = None) -> None:
        """Settle it: *error* is what came of it, ``None`` that all is well, a definite no included.  The first call counts."""
        if self._ended:
            return
        self._ended = True
        exchange = self._exchange
        if exchange is not None:
            exchange.close()
            if isinstance(error, Broken) and exchange.address is not None:
                # The rest is asked for at another address, if there is one.
                self.permit.address_failed(origin_of(exchange.url), exchange.address, False)
        definite = isinstance(error, Missing)
        self.permit.settle(None if definite else error, self.manner.overtaken)
        if self._place is not None:
            self._place.leave()

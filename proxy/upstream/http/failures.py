"""Why an upstream did not answer, in words for logs, tables and the clients' terminals."""

from __future__ import annotations

import enum
import errno
import re

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout

from proxy.core.amounts import duration
from proxy.simple.links import shown_in
from proxy.upstream.http.parsing import HeadTooLong, NotHttp

#: What connecting fails with when this process or this machine has no room for another connection.
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
#: What OpenSSL says of a peer that speaks something else than TLS; the words depend on its version.
_NO_TLS = re.compile(r"wrong version number|packet length too long|record layer failure", re.IGNORECASE)
#: What ends a connection; the same while an answer is waited for; and what is no answer.
CLOSED = "closed the connection"
UNFINISHED = f"{CLOSED} before its answer was complete"
NO_HTTP = "answered with something that is not HTTP"
#: What is repeated of what an HTTP client says (characters).
_LONGEST = 500


class TooLate(Exception):
    """No head has come within the time that was given."""


class Fault(enum.Enum):
    """What a failed attempt is evidence about."""

    #: Nothing: a rule or a limit of this proxy, a definite no, or a refusal that is no failure.
    NO_EVIDENCE = "nothing"
    #: The credentials that the configuration has: 401, 407, or 403 where that is no 404.  Nothing about the URL or the host.
    CREDENTIALS = "credentials"
    #: The host: its name has no address.
    UNRESOLVED = "unresolved"
    #: The addresses that were tried: no connection, no route, no TLS.
    UNREACHABLE = "unreachable"
    #: The URL, and the address: a connection was made, and no answer came on it.
    UNANSWERED = "unanswered"
    #: The URL, and the address: 502, or an answer that broke off.
    BROKEN = "broken"
    #: The URL: 429, which asks for fewer requests.
    THROTTLED = "throttled"
    #: The URL: an answer of no use.
    USELESS = "useless"

    @property
    def about_the_host(self) -> bool:
        """Whether it says nothing about the URL."""
        return self in (Fault.UNRESOLVED, Fault.UNREACHABLE)


class Failed(Exception):
    """One attempt at one upstream came to nothing; ``str()`` is the reason.

    ``retry_after``: the pause it asked for, in seconds.  ``fault``: what it is evidence about.
    ``status``: the HTTP status that it is about, if it is.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, fault: Fault = Fault.USELESS, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.fault = fault
        self.status = status


class Broken(Failed):
    """The connection ended in the middle: what has arrived is good, and the rest can be asked for."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, fault=Fault.BROKEN)


class Unfit(Failed):
    """What came is not the file, or does not continue what is here of it: another length, another position, another format."""


class Silent(Broken):
    """The connection is open and nothing comes any more."""


class Missing(Failed):
    """404 or 410: a definite answer of this upstream."""

    def __init__(self, reason: str, url: str) -> None:
        super().__init__(reason, fault=Fault.NO_EVIDENCE)
        self.url = url


class Denied(Failed):
    """403, which some upstreams answer for what does not exist."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, fault=Fault.NO_EVIDENCE, status=403)


class Refused(Failed):
    """Nothing was asked: the evidence says that it is of no use now."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, fault=Fault.NO_EVIDENCE)


class Looped(Failed):
    """508: the request came back to this very instance."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, fault=Fault.NO_EVIDENCE)


def reason(error: BaseException | None, connect_timeout: float) -> str:
    """What *error*, raised by a connection or by what reads its answers, means."""
    if isinstance(error, NotHttp):
        return f"{NO_HTTP}: {error}"
    simple: dict[type[BaseException], str] = {
        ConnectionRefusedError: "connection refused",
        DNSLookupError: "its name cannot be resolved",
        NoRouteError: "no route to it",
        TCPTimedOutError: f"no connection within {duration(connect_timeout)}",
        ConnectTimeout: f"no connection within {duration(connect_timeout)}",
    }
    for kind, words in simple.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, ConnectionClosed):
        return CLOSED
    if isinstance(error, HeadTooLong):
        return str(error)
    if isinstance(error, ConnectError):
        return f"cannot connect: {error}"
    module = type(error).__module__
    if module.startswith(("OpenSSL", "service_identity")):
        return f"TLS failure: {_tls(error)}"
    return f"{type(error).__name__}: {shown_in(str(error)[:_LONGEST])}"


def speaks_no_tls(said: str) -> bool:
    """Whether *said*, a :func:`reason` why a TLS connection failed, means that something else than TLS is spoken there."""
    return _NO_TLS.search(said) is not None


def fault_of(error: BaseException, *, connected: bool) -> Fault:
    """What *error*, raised by a connection (or after one was made: *connected*), is evidence about."""
    if isinstance(error, DNSLookupError):
        return Fault.UNRESOLVED
    if isinstance(error, ConnectError) and error.osError in _OURS:
        return Fault.NO_EVIDENCE
    if isinstance(error, NotHttp):
        return Fault.USELESS
    if not connected or type(error).__module__.startswith(("OpenSSL", "service_identity")):
        return Fault.UNREACHABLE
    return Fault.UNANSWERED


def connecting_cancelled(error: BaseException) -> bool:
    """Whether *error* is what connecting fails with when nobody waits for it any more."""
    return isinstance(error, (CancelledError, ConnectingCancelledError))


def _tls(error: BaseException | None) -> str:
    """OpenSSL's error stack as text."""
    stack = error.args[0] if error is not None and error.args and isinstance(error.args[0], list) else []
    texts = [str(entry[-1]) for entry in stack if isinstance(entry, tuple) and entry]
    return "; ".join(texts) or type(error).__name__

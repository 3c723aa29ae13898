"""Why an upstream did not answer, in words for logs, tables and the clients' terminals."""

from __future__ import annotations

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
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.http import _DataLoss

from proxy.simple.links import shown_in

#: What is repeated of what an HTTP client says (characters).
_LONGEST = 500


class HeadTooLong(Exception):
    """A response's head goes on without end; ``str()`` says how far it was read."""


class Failed(Exception):
    """One attempt at one upstream came to nothing; ``str()`` is the reason.

    ``retry_after``: the pause it asked for, in seconds.  ``blames``: whether it says something about the upstream's health.
    ``answered``: whether there was an answer, if none of use: another request may get a better one.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, blames: bool = True, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered
        self.retry_after = retry_after
        self.blames = blames


class Broken(Failed):
    """The connection ended in the middle: what has arrived is good, and the rest can be asked for."""


class Unfit(Failed):
    """What came is not the file, or does not continue what is here of it: another length, another position, another format."""


class Silent(Broken):
    """The connection is open and nothing comes any more."""


class Missing(Failed):
    """404 or 410: a definite answer of this upstream."""

    def __init__(self, reason: str, url: str) -> None:
        super().__init__(reason, blames=False)
        self.url = url


class Looped(Failed):
    """508: the request came back to this very instance."""


def reason(error: BaseException | None, connect_timeout: float) -> str:
    """What *error*, raised by a connection or by an HTTP client, means."""
    if isinstance(error, (ResponseFailed, ResponseNeverReceived)):
        return _reasons(error.reasons, connect_timeout)
    simple: dict[type[BaseException], str] = {
        ConnectionRefusedError: "connection refused",
        DNSLookupError: "its name cannot be resolved",
        NoRouteError: "no route to it",
        TCPTimedOutError: f"no connection within {connect_timeout:g} s",
        ConnectTimeout: f"no connection within {connect_timeout:g} s",
        ParseError: "answered with something that is not HTTP",
    }
    for kind, words in simple.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, (ConnectionClosed, _DataLoss)):
        return "closed the connection"
    if isinstance(error, HeadTooLong):
        return str(error)
    if isinstance(error, ConnectError):
        return f"cannot connect: {error}"
    module = type(error).__module__
    if module.startswith(("OpenSSL", "service_identity")):
        return f"TLS failure: {_tls(error)}"
    return f"{type(error).__name__}: {shown_in(str(error)[:_LONGEST])}"


def cancelled(error: BaseException) -> bool:
    """Whether *error* is what the HTTP client makes of a request that was cancelled."""
    if isinstance(error, (ResponseFailed, ResponseNeverReceived)):
        return any(cancelled(failure.value) for failure in error.reasons)
    return isinstance(error, (CancelledError, ConnectingCancelledError))


def _reasons(failures: list[Failure], connect_timeout: float) -> str:
    """The most telling of the failures behind a failed response."""
    errors = [failure.value for failure in failures]
    for error in errors:
        if not isinstance(error, ConnectionClosed):
            return reason(error, connect_timeout)
    return "closed the connection before its answer was complete"


def _tls(error: BaseException | None) -> str:
    """OpenSSL's error stack as text."""
    stack = error.args[0] if error is not None and error.args and isinstance(error.args[0], list) else []
    texts = [str(entry[-1]) for entry in stack if isinstance(entry, tuple) and entry]
    return "; ".join(texts) or type(error).__name__

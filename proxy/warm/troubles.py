"""What Twisted's HTTP client raises for a request to the proxy that came to nothing: what is behind it, in words."""

from __future__ import annotations

from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from proxy.mechanism.twisted_client import Unparsable
from proxy.mechanism.twisted_internals import BodyCutOff
from proxy.upstream.http.failures import CLOSED, NO_HTTP, UNFINISHED, connecting_cancelled, reason


def cancelled(error: BaseException) -> bool:
    """Whether *error* is what the client makes of a request that was cancelled."""
    behind = _behind(error)
    if behind is not None:
        return any(failure.value is not None and cancelled(failure.value) for failure in behind)
    return connecting_cancelled(error)


def in_words(error: BaseException, connect_timeout: float) -> str:
    """What *error* means."""
    behind = _behind(error)
    if behind is not None:
        errors = [failure.value for failure in behind if failure.value is not None]
        error = next((each for each in errors if not isinstance(each, ConnectionClosed)), errors[0])
        if isinstance(error, ConnectionClosed):
            return UNFINISHED
    if isinstance(error, Unparsable):
        return NO_HTTP
    return CLOSED if isinstance(error, BodyCutOff) else reason(error, connect_timeout)


def _behind(error: BaseException) -> list[Failure] | None:
    """The failures that *error* consists of, if the client has raised it for a whole request."""
    return error.reasons if isinstance(error, (ResponseFailed, ResponseNeverReceived)) else None

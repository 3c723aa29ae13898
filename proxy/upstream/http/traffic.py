"""What goes to one upstream and comes from it, reported to those who count it."""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.events import UpstreamAnswered, UpstreamEnded, UpstreamReceived, UpstreamResult
from proxy.interfaces import IRecorder
from proxy.upstream.http.failures import Fault

_BY_STATUS = {
    304: UpstreamResult.UNCHANGED,
    401: UpstreamResult.DENIED,
    403: UpstreamResult.DENIED,
    404: UpstreamResult.MISSING,
    407: UpstreamResult.DENIED,
    410: UpstreamResult.MISSING,
    416: UpstreamResult.OK,
    429: UpstreamResult.THROTTLED,
}
_BY_FAULT = {
    Fault.UNRESOLVED: UpstreamResult.UNRESOLVED,
    Fault.UNREACHABLE: UpstreamResult.UNREACHABLE,
    Fault.UNANSWERED: UpstreamResult.UNANSWERED,
    Fault.BROKEN: UpstreamResult.BROKEN,
    Fault.THROTTLED: UpstreamResult.THROTTLED,
    Fault.USELESS: UpstreamResult.BROKEN,
    Fault.CREDENTIALS: UpstreamResult.DENIED,
    Fault.NO_EVIDENCE: UpstreamResult.LOCAL,
}


def result_of(status: int) -> UpstreamResult:
    """What an answer with *status* is counted as."""
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    if status < 300:
        return UpstreamResult.OK
    if status < 400:
        return UpstreamResult.REDIRECTED
    return UpstreamResult.CLIENT_ERROR if status < 500 else UpstreamResult.SERVER_ERROR


class UpstreamTraffic:
    """Reports to *recorder* what is sent to the upstream called *upstream*; *clock* is steady, in seconds."""

    def __init__(self, upstream: str, recorder: IRecorder, clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._recorder = recorder
        self._clock = clock

    def answered(self, address: str | None, status: int, began: float) -> None:
        """The headers of an answer to a request are there that was sent at *began*."""
        first_byte = self._clock() - began
        self._recorder.record(UpstreamAnswered(self._upstream, address, result_of(status), first_byte))

    def failed(self, address: str | None, fault: Fault) -> None:
        """A request had no answer."""
        self._recorder.record(UpstreamAnswered(self._upstream, address, _BY_FAULT[fault], None))

    def cancelled(self, address: str | None) -> None:
        """Nobody waited for the answer to a request any more."""
        self._recorder.record(UpstreamAnswered(self._upstream, address, UpstreamResult.CANCELLED, None))

    def reception(self, address: str | None, began: float) -> Reception:
        """What is told of the body of the answer from *address* to a request that was sent at *began*."""
        return Reception(self._upstream, address, self._recorder, began, self._clock)


class Reception:
    """One body that comes from *address* of *upstream*."""

    def __init__(
        self, upstream: str, address: str | None, recorder: IRecorder, began: float, clock: Callable[[], float]
    ) -> None:
        self._upstream = upstream
        self._address = address
        self._recorder = recorder
        self._began = began
        self._clock = clock
        self._ended = False

    def received(self, size: int) -> None:
        """*size* bytes more have come."""
        self._recorder.record(UpstreamReceived(self._upstream, size))

    def ended(self) -> None:
        """No more are read.  The first call counts."""
        if not self._ended:
            self._ended = True
            self._recorder.record(UpstreamEnded(self._upstream, self._address, self._clock() - self._began))

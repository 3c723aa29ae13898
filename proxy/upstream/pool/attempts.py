"""What has been tried for one request, and what to tell the client when nobody is left to ask."""

from __future__ import annotations

from collections.abc import Callable

from proxy.errors import Attempted, DigestMismatch, LoopDetected, NotFound, ProxyError, UpstreamDenied, UpstreamFailed
from proxy.upstream.http.failures import Denied, Looped, Missing, Refused
from proxy.upstream.pool.upstream import Upstream


class Attempts:
    """The attempts at *what*.  Of one upstream the last word counts, so that the sentence stays short."""

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self.what = what
        self.clock = clock
        self._last: dict[str, tuple[Attempted, Exception]] = {}
        #: Upstreams of which other URLs work.
        self._working: set[str] = set()

    def failed(self, client: Upstream, error: Exception, began: float) -> None:
        if client.name in self._last and isinstance(error, Refused):
            return  # that it was left alone afterwards tells nobody why it failed
        if client.evidence.last_success_at is not None:
            self._working.add(client.name)
        reason = str(error)
        if isinstance(error, DigestMismatch) and error.attempts:
            reason = error.attempts[-1].reason
        self._last[client.name] = (Attempted(client.name, reason, self.clock() - began), error)

    @property
    def made(self) -> list[Attempted]:
        return [attempt for attempt, _ in self._last.values()]

    @property
    def definite(self) -> bool:
        """Whether nobody needs to be asked again: each said no, or denied it though it lets others pass."""
        return bool(self._last) and all(
            isinstance(error, Missing) or (isinstance(error, Denied) and name in self._working)
            for name, (_, error) in self._last.items()
        )

    @property
    def all_may_pass(self) -> bool:
        """Whether there was an attempt, and nobody said no: each may have an answer a moment later."""
        return bool(self._last) and not any(isinstance(error, (Missing, Denied)) for _, error in self._last.values())

    @property
    def all_missing(self) -> bool:
        """Whether every answer was a definite no."""
        return bool(self._last) and all(isinstance(error, Missing) for _, error in self._last.values())

    def error(self) -> ProxyError:
        """What to tell the client."""
        errors = [error for _, error in self._last.values()]
        if self.all_missing:
            return NotFound(f"{self.what}: " + "; ".join(map(str, self.made)))
        if self.definite:
            return UpstreamDenied(self.what, self.made)
        loop = next((error for error in errors if isinstance(error, Looped)), None)
        if loop is not None:
            return LoopDetected(str(loop))
        if any(isinstance(error, DigestMismatch) for error in errors):
            return DigestMismatch(self.what, self.made)
        return UpstreamFailed(self.what, self.made)

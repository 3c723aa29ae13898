"""What operations ask: is it alive, is it ready, what does it count (``/-/…``)."""

from __future__ import annotations

from collections.abc import Callable

from proxy.errors import NotFound
from proxy.web.answers import Answer

_PLAIN = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


class Operations:
    """*ready*: whether requests are taken (not while draining); *exposition* gives (content type, body) of the metrics."""

    def __init__(self, ready: Callable[[], bool], exposition: Callable[[], tuple[str, bytes]]) -> None:
        self._ready = ready
        self._exposition = exposition

    async def answer(self, segments: tuple[str, ...]) -> Answer:
        match segments:
            case ("live",):
                return Answer(200, _PLAIN, b"alive\n")
            case ("ready",):
                if self._ready():
                    return Answer(200, _PLAIN, b"ready\n")
                return Answer(503, [*_PLAIN, ("Retry-After", "1")], b"stopping\n")
            case ("metrics",):
                media, body = self._exposition()
                return Answer(200, [("Content-Type", media), ("Cache-Control", "no-store")], body)
        raise NotFound("operations are at /-/live, /-/ready and /-/metrics")

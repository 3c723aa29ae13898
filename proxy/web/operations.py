"""What operations ask: is it alive, is it ready, what does it count (``/-/…``).

Ready means that builds are served.  What is wrong beside that stands in the body, one trouble per line: a balancer that drops a
node for it would drop all of them at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from proxy.core.troubles import Trouble
from proxy.errors import NotFound
from proxy.web.answers import Answer

_PLAIN = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


class Operations:
    """*ready*: whether requests are taken (not while draining); *look* finds out what is wrong, and has it counted;
    *exposition* gives (content type, body) of the metrics.
    """

    def __init__(
        self,
        ready: Callable[[], bool],
        look: Callable[[], Awaitable[Sequence[Trouble]]],
        exposition: Callable[[], tuple[str, bytes]],
    ) -> None:
        self._ready = ready
        self._look = look
        self._exposition = exposition

    async def answer(self, segments: tuple[str, ...]) -> Answer:
        match segments:
            case ("live",):
                return Answer(200, _PLAIN, b"alive\n")
            case ("ready",):
                if not self._ready():
                    return Answer(503, [*_PLAIN, ("Retry-After", "1")], b"stopping\n")
                lines = [f"degraded: {each.words}\n" for each in await self._look()]
                return Answer(200, _PLAIN, ("".join(lines) or "ready\n").encode())
            case ("metrics",):
                await self._look()
                media, body = self._exposition()
                return Answer(200, [("Content-Type", media), ("Cache-Control", "no-store")], body)
        raise NotFound("operations are at /-/live, /-/ready and /-/metrics")

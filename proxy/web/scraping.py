"""The metrics, for those who may read them: at ``/-/metrics`` of every listener, or of one that serves nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proxy.errors import MethodNotAllowed, NotFound
from proxy.interfaces import IOffload
from proxy.statistics.metrics import Metrics
from proxy.statistics.tallies import Snapshot
from proxy.web.answers import Answer, Ask
from proxy.web.door import Door
from proxy.web.routes import SHOWN, OperationsRoute

#: The path below ``/-/``.
METRICS = ("metrics",)


class Scraping:
    """Answers with *metrics*, to whom *door* admits, once *look* has looked at what is not in memory.

    The text is made in a thread of *offload*, before what else waits for one: a scrape is answered during an overload, and
    nobody waits for it.
    """

    def __init__(self, metrics: Metrics, look: Callable[[], Awaitable[object]], door: Door, offload: IOffload) -> None:
        self._metrics = metrics
        self._look = look
        self._door = door
        self._offload = offload

    async def answer(self, ask: Ask) -> Answer:
        """The answer to *ask*.  Raises as :meth:`proxy.web.door.Door.admit_scraper`."""
        await self._door.admit_scraper(ask)
        await self._look()
        media, body = await self._offload.run_first(_exposition, self._metrics.snapshot(), ask.header("accept") or "")
        return Answer(200, [("Content-Type", media), ("Cache-Control", "no-store"), ("Vary", "Accept")], body)

    async def __call__(self, ask: Ask) -> Answer:
        """The answer of a listener that serves nothing else.  Raises ProxyError."""
        if not isinstance(ask.route, OperationsRoute) or ask.route.segments != METRICS:
            raise NotFound(f"{ask.path[:SHOWN]}: this listener serves the metrics alone, at /-/metrics")
        if ask.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{ask.method[:SHOWN]}: only GET and HEAD are answered here", allow="GET, HEAD")
        return await self.answer(ask)


def _exposition(snapshot: Snapshot, accept: str) -> tuple[str, bytes]:
    # It takes a while to load, for the first scrape and in its thread.
    from proxy.statistics.exposition import exposition_of

    return exposition_of(snapshot, accept)

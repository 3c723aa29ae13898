"""What operations ask: is it alive, is it ready, what does it count (``/-/…``).

The answers are those of :mod:`proxy.core.health`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from proxy.core.health import Phase, readiness
from proxy.core.troubles import Trouble
from proxy.errors import NotFound
from proxy.interfaces import IOffload
from proxy.web.answers import Answer, Ask
from proxy.web.scraping import METRICS, Scraping
from proxy.web.visitors import wants_html

_PLAIN = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]

#: What there is.
ANSWERED: Mapping[str, str] = {
    "live": "whether the process answers",
    "ready": "whether it serves builds, and what is wrong",
    "metrics": "figures for Prometheus",
}


def as_json(members: Mapping[str, object]) -> Answer:
    """*members* for programs, where people are given a page."""
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Vary", "Accept")]
    return Answer(200, headers, msgspec.json.encode(members) + b"\n")


class Health(Struct, frozen=True):
    """*phase*: whether requests are taken (not while draining); *look* finds out what is wrong, and has it counted."""

    phase: Callable[[], Phase]
    look: Callable[[], Awaitable[Sequence[Trouble]]]

    def is_ready(self) -> bool:
        """Whether builds are served."""
        return self.phase() is Phase.SERVING


class Operations:
    """Answers from *health*; *scraping* has the metrics, ``None``: another listener has."""

    def __init__(self, health: Health, scraping: Scraping | None, offload: IOffload) -> None:
        self._health = health
        self._scraping = scraping
        self._offload = offload
        self._listed_here = {name: what for name, what in ANSWERED.items() if scraping is not None or (name,) != METRICS}

    async def answer(self, segments: tuple[str, ...], ask: Ask) -> Answer:
        match segments:
            case ("live",):
                return Answer(200, _PLAIN, b"alive\n")
            case ("ready",):
                phase = self._health.phase()
                troubles = await self._health.look() if phase is Phase.SERVING else ()
                found = readiness(phase, (each.words for each in troubles))
                again = [] if found.status < 500 else [("Retry-After", "1")]
                return Answer(found.status, [*_PLAIN, *again], found.text.encode())
            case ("metrics",):
                if self._scraping is None:
                    raise NotFound("the metrics are served by a listener of their own: server.metrics_listen")
                return await self._scraping.answer(ask)
            case ("",):
                return await self._listed(ask)
        raise NotFound("operations are at /-/live, /-/ready and /-/metrics")

    async def _listed(self, ask: Ask) -> Answer:
        if not wants_html(ask):
            return as_json({f"/-/{name}": what for name, what in self._listed_here.items()})
        # Few services see people, and their pages take a while to load.
        from twisted.web.template import tags

        from proxy.web.hypertext import html, hyperlink, main_element

        found = tags.ul([tags.li(hyperlink(name, f"/-/{name}"), f": {what}") for name, what in self._listed_here.items()])
        return await html(
            self._offload,
            "Operations of pypiproxy",
            main_element(tags.h1("Operations"), found),
            tags.footer(hyperlink("../", "pypiproxy")),
        )

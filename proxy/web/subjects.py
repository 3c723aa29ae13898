"""What a request is counted as in statistics: the typed values of its route, never the text that a client sent."""

from __future__ import annotations

from functools import lru_cache

from proxy.core.visits import Subject
from proxy.names import normalize
from proxy.web.routes import AREAS, Below, Route

#: Routes whose subject is remembered: each request that is not answered at once asks for its own several times.
_REMEMBERED = 64


@lru_cache(_REMEMBERED)
def subject_of(route: Route) -> Subject | None:
    """What *route* is about; ``None`` for what is not counted by what it is about."""
    if not isinstance(route, Below):
        return None
    area, *parts = route.pattern.split("/")
    if area not in AREAS:
        return None
    named = dict(zip((part for part in parts if part.startswith("{")), route.values, strict=True))
    return Subject(route.index, area, normalize(named.get("{project}", "")), named.get("{file}", ""))

"""A file as a page lists it."""

from __future__ import annotations

from attrs import frozen

from proxy.core.views import Moment
from proxy.model import File, LedgerEntry


@frozen(slots=True)
class Listed:
    """A file that may be seen as the page of ``upstream`` lists it, with the bytes it is pinned to; ``seen`` says until when.

    ``metadata`` is the pin of its metadata, if there is one that goes with what the page states.
    """

    file: File
    upstream: str
    metadata: LedgerEntry | None
    seen: Moment

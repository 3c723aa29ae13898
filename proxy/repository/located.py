"""What a repository says of pages and files before anybody has read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from attrs import frozen

from proxy.cache.outcome import Outcome
from proxy.interfaces import IBytesSource
from proxy.model import File, LedgerEntry, Page, Wanted

C = TypeVar("C")


@frozen(slots=True)
class View(Generic[C]):
    """Something as it may be seen now.  ``state`` names this very content; ``load`` gives it: a page parsed and filtered."""

    project: str
    state: str
    outcome: Outcome
    serial: int | None
    load: Callable[[], Awaitable[C]]


PageView = View[Page]


@frozen(slots=True)
class Located:
    """A file that exists: open already when it is in the store, else what to fetch.

    ``made``: it had to be made for this request.
    """

    stored: IBytesSource | None
    wanted: Wanted | None
    etag: str | None
    made: bool = False


@frozen(slots=True)
class Listed:
    """A file as the page of ``upstream`` lists it, with the bytes it is pinned to.

    ``metadata`` is the pin of its metadata, if there is one that goes with what the page states.
    """

    file: File
    upstream: str
    metadata: LedgerEntry | None

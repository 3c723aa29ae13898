"""What a repository says of pages and files before anybody has read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from attrs import frozen

from proxy.core.cache_status import CacheStatus
from proxy.interfaces import IBytesSource
from proxy.model import File, LedgerEntry, Page, Wanted
from proxy.repository.gate import Moment

C = TypeVar("C")


@frozen(slots=True)
class View(Generic[C]):
    """Something as it may be seen now.  ``state`` names this very content; ``load`` gives it: a page parsed and filtered.

    ``seen`` is when it was looked at, and until when that holds.
    """

    project: str
    state: str
    status: CacheStatus
    serial: int | None
    seen: Moment
    load: Callable[[], Awaitable[C]]

    @property
    def max_age(self) -> int:
        """For how long clients may keep it (seconds): as long as it is fresh and no verdict on it changes."""
        return self.seen.bounded(self.status.max_age)


PageView = View[Page]


@frozen(slots=True)
class Located:
    """A file that may be seen: open already when it is in the store, else what to fetch.

    ``seen`` is when it was looked at, and until when it may be.  ``made``: it had to be made for this request.
    """

    stored: IBytesSource | None
    wanted: Wanted | None
    etag: str | None
    seen: Moment
    made: bool = False


@frozen(slots=True)
class Listed:
    """A file that may be seen as the page of ``upstream`` lists it, with the bytes it is pinned to; ``seen`` says until when.

    ``metadata`` is the pin of its metadata, if there is one that goes with what the page states.
    """

    file: File
    upstream: str
    metadata: LedgerEntry | None
    seen: Moment

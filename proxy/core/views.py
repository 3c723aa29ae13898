"""What a repository says of things before anybody has read them: values that cross the port ``IRepository``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from msgspec import Struct

from proxy.core.cache_status import CacheStatus
from proxy.model import Page

C = TypeVar("C")


class Moment(Struct, frozen=True):
    """When something is looked at: at ``now``, after which no verdict on it changes before ``until`` (``None``: never).

    Both are seconds since the epoch.  ``mark`` is the same as long as all verdicts are.
    """

    now: float
    until: float | None
    mark: str = ""

    def bounded(self, seconds: int) -> int:
        """As many of *seconds* as are certain to pass before a verdict changes."""
        return seconds if self.until is None else int(min(seconds, max(0.0, self.until - self.now)))


class View(Struct, Generic[C], frozen=True):
    """Something as it may be seen now.  ``state`` names this very content; ``load`` gives it: a page parsed and filtered.

    ``serial`` is upstream's ``X-PyPI-Last-Serial``.  ``seen`` is when it was looked at, and until when that holds.
    ``relative`` is whether the provenance of some file has a URL relative to the root of the index: documents must state
    absolute ones (PEP 740), which differ by what clients call this host.
    """

    project: str
    state: str
    status: CacheStatus
    serial: int | None
    seen: Moment
    load: Callable[[], Awaitable[C]]
    relative: bool = False

    @property
    def max_age(self) -> int:
        """For how long clients may keep it (seconds): as long as it is fresh and no verdict on it changes."""
        return self.seen.bounded(self.status.max_age)


PageView = View[Page]


class LegacyName(Struct, frozen=True):
    """The legacy JSON document of ``project`` (normalised), or of one ``version`` of it."""

    project: str
    version: str | None = None


class ProvenanceName(Struct, frozen=True):
    """The provenance (PEP 740) of the file ``filename`` of ``project``; ``digest`` is the segment of its URL."""

    project: str
    digest: str
    filename: str


DocumentName = LegacyName | ProvenanceName


class Document(Struct, frozen=True):
    """A JSON document beside pages: ``body`` as its source has it, ``None`` where it has none and it is made of the page.

    ``page`` is what the index offers of the files that it names; ``None`` for a document that names none.
    """

    body: bytes | None
    page: Page | None = None


DocumentView = View[Document]

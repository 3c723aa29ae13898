"""The answers that give a representation of something seen: a page, the list of projects, a document (RFC 9110 section 8)."""

from __future__ import annotations

from typing import Protocol

from proxy.core.cache_status import CacheStatus
from proxy.web.answers import Answer, Body


class Cacheable(Protocol):
    """What the repository says of it, whatever it is."""

    @property
    def status(self) -> CacheStatus:
        """How the cache came by it."""

    @property
    def max_age(self) -> int:
        """For how long clients may keep it (seconds)."""

    @property
    def serial(self) -> int | None:
        """Upstream's ``X-PyPI-Last-Serial``."""


def unchanged(seen: Cacheable, etag: str, vary: str) -> Answer:
    """The 304 for who has the representation named *etag* already; *vary* are the fields by which it was chosen."""
    return Answer(304, _shared(seen, etag, vary), word=seen.status.word)


def represented(seen: Cacheable, etag: str, vary: str, media: str, coding: str, body: Body) -> Answer:
    """The 200 with *body*, which has the Content-Type *media* and is in the content coding *coding*."""
    headers = _shared(seen, etag, vary)
    headers.append(("Content-Type", media))
    if coding != "identity":
        headers.append(("Content-Encoding", coding))
    return Answer(200, headers, body, word=seen.status.word)


def _shared(seen: Cacheable, etag: str, vary: str) -> list[tuple[str, str]]:
    """The fields that a 304 has as well (RFC 9110 section 15.4.5)."""
    headers = [
        ("Vary", vary),
        ("ETag", etag),
        ("Cache-Control", "no-cache" if seen.status.own else f"max-age={seen.max_age}"),
        ("Cache-Status", seen.status.header()),
    ]
    if seen.serial is not None:
        headers.append(("X-PyPI-Last-Serial", str(seen.serial)))
    return headers

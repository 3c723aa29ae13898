"""Which media type and which content coding a client gets (RFC 9110 section 12, PEP 691), and what upstream sent."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from functools import lru_cache

from proxy.expressions import expression


class MediaType(enum.Enum):
    """What a page can be rendered as, the richest first."""

    JSON = "application/vnd.pypi.simple.v1+json"
    HTML_V1 = "application/vnd.pypi.simple.v1+html"
    TEXT_HTML = "text/html"


_NAMED = {
    **{media.value: media for media in MediaType},
    "application/vnd.pypi.simple.latest+json": MediaType.JSON,
    "application/vnd.pypi.simple.latest+html": MediaType.HTML_V1,
}
_BY_TYPE = {"text/*": (MediaType.TEXT_HTML,), "application/*": (MediaType.JSON, MediaType.HTML_V1)}
_RICHEST_FIRST = tuple(MediaType)
_JSON_TYPES = frozenset({"application/json", "text/json", *(name for name in _NAMED if name.endswith("json"))})
_FOR_PEOPLE = frozenset({"text/html", "application/xhtml+xml"})
_HTML_TYPES = frozenset({"application/xhtml+xml", *(name for name in _NAMED if name.endswith("html"))})
#: What servers say of a file whose type they do not know (``index.v1_json``).
_SAY_NOTHING = frozenset(
    {"application/octet-stream", "binary/octet-stream", "text/plain", "application/unknown", "unknown/unknown"}
)
_UNCLEAR = "unclear"
#: A media type, whatever surrounds it: parameters, quotes, no semicolon.
_TYPE = expression(r"(?<![\w=.+-])[\w.+-]+/[\w.+-]+", re.ASCII)
_QUALITY = expression(r"[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}")
#: Headers up to this length are remembered with what they mean, and of a ``Content-Type`` no more is read (characters).
_LONGEST_KEPT = 500


def negotiate(accept: str | None, format: str | None = None) -> MediaType | None:
    """The media type for a client that sent *accept* and ``?format=``\\ *format*; ``None`` is 406.

    The format overrides; it is a full media type (PEP 691), its ``+`` perhaps decoded to a space.  Else the highest quality
    wins and 0 excludes, where a more specific range overrides a wildcard.  Among equals, what is named or of the type that is
    named goes before what only ``*/*`` covers, then the richest wins; of what only ``*/*`` covers, HTML does: whoever sends no
    more than that does not know better.
    """
    if format is not None:
        return _NAMED.get(format.strip().replace(" ", "+").lower())
    return _negotiated(accept) if len(accept or "") <= _LONGEST_KEPT else _negotiated.__wrapped__(accept)


@lru_cache(maxsize=1024)
def _negotiated(accept: str | None) -> MediaType | None:
    named: dict[MediaType, float] = {}
    by_type: dict[MediaType, float] = {}
    others: float | None = None
    ranges = _weighted(accept or "") or [("*/*", 1.0)]
    for media_range, quality in ranges:
        if media_range == "*/*":
            others = max(quality, others or 0.0)
        elif media_range in _NAMED:
            _raise_to(named, _NAMED[media_range], quality)
        else:
            for media in _BY_TYPE.get(media_range, ()):
                _raise_to(by_type, media, quality)
    asked = {**by_type, **named}
    best = max(asked.values(), default=0.0)
    if others is not None and others > best:
        left = [media for media in _RICHEST_FIRST if media not in asked]
        if left:
            return MediaType.TEXT_HTML if MediaType.TEXT_HTML in left else left[0]
    return next((media for media in _RICHEST_FIRST if asked.get(media) == best), None) if best > 0 else None


def _raise_to(qualities: dict[MediaType, float], media: MediaType, quality: float) -> None:
    qualities[media] = max(quality, qualities.get(media, 0.0))


def names(accept: str, media_type: str) -> bool:
    """Whether the header *accept* names *media_type* itself, and does not rule it out."""
    return any(each == media_type and quality > 0 for each, quality in _weighted(accept))


def prefers_html(accept: str) -> bool:
    """Whether the header *accept* names HTML for people, and before JSON: by its quality, among equals by its place."""
    html, json = (0.0, 0), (0.0, 0)
    for place, (each, quality) in enumerate(_weighted(accept)):
        if each in _FOR_PEOPLE:
            html = max(html, (quality, -place))
        elif each in _JSON_TYPES or each.endswith("+json"):
            json = max(json, (quality, -place))
    return html[0] > 0 and html > json


def choose_coding(accept_encoding: str | None, available: Sequence[str]) -> str:
    """The content coding for a client that sent *accept_encoding*: one of *available* (best first) or ``identity``.

    A client that rules out everything gets identity, as RFC 9110 section 12.5.3 allows.
    """
    if not accept_encoding:
        return "identity"
    coding = _coding if len(accept_encoding) <= _LONGEST_KEPT else _coding.__wrapped__
    return coding(accept_encoding, tuple(available))


@lru_cache(maxsize=1024)
def _coding(accept_encoding: str, available: tuple[str, ...]) -> str:
    qualities: dict[str, float] = {}
    for name, quality in _weighted(accept_encoding):
        coding = name.removeprefix("x-")
        qualities[coding] = max(quality, qualities.get(coding, 0.0))
    offered = {coding: qualities.get(coding, qualities.get("*", 0.0)) for coding in available}
    best = max(offered, key=lambda coding: offered[coding], default="identity")
    return best if offered.get(best, 0.0) > 0 and offered[best] >= qualities.get("identity", 0.0) else "identity"


def _weighted(header: str) -> list[tuple[str, float]]:
    """The members of a list header in lower case without their parameters, each with its quality (RFC 9110 section 12.4.2).

    A member whose quality is no number is left out.
    """
    members = []
    for member in header.lower().split(","):
        value, *parameters = (part.strip() for part in member.split(";"))
        weight = next(
            (text.strip() for name, _, text in (each.partition("=") for each in parameters) if name.strip() == "q"), "1"
        )
        if value and _QUALITY.fullmatch(weight) and weight not in ("", "."):
            members.append((value, min(1.0, float(weight))))
    return members


def media_of(content_type: str, start: bytes) -> str | None:
    """Which parser a body of this ``Content-Type`` needs: ``"json"``, ``"html"``, or ``None`` when it is no page.

    Where the header says nothing, or two things, *start* decides: the first bytes of the body, in UTF-8 without a mark.
    """
    stated = _stated(content_type[:_LONGEST_KEPT])
    return stated if stated != _UNCLEAR else {b"{": "json", b"<": "html"}.get(start.lstrip()[:1])


@lru_cache(maxsize=256)
def _stated(content_type: str) -> str | None:
    """What *content_type* says, which may be a list where it was sent twice; :data:`_UNCLEAR` when the body has to tell."""
    types = {match[0].lower() for match in map(_TYPE.search, content_type.split(",")) if match is not None}
    kinds = {"json" for each in types if each in _JSON_TYPES} | {"html" for each in types if each in _HTML_TYPES}
    if len(kinds) == 1:
        return kinds.pop()
    return _UNCLEAR if kinds or types <= _SAY_NOTHING else None

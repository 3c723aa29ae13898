"""Where a path leads: determined once per request, before anybody answers.

Text of a client becomes typed values here.  A segment that is not what it stands for leads nowhere; what is behind a route may
put its values into URLs, keys and paths.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct
from msgspec.structs import replace

from proxy.core.days import is_day
from proxy.core.events import RequestPlace, RouteLabel
from proxy.core.roots import ANY_SIMPLE, INDEXES, index_root
from proxy.names import METADATA, PROVENANCE, is_digest, is_project_name, is_served_name, is_version

#: Characters of a client's text that an answer repeats.
SHOWN = 200

#: What a segment in braces must be.
CLAIMS: Mapping[str, Callable[[str], bool]] = {
    "{project}": is_project_name,
    "{version}": is_version,
    "{digest}": is_digest,
    "{file}": is_served_name,
    "{day}": is_day,
}

#: What answers are counted by: the first segment below an index.
AREAS = frozenset({"simple", "files", "packages", "pypi"})

#: What requests at each pattern below an index are counted as; all others are redirected.
_LABELS: Mapping[str, RouteLabel] = {
    "": RouteLabel.OVERVIEW,
    "simple": RouteLabel.LIST,
    "simple/": RouteLabel.LIST,
    "simple/{project}/": RouteLabel.PAGE,
    "files/{project}/{digest}/{file}": RouteLabel.FILE,
    "packages/{project}/{digest}/{file}": RouteLabel.FILE,
    "links/": RouteLabel.LINKS,
    "last-modified": RouteLabel.DOCUMENT,
    "simple/pypi/{project}/json": RouteLabel.DOCUMENT,
    "{project}/json": RouteLabel.DOCUMENT,
    "pypi/{project}/json": RouteLabel.DOCUMENT,
    "pypi/{project}/{version}/json": RouteLabel.DOCUMENT,
    "legacy": RouteLabel.UPLOAD,
    "legacy/": RouteLabel.UPLOAD,
}
#: What a file is counted as by how its name ends.
_COMPANIONS = {METADATA: RouteLabel.METADATA, PROVENANCE: RouteLabel.PROVENANCE}
#: What is counted as what below ``/-/``.
_OPERATIONS: Mapping[tuple[str, ...], RouteLabel] = {
    ("live",): RouteLabel.PROBE,
    ("ready",): RouteLabel.PROBE,
    ("metrics",): RouteLabel.METRICS,
}
_COUNTED_AS_NONE = RequestPlace(None, None, RouteLabel.NONE)

#: How the URL of an index ends; ``+simple`` is devpi's.
_SIMPLE = frozenset({"simple", "+simple"})


class Below(Struct, frozen=True):
    """Something below an index: *values* are those of the segments in braces of *pattern*, each one what :data:`CLAIMS` says.

    *root* is the path that the index is at; *place* is what an answer is counted by.
    """

    index: str
    root: str
    pattern: str
    values: tuple[str, ...]
    place: RequestPlace


class OperationsRoute(Struct, frozen=True):
    """Something that operations ask for, below ``/-/``."""

    segments: tuple[str, ...]

    @property
    def place(self) -> RequestPlace:
        """What an answer is counted by."""
        return RequestPlace(None, None, _OPERATIONS.get(self.segments, RouteLabel.OPERATIONS))


class ExchangeRoute(Struct, frozen=True):
    """What CI jobs exchange ID tokens at: *verb* says which endpoint, *index* for which index alone, if that is said."""

    verb: str
    index: str | None

    @property
    def place(self) -> RequestPlace:
        """What an answer is counted by."""
        return RequestPlace(self.index, None, RouteLabel.EXCHANGE)


class DiscoveryRoute(Struct, frozen=True):
    """Where the endpoints are for the upload URL with this *key* (PEP 807)."""

    key: str
    place: ClassVar[RequestPlace] = RequestPlace(None, None, RouteLabel.EXCHANGE)


class TopLevel(Struct, frozen=True):
    """Something beside all indexes: ``/index/``, ``/favicon.ico``, and ``/`` where no index is at the root."""

    path: str
    place: ClassVar[RequestPlace] = RequestPlace(None, None, RouteLabel.OVERVIEW)


class Slashless(Struct, frozen=True):
    """A folder of ours without the slash at its end; *location* is the relative URL with it, *index* the one that is there."""

    location: str
    index: str | None = None

    @property
    def place(self) -> RequestPlace:
        """What an answer is counted by."""
        return RequestPlace(self.index, None, RouteLabel.REDIRECT)


class Elsewhere(Struct, frozen=True):
    """The page of a project is asked for at *asked*, where no index is; the one that is meant is at *meant*.

    Both are paths of index URLs.  Where several may be meant, *meant* has the word ``NAME`` and lists their names.
    """

    asked: str
    meant: str


class NoRoute(Struct, frozen=True):
    """There is nothing; *why* is for the client.  *elsewhere* is for installers that take it for the page of a project."""

    why: str
    place: RequestPlace = _COUNTED_AS_NONE
    elsewhere: Elsewhere | None = None


Route = Below | OperationsRoute | ExchangeRoute | DiscoveryRoute | TopLevel | Slashless | NoRoute


class UrlSpace:
    """The paths of the indexes called *indexes*, the one named *default* also at the root.

    *patterns* are those below an index, the first that fits counts; ``{...}`` is one segment of that kind.
    """

    def __init__(self, patterns: Collection[str], indexes: Collection[str], default: str | None) -> None:
        self._patterns = [(pattern, tuple(pattern.split("/"))) for pattern in patterns]
        self._indexes = frozenset(indexes)
        self._default = default

    def route(self, path: bytes, shown: str) -> Route:
        """Where *path* leads, which is *shown* to the client as this text."""
        segments = split_path(path)
        route = self._route(segments, shown)
        if isinstance(route, NoRoute):
            match segments:
                case (*before, simple, project, "") if simple in _SIMPLE and is_project_name(project):
                    asked = shown.rsplit("/", 2)[0]
                    return replace(route, elsewhere=Elsewhere(f"{asked[:SHOWN]}/", self._meant(before)))
                # What old documentation calls an index: /pypi/.
                case ("pypi", project, "") if project not in _SIMPLE and is_project_name(project):
                    return replace(route, elsewhere=Elsewhere("/pypi/", self._meant(("pypi",))))
        return route

    def _meant(self, before: Sequence[str]) -> str:
        """The path of the index that is meant by the segments *before* ``simple/``."""
        names = sorted(self._indexes)
        named = [segment for segment in before if segment in self._indexes]
        if not named and self._default is not None and "index" not in before[:1]:
            named = [self._default]  # no name of ours that may be misspelt
        if not named and len(names) != 1:
            return f"{ANY_SIMPLE} (NAME: {', '.join(names)})"
        name = (named or names)[-1]  # the name of a folder, as in Artifactory's /api/pypi/NAME/, comes first
        return "/simple/" if name == self._default else f"{index_root(name)}simple/"

    def _route(self, segments: tuple[str, ...], shown: str) -> Route:
        match segments:
            case ("-" | "index" as folder,):
                return Slashless(f"{folder}/")
            case ("-", *rest):
                return OperationsRoute(tuple(rest))
            case ("_", "oidc", verb):
                return ExchangeRoute(verb, None)
            case ("index", name, "_", "oidc", verb) if name in self._indexes:
                return ExchangeRoute(verb, name)
            case (".well-known", "pytp", key):
                return DiscoveryRoute(key)
            case ("index", ""):
                return TopLevel(INDEXES)
            case ("favicon.ico",):
                return TopLevel("/favicon.ico")
            case ("index", name) if name in self._indexes:
                return Slashless(f"{quote(name)}/", name)
            case ("index", name, *rest):
                if name not in self._indexes:
                    there = ", ".join(sorted(self._indexes))
                    return NoRoute(f"there is no index named {name[:SHOWN]!r} here; there is {there}")
                return self._below(name, index_root(name), tuple(rest), shown)
            case _ if self._default is not None:
                return self._below(self._default, "/", segments, shown)
            case ("",):
                return TopLevel("/")
        return NoRoute(f"{shown[:SHOWN]}: no index is served at the root; indexes are at {ANY_SIMPLE}")

    def _below(self, index: str, root: str, segments: tuple[str, ...], shown: str) -> Route:
        area = segments[0] if segments and segments[0] in AREAS else None
        wrong = ""
        for pattern, parts in self._patterns:
            if len(parts) == len(segments) and all(map(_fits, parts, segments)):
                untrue = next((each for each in zip(parts, segments, strict=True) if not _is_true(*each)), None)
                if untrue is None:
                    values = tuple(text for part, text in zip(parts, segments, strict=True) if part in CLAIMS)
                    return Below(index, root, pattern, values, RequestPlace(index, area, _label(pattern, values)))
                wrong = wrong or f"{untrue[1][:SHOWN]!r} is no {untrue[0][1:-1]}"
        why = wrong or "there is nothing at this path"
        return NoRoute(
            f"{shown[:SHOWN]}: {why}; indexes are at /simple/ and {ANY_SIMPLE}",
            _COUNTED_AS_NONE if area is None else RequestPlace(index, area),
        )


def split_path(raw: bytes) -> tuple[str, ...]:
    """The segments of a request path, each percent-decoded (bad UTF-8 becomes U+FFFD); the leading empty one is dropped."""
    return tuple(unquote_to_bytes(segment).decode("utf-8", "replace") for segment in raw.split(b"/")[1:])


def _label(pattern: str, values: Sequence[str]) -> RouteLabel:
    """What a request at *pattern* is counted as."""
    label = _LABELS.get(pattern, RouteLabel.REDIRECT)
    if label is not RouteLabel.FILE:
        return label
    return next((companion for end, companion in _COMPANIONS.items() if values[-1].endswith(end)), label)


def _fits(part: str, text: str) -> bool:
    return part in CLAIMS or part == text


def _is_true(part: str, text: str) -> bool:
    return part not in CLAIMS or CLAIMS[part](text)

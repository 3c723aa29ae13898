"""Every complete answer held against the truth.

What ends properly must be right to the last byte; what cannot be had is a 503 that says when to ask again, or a refusal that
has a reason.  Answers that are cut off promise nothing and are only counted.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urljoin

import zstandard
from msgspec import Struct

from bench.damage.journal import Journal
from bench.damage.truth import TrueFile, TrueProject, Version, World
from tests.support.wire import Reply


class Listed(Struct, frozen=True):
    """A file as a page of the proxy lists it; ``size`` and ``metadata`` are ``None`` where the page says nothing."""

    filename: str
    path: str
    hashes: Mapping[str, str]
    size: int | None
    metadata: str | bool | None
    yanked: bool | str
    requires_python: str | None


class Verdicts:
    """Judges answers about *world* into *journal*.  *lied* says in which round upstream last lied about a subject."""

    def __init__(self, world: World, journal: Journal, lied: Callable[[str], int]) -> None:
        self._world = world
        self._journal = journal
        self._lied = lied
        #: The sha256 of the body that bore an ETag, by what was asked and the ETag.
        self._bodies: dict[tuple[str, str], str] = {}

    # -- what holds for all answers -------------------------------------------------------------------------------------------

    def judged(self, kind: str, subject: str, asked: str, reply: Reply, allowed: tuple[int, ...]) -> bool:
        """Count *reply*; whether it is complete, and a success that is to be looked into."""
        if not reply.complete or not reply.status:
            self._journal.events["answers cut off"] += 1
            self._journal.note(subject, f"{asked}: cut off, {reply.status} with {len(reply.body):,} bytes")
            return False
        known = reply.headers.get("cache-status", "-")
        self._journal.answered(kind, reply.status, subject, f"{asked}: {reply.status}, {len(reply.body):,} bytes, {known}")
        if reply.status == 503:
            if not re.fullmatch(r"[1-9]\d*", reply.headers.get("retry-after", "")):
                self._wrong("status", subject, f"{asked}: 503 with Retry-After {reply.headers.get('retry-after')!r}")
        elif reply.status not in allowed:
            self._wrong("status", subject, f"{asked}: {reply.status} {reply.reason[:200]}")
        return reply.status in (200, 206)

    def _wrong(self, kind: str, subject: str, what: str) -> None:
        self._journal.violated(kind, subject, what)

    def _same_under_etag(self, subject: str, asked: str, reply: Reply) -> None:
        etag = reply.headers.get("etag")
        if etag is not None and not etag.startswith("W/"):
            before = self._bodies.setdefault((asked, etag), reply.sha256)
            if before != reply.sha256:
                self._wrong("etag", subject, f"{asked}: other bytes than before under the ETag {etag}")

    def not_modified(self, subject: str, asked: str, reply: Reply, sent: str) -> None:
        """A 304 names the validator that it matches."""
        etag = reply.headers.get("etag")
        if etag is None or etag.removeprefix("W/") not in sent:
            self._wrong("validator", subject, f"{asked}: 304 with the ETag {etag} to If-None-Match: {sent}")

    # -- files ----------------------------------------------------------------------------------------------------------------

    def file(self, file: TrueFile, version: Version, asked: str, reply: Reply, purges: int, sent_etag: str = "") -> None:
        """An answer to a GET of all of *file*, at the URL that *version* has."""
        refusals = self._refusals(file)
        if sent_etag:
            refusals = (*refusals, 304)
        if not self.judged("file", file.subject, asked, reply, (200, *refusals)):
            if reply.complete and reply.status == 304:
                self.not_modified(file.subject, asked, reply, sent_etag)
            return
        found = self._version(file, version, reply.body)
        if reply.status != 200:
            self._wrong("status", file.subject, f"{asked}: {reply.status} to a request for all of it")
        elif not file.offered:
            self._wrong("digest", file.subject, f"{asked}: served, although its page states what cannot be a digest")
        elif found is None:
            self._wrong("bytes", file.subject, f"{asked}: 200 with wrong bytes: {_difference(reply.body, version.data)}")
        else:
            self._same_under_etag(file.subject, asked, reply)
            self._settled(file, found, asked, reply, purges)

    def _settled(self, file: TrueFile, found: Version, asked: str, reply: Reply, purges: int) -> None:
        if "hit" not in reply.headers.get("cache-status", ""):
            return
        settled = self._world.settled.get((file.project, file.filename))
        if settled is not None and settled != found.sha256 and self._world.purges.get(file.project, 0) == purges:
            self._wrong("pin", file.subject, f"{asked}: was stored as {settled[:8]} and is served as {found.sha256[:8]}")
        self._world.settle(file, found, purges)

    def _version(self, file: TrueFile, version: Version, body: bytes) -> Version | None:
        """The version that *body* is, of those that the URL of *version* stands for."""
        sha256 = hashlib.sha256(body).hexdigest()
        return next((each for each in file.those(file.segment(version)) if each.sha256 == sha256), None)

    def _refusals(self, file: TrueFile) -> tuple[int, ...]:
        """Which refusals have a reason: upstream denied having it, its digest has changed, it must not be offered."""
        project = self._world.projects[file.project]
        refusals: list[int] = []
        if not file.offered or file.subject in self._world.denied or project.kind in ("vanishing", "swapped"):
            refusals.append(404)
        if project.kind == "swapped":
            refusals.append(409)
        if file.since >= self._journal.round - 1:
            refusals.append(404)  # a page that is seconds old does not list it, and is not asked for again
        return (*refusals, *self._passed_on(file.subject), *self._passed_on(_page_of(file.project)))

    def _passed_on(self, subject: str) -> tuple[int, ...]:
        """403, if upstream has just answered that for *subject*."""
        return (403,) if self._world.forbidden.get(subject, -9) >= self._journal.round - 1 else ()

    def _replaced(self, file: TrueFile) -> bool:
        """Whether its metadata may be lost until an operator purges it: what was committed first is pinned, and upstream has
        other bytes under the same URL, which no digest tells apart.
        """
        return file.algorithm is None and len(file.versions) > 1

    def head(self, file: TrueFile, version: Version, asked: str, reply: Reply) -> None:
        """An answer to a HEAD."""
        if not self.judged("head", file.subject, asked, reply, (200, *self._refusals(file))) or not file.offered:
            return
        stated = reply.headers.get("content-length")
        sizes = {str(len(each.data)) for each in file.those(file.segment(version))}
        sure = file.sized or "hit" in reply.headers.get("cache-status", "")
        if stated is not None and stated not in sizes and (sure or not self._lately(file.subject)):
            self._wrong("length", file.subject, f"{asked}: Content-Length {stated}, it has {' or '.join(sorted(sizes))}")

    def range(self, file: TrueFile, version: Version, asked: str, reply: Reply, span: tuple[int | None, int | None]) -> None:
        """An answer to a GET of the bytes *span*: first and last, or ``None`` and a length, or first and ``None``."""
        if not self.judged("range", file.subject, asked, reply, (200, 206, 416, *self._refusals(file))):
            if reply.complete and reply.status == 416:
                self._unsatisfied(file, version, asked, reply, span)
            return
        those = file.those(file.segment(version))
        if not file.offered:
            self._wrong("digest", file.subject, f"{asked}: served, although its page states what cannot be a digest")
            return
        if reply.status == 200:
            if self._version(file, version, reply.body) is None:
                what = _difference(reply.body, version.data)
                self._wrong("bytes", file.subject, f"{asked}: 200 with wrong bytes: {what}")
            return
        etag = reply.headers.get("etag", "").strip('"')
        if len(etag) == 64 and file.algorithm is None:
            those = [each for each in those if each.sha256 == etag]  # it says which one it is a part of
        stated = reply.headers.get("content-range", "")
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", stated)
        if match is None:
            self._wrong("range", file.subject, f"{asked}: 206 with Content-Range {stated!r}")
            return
        start, last, size = map(int, match.groups())
        right = [each for each in those if size == len(each.data) and (start, last) == _wanted(span, size)]
        unverified = "no-store" in reply.headers.get("cache-control", "")
        if unverified and reply.headers.get("etag", "W/").startswith('"'):
            self._wrong("etag", file.subject, f"{asked}: an unverified range has a strong ETag")
        if unverified and (
            self._lately(file.subject) or any(reply.body == each.data[start : last + 1] for each in file.versions)
        ):
            # It says that nobody has verified it: upstream has lied, or has other bytes there than its page stated.
            self._journal.events["unverified ranges"] += 1
        elif not right:
            self._wrong("range", file.subject, f"{asked}: 206 with Content-Range {stated!r}; sizes {_sizes(those)}")
        elif not any(reply.body == each.data[start : last + 1] for each in right):
            what = _difference(reply.body, right[0].data[start : last + 1])
            self._wrong("bytes", file.subject, f"{asked}: 206 with wrong bytes ({stated}): {what}")

    def _unsatisfied(
        self, file: TrueFile, version: Version, asked: str, reply: Reply, span: tuple[int | None, int | None]
    ) -> None:
        sizes = [len(each.data) for each in file.those(file.segment(version))]
        if all(_wanted(span, size) is not None for size in sizes):
            stated = reply.headers.get("content-range")
            self._wrong("range", file.subject, f"{asked}: 416 ({stated}) although it has {sizes} bytes")

    def metadata(self, file: TrueFile, version: Version, asked: str, reply: Reply) -> None:
        """An answer to a GET of ``.metadata``."""
        refusals = self._refusals(file)
        if not file.is_wheel or self._replaced(file):
            refusals = (*refusals, 404)
        if not self.judged("metadata", file.subject, asked, reply, (200, *refusals)):
            return
        if not file.is_wheel:
            self._wrong("metadata", file.subject, f"{asked}: 200 for what is no wheel")
        elif not file.offered:
            self._wrong("digest", file.subject, f"{asked}: served, although its page states what cannot be a digest")
        elif not any(reply.body == each.metadata for each in file.those(file.segment(version))):
            self._wrong("metadata", file.subject, f"{asked}: not the wheel's: {reply.body[:60]!r}, {len(reply.body):,} bytes")

    def refused(self, file: TrueFile, asked: str, reply: Reply) -> None:
        """An answer to a request for *file* under a digest that it never had."""
        if self.judged("wrong digest", file.subject, asked, reply, (404, 409)):
            self._wrong("digest", file.subject, f"{asked}: {reply.status} under a digest that it never had")

    def _lately(self, subject: str) -> bool:
        """Whether upstream may have lied about it in a request that is answered now."""
        return self._lied(subject) >= self._journal.round - 1

    # -- pages and documents --------------------------------------------------------------------------------------------------

    def page(self, project: TrueProject, asked: str, reply: Reply, purges: int, sent_etag: str = "") -> None:
        """An answer to a GET of a project page, in whatever media type and coding."""
        subject = _page_of(project.name)
        allowed = (*((200, 304) if sent_etag else (200,)), *self._passed_on(subject))
        if project.kind == "vanishing":
            allowed = (*allowed, 404)
        if not self.judged("page", subject, asked, reply, allowed):
            if reply.complete and reply.status == 304:
                self.not_modified(subject, asked, reply, sent_etag)
            return
        try:
            listed = _listed(f"/simple/{project.name}/", reply)
        except (ValueError, LookupError, TypeError, OSError, zstandard.ZstdError) as error:
            self._wrong("page", subject, f"{asked}: cannot be read: {error!r}")
            return
        self._same_under_etag(subject, asked, reply)
        names = frozenset(each.filename for each in listed)
        if names not in project.listings or len(names) != len(listed):
            expected = project.listings[-1]
            lacks, has = sorted(expected - names)[:3], sorted(names - expected)[:3]
            self._wrong("page", subject, f"{asked}: lists {len(listed)} files of {len(expected)}: lacks {lacks}, has {has}")
            return
        for each in listed:
            self._entry(project, project.files[each.filename], each, asked, purges)

    def _entry(self, project: TrueProject, file: TrueFile, listed: Listed, asked: str, purges: int) -> None:
        those = [
            each for each in file.versions if file.url(each) == listed.path or file.url(each, root="/packages/") == listed.path
        ]
        for algorithm, digest in listed.hashes.items():
            those = [each for each in those if each.stated(algorithm) == digest]
        if file.algorithm is not None and not listed.hashes:
            those = []
        wrong = []
        if not those:
            wrong.append(f"link {listed.path[-80:]} with {dict(listed.hashes)}")
        elif listed.size is not None and listed.size not in [len(each.data) for each in file.versions]:
            wrong.append(f"size {listed.size}")
        metadata = listed.metadata
        if isinstance(metadata, str) and metadata not in _digests_of_metadata(file):
            wrong.append(f"metadata {metadata}")
        if metadata is False and file.is_wheel and not self._replaced(file):
            wrong.append("no metadata")
        if listed.yanked != file.yanked:
            wrong.append(f"yanked {listed.yanked!r}")
        if listed.requires_python != file.requires_python:
            wrong.append(f"requires-python {listed.requires_python!r}")
        settled = self._world.settled.get((file.project, file.filename))
        if (
            file.algorithm is not None
            and those
            and settled not in (None, *(each.sha256 for each in those))
            and self._world.purges.get(project.name, 0) == purges
        ):
            wrong.append(f"digest {those[0].sha256[:8]} where {str(settled)[:8]} was stored")
        if wrong:
            self._wrong("page entry", file.subject, f"{asked}: {', '.join(wrong)}")

    def legacy(self, project: TrueProject, asked: str, reply: Reply) -> None:
        """An answer to a GET of ``/pypi/<project>/json``."""
        subject = f"/pypi/{project.name}/json"
        if not self.judged("legacy", subject, asked, reply, (200, 404) if project.kind == "vanishing" else (200,)):
            return
        try:
            document = json.loads(_decoded(reply))
            entries = [*document["urls"], *(each for those in document["releases"].values() for each in those)]
            listed = [
                Listed(
                    each["filename"],
                    _path_of(each["url"]),
                    {name: value for name, value in each["digests"].items() if value is not None},
                    each.get("size"),
                    None,
                    False,
                    None,
                )
                for each in entries
            ]
        except (ValueError, LookupError, TypeError, OSError) as error:
            self._wrong("legacy", subject, f"{asked}: cannot be read: {error!r}")
            return
        for each in listed:
            file = project.files.get(each.filename)
            if file is None or not file.offered:
                self._wrong("legacy", subject, f"{asked}: lists {each.filename}")
                continue
            those = [one for one in file.versions if file.url(one, root="/packages/") == each.path]
            if not any(all(one.stated(name) == value for name, value in each.hashes.items()) for one in those):
                self._wrong("legacy", subject, f"{asked}: {each.filename} at {each.path} with {dict(each.hashes)}")

    def names(self, asked: str, reply: Reply) -> None:
        """An answer to a GET of the list of all projects."""
        if not self.judged("list", "/simple/", asked, reply, (200,)):
            return
        try:
            body = _decoded(reply)
            if "json" in reply.headers.get("content-type", ""):
                names = [each["name"] for each in json.loads(body)["projects"]]
            else:
                names = [anchor.text for anchor in _anchors(body.decode())]
        except (ValueError, LookupError, TypeError, OSError, zstandard.ZstdError) as error:
            self._wrong("list", "/simple/", f"{asked}: cannot be read: {error!r}")
            return
        if sorted(names) != sorted(self._world.projects):
            self._wrong("list", "/simple/", f"{asked}: {len(names)} projects of {len(self._world.projects)}")


def _wanted(span: tuple[int | None, int | None], size: int) -> tuple[int, int] | None:
    """First and last byte of *span* in *size* bytes, ``None`` when there is none."""
    first, last = span
    if first is None:
        return (max(0, size - (last or 0)), size - 1) if last else None
    return (first, min(size - 1, size - 1 if last is None else last)) if first < size else None


def _sizes(those: list[Version]) -> list[int]:
    return [len(each.data) for each in those]


def _difference(body: bytes, right: bytes) -> str:
    """Where *body* differs from what would be right."""
    place = next((at for at, (one, other) in enumerate(zip(body, right, strict=False)) if one != other), None)
    where = "equal as far as both go" if place is None else f"first difference at {place:,}"
    return f"{len(body):,} bytes where {len(right):,} are right, {where}, begins {body[:16]!r}"


def _digests_of_metadata(file: TrueFile) -> list[str]:
    return [hashlib.sha256(each.metadata).hexdigest() for each in file.versions if each.metadata is not None]


def _decoded(reply: Reply) -> bytes:
    """The body without its content coding.  Raises what decoders do."""
    match reply.headers.get("content-encoding", "identity"):
        case "identity":
            return reply.body
        case "gzip":
            return gzip.decompress(reply.body)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(reply.body)
        case other:
            raise ValueError(f"in the content coding {other!r}")


def _listed(base: str, reply: Reply) -> list[Listed]:
    """The files of a page at *base*.  Raises ValueError, LookupError, TypeError and what decoders do."""
    body = _decoded(reply)
    if "json" not in reply.headers.get("content-type", ""):
        if b"</html>" not in body[-200:]:
            raise ValueError(f"it ends in {body[-40:]!r}")
        return [_from_anchor(base, each) for each in _anchors(body.decode())]
    return [
        Listed(
            each["filename"],
            _path_of(urljoin(base, each["url"])),
            each["hashes"],
            each.get("size"),
            _stated_metadata(each.get("core-metadata")),
            each.get("yanked", False),
            each.get("requires-python"),
        )
        for each in json.loads(body)["files"]
    ]


def _stated_metadata(stated: Any) -> str | bool | None:
    return str(stated["sha256"]) if isinstance(stated, dict) else stated


def _path_of(url: str) -> str:
    """The path of *url* as `TrueFile.url` writes it: the name quoted in the one way that the standard library quotes."""
    path = re.sub(r"^https?://[^/]*", "", url)
    folder, _, name = path.rpartition("/")
    return f"{folder}/{quote(unquote(name))}"


class _Anchor(Struct, frozen=True):
    attributes: Mapping[str, str]
    text: str


class _Anchors(HTMLParser):
    """Collects the links of a page with their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Anchor] = []
        self._open: dict[str, str] | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._open, self._text = {name: value or "" for name, value in attrs}, ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open is not None:
            self.found.append(_Anchor(self._open, self._text.strip()))
            self._open = None


def _anchors(text: str) -> list[_Anchor]:
    parser = _Anchors()
    parser.feed(text)
    parser.close()
    return parser.found


def _from_anchor(base: str, anchor: _Anchor) -> Listed:
    attributes = anchor.attributes
    url, fragment = urldefrag(urljoin(base, attributes["href"]))
    algorithm, _, digest = fragment.partition("=")
    metadata = attributes.get("data-core-metadata")
    stated: str | bool | None = metadata.partition("=")[2] or metadata == "true" if metadata is not None else None
    yanked = attributes.get("data-yanked")
    return Listed(
        anchor.text,
        _path_of(url),
        {algorithm: digest} if digest else {},
        None,
        stated,
        False if yanked is None else yanked or True,
        attributes.get("data-requires-python"),
    )


def _page_of(project: str) -> str:
    """What the page of *project* is called in the journal."""
    return f"page of {project}"

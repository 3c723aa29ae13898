"""In-memory twins of the ports that floors above storage and upstream are tested with."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from proxy.errors import NotFound
from proxy.interfaces import IBodyReader, ISink, IUpstreams, Receive
from proxy.model import (
    Condition,
    DocumentFound,
    DocumentReply,
    File,
    FileFacts,
    Head,
    Page,
    PageFound,
    PageMissing,
    PageReply,
    Record,
    Validators,
    Wanted,
    body_digest,
)
from proxy.settings import KIB

BASE = "https://pypi.example/simple/"


def found(project: str, files: list[File], now: float, serial: int | None = None, **head: Any) -> PageFound:
    """A page as an upstream of the name ``pypi`` would deliver it, its body real PEP 691 JSON."""
    document = {
        "meta": {"api-version": "1.0"},
        "name": project,
        "files": [{"filename": file.filename, "url": file.url, "hashes": dict(file.hashes)} for file in files],
    }
    body = msgspec.json.encode(document)
    record = _record(f"{BASE}{project}/", body, now, "application/vnd.pypi.simple.v1+json", serial=serial, **head)
    return PageFound(record, Page(project, tuple(files)))


def _record(url: str, body: bytes, now: float, content_type: str, **head: Any) -> Record:
    digest = body_digest(body)
    return Record(Head(True, "pypi", url, now, digest, content_type, f'"{digest[:8]}"', **head), body)


@implementer(IBodyReader)
class Part:
    """A part of what a twin has in memory, in pieces."""

    def __init__(self, facts: FileFacts, left: bytes) -> None:
        self.facts = facts
        self.left = left
        self.length = len(left)

    async def read(self) -> bytes:
        piece, self.left = self.left[:KIB], self.left[KIB:]
        return piece

    def close(self) -> None:
        self.left = b""


@implementer(IUpstreams)
class ScriptedUpstreams(Struct):
    """Upstreams whose every answer the test gives: each page request and fetch waits in a list until it is answered.

    What needs no waiting has its answers beforehand: *stock* are the bytes of files by name, *documents* are JSON objects by
    path or URL; *names* is the list of projects.
    """

    state: Condition = Condition.UP
    pause: float = 0.0
    told_slow: int = 0
    pages: list[tuple[str, Validators | None, Deferred[PageReply]]] = field(default_factory=list)
    fetches: list[tuple[Wanted, ISink, Deferred[None]]] = field(default_factory=list)
    stock: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    names: bytes = b""
    distrusted: list[tuple[str, str]] = field(default_factory=list)
    preferred: set[str] = field(default_factory=set)

    def condition(self) -> Condition:
        return self.state

    def retry_in(self) -> float:
        return self.pause

    def spare(self) -> bool:
        return self.state is Condition.UP

    def outranks(self, upstream: str, other: str) -> bool:
        return upstream in self.preferred

    def distrust(self, upstream: str, why: str) -> None:
        self.distrusted.append((upstream, why))

    def last_modified(self) -> float | None:
        return None

    def slow(self, waited: float) -> None:
        self.told_slow += 1
        self.state = Condition.SUSPECT

    async def page(self, project: str, known: Validators | None) -> PageReply:
        answer: Deferred[PageReply] = Deferred()
        self.pages.append((project, known, answer))
        return await answer

    async def document(self, path: str, known: Validators | None) -> DocumentReply:
        return self._document(path)

    async def companion(self, wanted: Wanted, known: Validators | None) -> DocumentReply:
        return self._document(wanted.url)

    def _document(self, place: str) -> DocumentReply:
        body = self.documents.get(place)
        if body is None:
            return PageMissing("pypi", place, 0.0)
        return DocumentFound(_record(place, body, 0.0, "application/json"))

    async def projects(self, known: Validators | None, receive: Receive) -> DocumentReply:
        pieces = iter((self.names, b""))

        async def read() -> bytes:
            return next(pieces)

        digest, serial = await receive("application/vnd.pypi.simple.v1+json", read)
        return DocumentFound(Record(Head(True, "pypi", BASE, 0.0, digest, serial=serial), b""))

    async def fetch(self, wanted: Wanted, sink: ISink) -> None:
        done: Deferred[None] = Deferred()
        self.fetches.append((wanted, sink, done))
        await done
        await sink.finish()

    async def facts(self, wanted: Wanted) -> FileFacts:
        return FileFacts(len(self._stocked(wanted)))

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        data = self._stocked(wanted)
        return Part(FileFacts(len(data)), data[start:stop])

    def _stocked(self, wanted: Wanted) -> bytes:
        if wanted.name not in self.stock:
            raise NotFound(wanted.name)
        return self.stock[wanted.name]

    async def close(self) -> None:
        self.pages.clear()
        self.fetches.clear()

    # -- what tests say

    def answer(self, reply: PageReply | Exception, at: int = -1) -> None:
        """Answer a waiting page request (the last one asked)."""
        answer = self.pages[at][2]
        if isinstance(reply, Exception):
            answer.errback(reply)
        else:
            answer.callback(reply)

    def deliver(self, data: bytes, at: int = -1) -> None:
        """Deliver *data* as the whole of a waiting fetch."""
        _, sink, done = self.fetches[at]
        sink.begin(FileFacts(len(data)))
        sink.write(data)
        done.callback(None)

"""Answers to requests seen before: no coroutine, no request object, one write.

Theory of operation. The agents of a farm ask for the same pages and files over and over. A route that answers a plain GET
may give a :data:`~proxy.web.answers.Source` with its answer: a function that says at once what the answer is *now*, or that
it cannot say at once. It is kept under what the request *means*: its target and the three headers that pages and files depend
on. What is remembered is how to answer, never the answer: freshness, pins and policy are asked each time. Requests that are
the same to the last byte, as those of one client on one image are, are not even looked into a second time; the bytes that are
known are those of heads that :mod:`proxy.web.heads` has taken.
"""

from __future__ import annotations

from collections.abc import Hashable

from attrs import define, field, frozen

from proxy.bounded import BoundedTable
from proxy.interfaces import Clock
from proxy.web.answers import Answer, Ask, Source, printable
from proxy.web.encoding import encoded_head
from proxy.web.heads import RequestHead

#: Requests longer than this are not remembered (bytes).
_LONGEST = 4096


@define
class _Known:
    """How to answer a request, and the head of its last answer, good for one second."""

    source: Source
    path: str
    name: Hashable = None
    second: int = -1
    head: bytes = b""
    answer: Answer | None = None


@frozen(slots=True)
class Hit:
    """A finished answer: ``head`` ends with the empty line, ``body`` is bytes; *path* and *agent* are for the log."""

    path: str
    agent: str
    answer: Answer
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)


#: Target, ``Accept``, ``Accept-Encoding`` and ``If-None-Match`` of a request.
Meaning = tuple[bytes, bytes, bytes, bytes]

_MATTERS = (b"accept", b"accept-encoding", b"if-none-match", b"user-agent")
#: Headers that no answer to a GET depends on.
_OF_NO_MATTER = frozenset(
    {
        b"host",
        b"accept-language",
        b"dnt",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
    }
)


def meaning(head: RequestHead) -> tuple[Meaning, bytes] | None:
    """What a GET without a body asks for, and its ``User-Agent``; ``None`` when anything else in it might matter."""
    if head.method != b"GET" or head.minor != 1:
        return None
    depends: dict[bytes, bytes] = {}
    for name, value in head.fields:
        if name in _MATTERS:
            if name in depends:
                return None  # twice: let the long way make sense of it
            depends[name] = value
        elif name == b"connection":
            if value.lower() != b"keep-alive":
                return None
        elif name == b"cache-control":
            if b"no-" in value.lower():
                return None
        elif name not in _OF_NO_MATTER:
            return None
    accept, coding, known, agent = (depends.get(name, b"") for name in _MATTERS)
    return (head.target, accept, coding, known), agent


class HotRequests:
    """The remembered requests, at most *memory* bytes of them.  *via* goes into each ``Via``, *clock* tells each ``Date``."""

    def __init__(self, clock: Clock, via: str, memory: int) -> None:
        self._clock = clock
        self._via = via
        self._by_meaning: BoundedTable[Meaning, _Known] = BoundedTable(memory // 2, lambda known: _LONGEST)
        self._by_bytes: BoundedTable[bytes, tuple[_Known, str]] = BoundedTable(memory // 2, lambda known: _LONGEST)

    def remember(self, ask: Ask, source: Source) -> None:
        """Let *source* answer from now on what *ask* asked, if it is a request that can be remembered."""
        head = ask.head
        if len(head.raw) > _LONGEST or (meant := meaning(head)) is None:
            return
        known = _Known(source, ask.target)
        self._by_meaning.put(meant[0], known)
        self._by_bytes.put(head.raw, (known, printable(meant[1]) or "-"))

    def seen(self, raw: bytes) -> Hit | None:
        """The answer to the request with the head *raw*, if these very bytes are known and it can be given at once."""
        found = self._by_bytes.get(raw)
        return None if found is None else self._answer(*found)

    def answer(self, head: RequestHead) -> Hit | None:
        """The answer to the request *head*, if what it means is known and it can be given at once."""
        if len(head.raw) > _LONGEST or (meant := meaning(head)) is None or (known := self._by_meaning.get(meant[0])) is None:
            return None
        agent = printable(meant[1]) or "-"
        self._by_bytes.put(head.raw, (known, agent))
        return self._answer(known, agent)

    def _answer(self, known: _Known, agent: str) -> Hit | None:
        ready = known.source()
        if ready is None:
            return None
        name, make = ready
        second = int(self._clock())
        if known.answer is None or known.second != second or known.name != name:
            known.answer = make()
            known.name = name
            known.second = second
            known.head = encoded_head(known.answer, self._via)
        body = known.answer.body
        assert isinstance(body, bytes)
        return Hit(known.path, agent, known.answer, known.head, body)

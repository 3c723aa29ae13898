"""Answers to requests seen before: no coroutine, no response object, one write.

Theory of operation. The agents of a farm ask for the same pages and files over and over. A route that answers a plain GET
may give a :data:`~proxy.web.answers.AnswerSource` with its answer: a function that says at once what the answer is *now*, or
that it cannot say at once. It is kept under what the request *means*: its target and the three headers that pages and files
depend on. What is remembered is how to answer, never the answer: freshness, ledger and policy are asked each time.

A request is recognised in four ways, the cheapest first: by its very bytes, as those of one client on one image are; by its
bytes without the line that names the client (:func:`without_agent`) or without all lines of no matter (:func:`essence`), as
those of clients that say different things about themselves are; and by what it means, once :mod:`proxy.web.heads` has parsed
it. All but the last know only bytes that came from heads which that module has taken, so that none of them can take a request
that it refuses.

A credential is no part of what a request means: its line is left out first, and each remembered answer asks the door whether
who sent it may have the answer now.  So what is remembered is the same for all, and there are no credentials in it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

from msgspec import Struct

from proxy.core.bounded import BoundedTable
from proxy.core.events import Answered
from proxy.core.visits import Subject
from proxy.core.warming import marks
from proxy.interfaces import Clock
from proxy.representing import repr_without
from proxy.web.answers import PLAIN, Answer, AnswerSource, Ask, agent_of, printable, quoted
from proxy.web.callers import Caller, separated
from proxy.web.door import Door, Question
from proxy.web.encoding import encoded_head
from proxy.web.heads import END, MOST_FIELDS, RequestHead
from proxy.web.routes import Route
from proxy.web.subjects import subject_of

#: Requests longer than this are not remembered (bytes).
_LONGEST = 4096
#: How many of those that were recognised by their essence are told from new ones.
_NOTICED = 4096


class _Known(Struct):
    """How to answer a request, and its last answer, whose head is good for one second."""

    source: AnswerSource
    path: str
    route: Route
    question: Question | None
    subject: Subject | None
    name: Hashable = None
    second: int = -1
    hit: Hit | None = None


class Hit(Struct, frozen=True):
    """A finished answer: ``head`` ends with the empty line, ``body`` is ``None`` for a file.

    *path* is for the log, *event* is recorded if it is sent with one write, and counted by *subject*.
    """

    path: str
    event: Answered
    subject: Subject | None
    answer: Answer
    head: bytes
    body: bytes | None

    __repr__ = repr_without("head", "body")


#: Target, ``Accept``, ``Accept-Encoding`` and ``If-None-Match`` of a request.
Meaning = tuple[bytes, bytes, bytes, bytes]

_MATTERS = (b"accept", b"accept-encoding", b"if-none-match")
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
        b"user-agent",
    }
)


#: How nearly all clients begin the line that names them.
_AGENT_LINE = b"\r\nUser-Agent: "


def _in_any_case(name: bytes) -> bytes:
    """An expression for the field *name* as clients write it, each word with a capital or without."""
    words = [b"[%c%c]%b" % (*word[:1].upper(), *word[:1], word[1:]) for word in name.split(b"-")]
    return b"-".join(words)


_OTHERS = b"|".join(map(_in_any_case, sorted(_OF_NO_MATTER - {b"host", b"user-agent"})))
#: A whole line of no matter, with the value if it is a ``User-Agent``; no value can be taken for the end of a line (RFC 9112
#: section 5).
_LINE_OF_NO_MATTER = re.compile(
    rb"\r\n(?:[Uu]ser-[Aa]gent:([\t -~\x80-\xff]*+)|(?:" + _OTHERS + rb"):[\t -~\x80-\xff]*+)(?=\r\n)"
)


def without_agent(raw: bytes) -> tuple[bytes, str] | None:
    """The head *raw* without its first ``User-Agent`` line as most clients write it, and what that says, fit for a log.

    ``None`` without such a line.  As with :func:`essence`, if what is left is what is left of a head which was taken, so is
    *raw*: the value has no control characters.
    """
    start = raw.find(_AGENT_LINE)
    if start < 0 or len(raw) > _LONGEST:
        return None
    end = raw.find(b"\r\n", start + 2)
    said = raw[start + len(_AGENT_LINE) : end]
    # An empty line before it would be left in what is left, and known heads have one at their end only; but not if the line
    # ends what came.
    if end < 0 or end + len(END) > len(raw) or said.translate(None, PLAIN):
        return None
    return raw[:start] + raw[end:], quoted(said.strip(b" ")) or "-"


def essence(raw: bytes) -> tuple[bytes, str] | None:
    """The head *raw* without its lines of no matter, and its ``User-Agent``, fit for a log.

    ``None`` if that says nothing about the rest of it.  If what is left is what is left of a head which was taken, so is *raw*:
    whole lines have been left out, and nothing else.
    """
    if len(raw) > _LONGEST or raw.find(END) != len(raw) - len(END) or raw.count(b"\r\n") > MOST_FIELDS:
        return None
    parts = _LINE_OF_NO_MATTER.split(raw)
    agents = [each for each in parts[1::2] if each is not None]
    return b"".join(parts[::2]), (printable(agents[0].strip(b" \t")) or "-") if agents else agent_of(raw)


def meaning(head: RequestHead) -> Meaning | None:
    """What a GET without a body asks for; ``None`` when anything else in it might matter."""
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
        elif name == b"authorization":
            if marks(value) or name in depends:
                return None  # what the proxy asks itself is counted by another name
            depends[name] = value
        elif name not in _OF_NO_MATTER:
            return None
    accept, coding, known = (depends.get(name, b"") for name in _MATTERS)
    return head.target, accept, coding, known


class HotRequests:
    """The remembered requests, at most *memory* bytes of them.  *via* goes into each ``Via``, *clock* tells each ``Date``.

    *door* is asked who may have each answer.
    """

    def __init__(self, clock: Clock, via: str, memory: int, door: Door | None = None) -> None:
        self._clock = clock
        self._via = via
        self._door = door or Door()

        #: With what each request says of its sender, fit for a log.
        self._by_bytes: BoundedTable[bytes, tuple[_Known, str]] = BoundedTable(memory // 4, lambda known: _LONGEST)
        self._by_rest: BoundedTable[bytes, _Known] = BoundedTable(memory // 4, lambda known: _LONGEST)
        self._by_essence: BoundedTable[bytes, _Known] = BoundedTable(memory // 4, lambda known: _LONGEST)
        self._by_meaning: BoundedTable[Meaning, _Known] = BoundedTable(memory // 4, lambda known: _LONGEST)
        #: Hashes of what was recognised by a part of its bytes: what comes again is worth knowing by all of them.
        self._once: set[int] = set()

    def remember(self, ask: Ask, source: AnswerSource) -> None:
        """Let *source* answer from now on what *ask* asked, if it is a request that can be remembered."""
        bare = _bare(ask.head)
        there = None if bare is None else self._by_bytes.get(bare)
        if there is not None:
            # Many who ask for what is new at one moment are answered the long way, one after another.
            there[0].source, there[0].hit = source, None
            return
        if len(ask.head.raw) > _LONGEST or (meant := meaning(ask.head)) is None:
            return
        known = _Known(source, ask.target, ask.route, self._door.question(ask.route, "GET"), subject_of(ask.route))
        self._by_meaning.put(meant, known)
        self._learn(ask.head, known)

    def seen(self, raw: bytes, caller: Caller) -> tuple[Hit, str] | None:
        """The answer to the request of *caller* with the head *raw*, and its ``User-Agent``, fit for a log.

        ``None`` if its bytes are not known, or the answer cannot be given at once.
        """
        found, credential = self._by_bytes.get(raw), None
        if found is None:
            raw, credential = separated(raw)
            if credential is not None:
                found = self._by_bytes.get(raw)
        if found is None:
            found = self._recognised(raw, without_agent(raw), self._by_rest) or self._recognised(
                raw, essence(raw), self._by_essence
            )
            if found is None:
                return None
        hit = self._answer(found[0], credential, caller)
        return None if hit is None else (hit, found[1])

    def _recognised(
        self, raw: bytes, part: tuple[bytes, str] | None, table: BoundedTable[bytes, _Known]
    ) -> tuple[_Known, str] | None:
        """What is known of the head *raw* by a *part* of it, the bytes that matter, beside which stands its ``User-Agent``."""
        if part is None or (known := table.get(part[0])) is None:
            return None
        found = known, part[1]
        self._noticed(raw, found)
        return found

    def answer(self, head: RequestHead, caller: Caller) -> tuple[Hit, str] | None:
        """The answer to the request *head* of *caller*, if what it means is known; else as :meth:`seen`."""
        if len(head.raw) > _LONGEST or (meant := meaning(head)) is None:
            return None
        known = self._by_meaning.get(meant)
        if known is None:
            return None
        agent = self._learn(head, known)
        hit = self._answer(known, _credential(head), caller)
        return None if hit is None else (hit, agent)

    def knows(self, meant: Meaning) -> bool:
        """Whether a request that means *meant* is remembered."""
        return self._by_meaning.get(meant) is not None

    def question(self, route: Route) -> Question | None:
        """What a GET at *route* asks of the door."""
        return self._door.question(route, "GET")

    def lets_in(self, question: Question | None, head: RequestHead, caller: Caller) -> bool:
        """Whether *caller*, who sends *head*, may have the answer to *question*, as far as that is known without waiting."""
        return self._door.lets_in(question, _credential(head), caller)

    def _learn(self, head: RequestHead, known: _Known) -> str:
        bare = _bare(head)
        if bare is None:
            return agent_of(head.raw)
        there = self._by_bytes.get(bare)
        if there is not None and there[0] is known:
            return there[1]  # what it asks for could not be answered at once
        agent = agent_of(bare)
        self._by_bytes.put(bare, (known, agent))
        for part, table in ((without_agent(bare), self._by_rest), (essence(bare), self._by_essence)):
            if part is not None:
                table.put(part[0], known)
        return agent

    def _noticed(self, raw: bytes, found: tuple[_Known, str]) -> None:
        """Keep *raw* by its bytes when it comes for the second time; most that differ in some line never do."""
        mark = hash(raw)
        if mark in self._once:
            self._once.discard(mark)
            self._by_bytes.put(raw, found)
            return
        if len(self._once) >= _NOTICED:
            self._once.clear()
        self._once.add(mark)

    def _answer(self, known: _Known, credential: bytes | None, caller: Caller) -> Hit | None:
        if not self._door.lets_in(known.question, credential, caller):
            return None
        ready = known.source()
        if ready is None:
            return None
        name, make = ready
        second = int(self._clock())
        hit = known.hit
        if hit is None or known.second != second or known.name != name:
            answer = make()
            event = Answered("GET", answer.status, answer.length or 0, 0.0, answer.word, known.route.place)
            body = answer.body if isinstance(answer.body, bytes) else None
            known.hit = hit = Hit(known.path, event, known.subject, answer, encoded_head(answer, self._via), body)
            known.name = name
            known.second = second
        return hit


def _credential(head: RequestHead) -> bytes | None:
    return next((value for name, value in head.fields if name == b"authorization"), None)


def _bare(head: RequestHead) -> bytes | None:
    """The bytes of *head* without a credential; ``None`` where it cannot be told from them."""
    if not any(name == b"authorization" for name, _ in head.fields):
        return head.raw
    bare, credential = separated(head.raw)
    return bare if credential is not None and b"\r\nauthorization:" not in bare.lower() else None

"""Answers to requests seen before: no coroutine, no response object, one write.

Theory of operation. The agents of a farm ask for the same pages and files over and over. A route that answers a plain GET
may give a :data:`~proxy.web.answers.AnswerSource` with its answer: a function that says at once what the answer is *now*, or
that it cannot say at once. It is kept under what the request *means*: its target and the three headers that pages and files
depend on. What is remembered is how to answer, never the answer: freshness, ledger and policy are asked each time. A source
that fails is forgotten, and the route is asked.

A request is recognised in three ways, the cheapest first: by its very bytes, as those of one client on one image are; by its
bytes without lines of no matter (:mod:`proxy.web.essence`), as those of clients that say different things about themselves, or
send a credential, are; and by what it means, once :mod:`proxy.web.heads` has parsed it.  The first two know only bytes that
came from heads which that module has taken, so that none of them can take a request that it refuses.

A credential is no part of what a request means: its line is left out first, and each remembered answer asks the door whether
who sent it may have the answer now.  So what is remembered is the same for all, and there are no credentials in it.
"""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.bounded import BoundedTable
from proxy.core.events import Answered
from proxy.core.visits import Subject
from proxy.core.warming import marks
from proxy.errors import ProxyError
from proxy.interfaces import Clock
from proxy.representing import repr_without
from proxy.web.answers import Answer, AnswerSource, Ask
from proxy.web.callers import Caller
from proxy.web.door import Door, Question
from proxy.web.encoding import encoded_head
from proxy.web.essence import LONGEST, OF_NO_MATTER, Essence, Habit, essence
from proxy.web.heads import RequestHead
from proxy.web.routes import Route
from proxy.web.subjects import subject_of
from proxy.web.user_agents import UserAgent, user_agent, user_agent_of

#: How many of those that were recognised by their essence are told from new ones.
_NOTICED = 4096

_errors = Logger(namespace="proxy.web")


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
        elif name != b"host" and name not in OF_NO_MATTER:
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

        #: With who sends each request.
        self._by_bytes: BoundedTable[bytes, tuple[_Known, UserAgent]] = BoundedTable(memory // 3, lambda known: LONGEST)
        self._by_essence: BoundedTable[bytes, _Known] = BoundedTable(memory // 3, lambda known: LONGEST)
        self._by_meaning: BoundedTable[Meaning, _Known] = BoundedTable(memory // 3, lambda known: LONGEST)
        #: Hashes of what was recognised by its essence: what comes again is worth knowing by all of them.
        self._once: set[int] = set()

    def remember(self, ask: Ask, source: AnswerSource) -> None:
        """Let *source* answer from now on what *ask* asked, if it is a request that can be remembered."""
        raw = ask.head.raw
        part = essence(raw)
        known = self._known(raw, part)
        if known is not None:
            # Many who ask for what is new at one moment are answered the long way, one after another.
            known.source, known.hit = source, None
            return
        if len(raw) > LONGEST or (meant := meaning(ask.head)) is None:
            return
        known = _Known(source, ask.target, ask.route, self._door.question(ask.route, "GET"), subject_of(ask.route))
        self._by_meaning.put(meant, known)
        self._learn(ask.head, part, known)

    def _known(self, raw: bytes, part: Essence | None) -> _Known | None:
        """What is known of the head *raw* by its bytes, or by its essence *part*."""
        found = self._by_bytes.get(raw)
        if found is not None:
            return found[0]
        return None if part is None else self._by_essence.get(part[0])

    def seen(self, raw: bytes, caller: Caller, habit: Habit) -> tuple[Hit, UserAgent] | None:
        """The answer to the request of *caller*, who has the *habit*, with the head *raw*, and who sends it.

        ``None`` if its bytes are not known, or the answer cannot be given at once.
        """
        found, credential = self._by_bytes.get(raw), None
        if found is None:
            usual = habit.essence(raw)
            known = None if usual is None else self._by_essence.get(usual[0])
            if usual is None or known is None:
                part = essence(raw)
                if part is None or (known := self._by_essence.get(part[0])) is None:
                    return None
                habit.learn(raw)
                usual = part[0], user_agent(part[1]), part[2]
            _, program, credential = usual
            found = known, program
            if credential is None:
                self._noticed(raw, found)
        hit = self._answer(found[0], credential, caller)
        return None if hit is None else (hit, found[1])

    def answer(self, head: RequestHead, caller: Caller) -> tuple[Hit, UserAgent] | None:
        """The answer to the request *head* of *caller*, if what it means is known; else as :meth:`seen`."""
        if len(head.raw) > LONGEST or (meant := meaning(head)) is None:
            return None
        known = self._by_meaning.get(meant)
        if known is None:
            return None
        part = essence(head.raw)
        if self._known(head.raw, part) is not known:  # else what it asks for could not be answered at once
            self._learn(head, part, known)
        hit = self._answer(known, _credential(head), caller)
        return None if hit is None else (hit, user_agent_of(head))

    def knows(self, meant: Meaning) -> bool:
        """Whether a request that means *meant* is remembered."""
        return self._by_meaning.get(meant) is not None

    def question(self, route: Route) -> Question | None:
        """What a GET at *route* asks of the door."""
        return self._door.question(route, "GET")

    def lets_in(self, question: Question | None, head: RequestHead, caller: Caller) -> bool:
        """Whether *caller*, who sends *head*, may have the answer to *question*, as far as that is known without waiting."""
        return self._door.lets_in(question, _credential(head), caller)

    def _learn(self, head: RequestHead, part: Essence | None, known: _Known) -> None:
        """Recognise *head*, whose essence is *part*, by its bytes from now on, unless a credential is among these."""
        if part is None:
            return
        left, said, credential = part
        if credential is None:
            if any(name == b"authorization" for name, _ in head.fields):
                return
            self._by_bytes.put(head.raw, (known, user_agent(said)))
        self._by_essence.put(left, known)

    def _noticed(self, raw: bytes, found: tuple[_Known, UserAgent]) -> None:
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
        try:
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
        except Exception as error:  # noqa: BLE001  # the route, which is asked instead, has an answer or a better error
            known.source, known.hit = _forgotten, None
            if not isinstance(error, ProxyError):
                _errors.failure(
                    "bug: {path} cannot be answered as before, and is answered by its route", Failure(), path=known.path
                )
            return None
        return hit


def _forgotten() -> None:
    """The source of a request that has none any more, until its route gives another one."""
    return


def _credential(head: RequestHead) -> bytes | None:
    return next((value for name, value in head.fields if name == b"authorization"), None)

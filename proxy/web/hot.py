"""Answers to requests seen before, byte for byte: no parsing, no coroutine, one write.

Theory of operation. The agents of a farm send the same few clients' requests over and over, identical to the last byte. A
route that has answered a plain GET may leave a :data:`Source` under the bytes of that request: a function that says at once
what the answer is *now*, or that it cannot say at once. What is remembered is how to answer, never the answer: freshness,
pins and policy are asked each time.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import datetimeToString

from proxy.bounded import BoundedTable
from proxy.web.answers import Answer, Ask

#: A name for the very bytes of an answer, and the function that makes it.
Ready = tuple[Any, Callable[[], Answer]]

#: Says what the answer is at this moment; ``None`` when that takes waiting, or parsing, or asking anybody.
Source = Callable[[], Ready | None]

#: Requests longer than this are not remembered (bytes).
_LONGEST = 4096


@define
class _Known:
    """One remembered request: its source, and the head of its last answer, good for one second."""

    source: Source
    ask: Ask
    name: Any = None
    second: int = -1
    head: bytes = b""
    answer: Answer | None = None


@frozen(slots=True)
class Hit:
    """A finished answer: ``head`` ends with the empty line, ``body`` is bytes."""

    ask: Ask
    answer: Answer
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)


class HotRequests:
    """The remembered requests, at most *memory* bytes of them.  *via* goes into each answer's ``Via``."""

    def __init__(self, reactor: IReactorTime, via: str, memory: int) -> None:
        self._reactor = reactor
        self._via = via
        self._known: BoundedTable[bytes, _Known] = BoundedTable(memory, lambda known: 2 * _LONGEST)

    def remember(self, ask: Ask, source: Source) -> None:
        """Let *source* answer from now on what *ask* asked, if it is a request that can be remembered."""
        raw = ask.raw
        if raw is None or len(raw) > _LONGEST or ask.method != "GET":
            return
        if "authorization" in ask.headers or "close" in ask.header_list("connection") or b" HTTP/1.1\r\n" not in raw:
            return
        self._known.put(raw, _Known(source, ask))

    def answer(self, raw: bytes) -> Hit | None:
        """The answer to the request *raw*, if it is known and can be given at once."""
        known = self._known.get(raw)
        if known is None:
            return None
        ready = known.source()
        if ready is None:
            return None
        name, make = ready
        second = int(self._reactor.seconds())
        if known.answer is None or known.second != second or known.name != name:
            known.answer = make()
            known.name = name
            known.second = second
            known.head = self._head(known.answer)
        body = known.answer.body
        assert isinstance(body, bytes)
        return Hit(known.ask, known.answer, known.head, body)

    def _head(self, answer: Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in standing_headers(self._via)]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if answer.status != HTTPStatus.NOT_MODIFIED:
            assert isinstance(answer.body, bytes)
            lines.append(f"Content-Length: {len(answer.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def standing_headers(via: str) -> list[tuple[str, str]]:
    """The headers that every answer bears."""
    return [("Server", "pypiproxy"), ("Date", datetimeToString().decode("ascii")), ("Via", f"1.1 {via}")]

"""What a request says of the program that sends it (``User-Agent``): for the log, for people, and for statistics.

Theory of operation.  All three are worked out once for each program, and remembered.  A farm has few programs, but some add
a number of their own at the end for each run or request, on which nothing depends: that is no part of what is remembered.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from proxy.core.access_line import short_agent
from proxy.core.agents import Agent, identified
from proxy.web.answers import printable
from proxy.web.heads import RequestHead

#: What is remembered: of how many, and of what length at the most (bytes): pip sends some 600.
_REMEMBERED, _LONGEST = 1024, 1024


class UserAgent(Struct, frozen=True):
    """*text* is what was said, fit for a log (``-`` for nothing), *shown* the short form of it, *agent* what is counted."""

    text: str
    shown: str
    agent: Agent


def user_agent(said: bytes) -> UserAgent:
    """Who says *said*, without blanks around it."""
    if len(said) > _LONGEST:
        return _made(said)
    # Of other words than the first, only those are looked at that have a slash, a quote or a brace.
    end = said.rfind(b" ")
    word = said[end + 1 :]
    if end < 0 or not word.isalnum():
        return _remembered(said)
    known = _remembered(said[:end])
    return UserAgent(f"{known.text} {word.decode('ascii')}", known.shown, known.agent)


def user_agent_of(head: RequestHead) -> UserAgent:
    """Who sends *head*, by what it says first of that."""
    return user_agent(head.get(b"user-agent") or b"")


def _made(said: bytes) -> UserAgent:
    text = printable(said) or "-"
    return UserAgent(text, short_agent(text), identified(text))


_remembered = lru_cache(maxsize=_REMEMBERED)(_made)

#: Whoever says nothing.
NO_USER_AGENT = user_agent(b"")

"""Who this proxy says it is towards upstream, and how it knows a request of its own that comes back.

Theory of operation.  Each request to upstream bears an entry in ``Via`` with this instance's name, the upstream's, and a random
number of this one request.  Other proxies pass entries of that form on, and nothing else of what clients send there.  A request
that comes in with the number of one that is still waiting for its answer has been here before.  Nobody else knows these
numbers, and each is good for one request: whatever a client writes into ``Via`` is text without consequences, also for those
who share an answer with it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextvars import ContextVar

#: The entries of other instances in the ``Via`` of the request that the present work was begun for.
passed_through: ContextVar[tuple[str, ...]] = ContextVar("passed_through", default=())

#: How many of them go on, the last ones; a loop of more proxies is not found.
_MOST = 16
#: The longest entry that is looked at (characters).
_LONGEST = 300
#: Numbers that are drawn at once.
_DRAWN = 64
_ENTRY = re.compile(r"1\.1 pypiproxy-[0-9a-z]{1,32} \(upstream\.([a-z0-9._-]{1,200}) ([0-9a-f]{16})\)")


def entries(via: str) -> tuple[str, ...]:
    """Those of *via*, a received header, that an instance of this proxy may have written."""
    if not via:
        return ()
    stated = (each.strip() for each in via.split(",") if len(each) <= _LONGEST)
    return tuple(each for each in stated if _ENTRY.fullmatch(each))[-_MOST:]


def _numbers() -> Iterator[str]:
    """Random numbers; asking the system for many takes little longer than for one."""
    while True:
        drawn = secrets.token_hex(8 * _DRAWN)
        yield from (drawn[start : start + 16] for start in range(0, len(drawn), 16))


class Identity:
    """``User-Agent`` (the public index asks for one with a contact) and the pseudonym for ``Via`` (RFC 9110 section 7.6.3)."""

    def __init__(self, user_agent: str, via: str, draw: Callable[[], str] | None = None) -> None:
        self.user_agent = user_agent
        self.via = via
        self._draw = _numbers().__next__ if draw is None else draw
        #: The numbers of requests that wait for their answer.
        self._waiting: set[str] = set()

    def asking(self) -> str:
        """The number of a request that is about to be sent; until :meth:`asked` it is known as one of this instance's own."""
        number = self._draw()
        self._waiting.add(number)
        return number

    def asked(self, number: str) -> None:
        """The request with *number* has been answered, or never will be."""
        self._waiting.discard(number)

    def entry(self, upstream: str, number: str) -> str:
        """The value of ``Via`` on the request with *number* to *upstream*."""
        own = f"1.1 {self.via} (upstream.{upstream} {number})"
        before = passed_through.get()
        return ", ".join([*before, own]) if before else own

    def came_back(self, received: tuple[str, ...]) -> str | None:
        """The upstream that a request with the entries *received* was sent to by this instance, if it was."""
        for each in received:
            found = _ENTRY.fullmatch(each)
            if found is not None and found[2] in self._waiting:
                return found[1]
        return None

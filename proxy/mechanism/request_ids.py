"""Ids of requests: what the log, the answer and the requests to upstream of one client's request have in common.

An id is the one that a trusted proxy states, if it is a short token.  Otherwise it is made here, of a random part that this
process has for itself and a number, so it costs little and no two are the same.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import chain, count

#: It is looked for in each hot request from a trusted proxy, and ignoring case takes longer.
_STATED = re.compile(rb"\n[Xx]-[Rr][Ee][Qq][Uu][Ee][Ss][Tt]-[Ii][Dd]:[\t ]*+([^\r\n]*+)")
#: What is taken of others: it can be no markup, no second field of a log line, and no other header.
_TOKEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")

#: How ids end: a number is formatted for so many of them at once, and takes a third of the time.
_ENDS = tuple(f"{number:02x}" for number in range(256))

#: The id of the request that the present work was begun for; empty where it was begun for none.
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")


def _blocks(own: str) -> Iterator[Iterator[str]]:
    """Ids that begin with *own*, so many at a time as have different ends."""
    for block in count():
        yield map(f"{own}-{block:04x}".__add__, _ENDS)


class RequestIds:
    """Gives each request its id.  *draw* is asked once, for the part that is this process's own."""

    def __init__(self, draw: Callable[[], str] = lambda: secrets.token_hex(4)) -> None:
        #: Makes an id.  Nearly all of it runs in C: one is made for each hot request.
        self.new: Callable[[], str] = chain.from_iterable(_blocks(draw())).__next__

    def of(self, raw: bytes, trusted: bool) -> str:
        """The id of the request with the head *raw*, which may state one if it comes from a *trusted* proxy."""
        if trusted:
            stated: list[bytes] = _STATED.findall(raw)
            if len(stated) == 1 and _TOKEN.fullmatch(token := stated[0].rstrip(b"\t ")):
                return token.decode("ascii")
        return self.new()

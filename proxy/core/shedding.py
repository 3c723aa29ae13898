"""Who gives way when too much waits: the client address that has the most requests waiting.

Below the limit everybody waits, however many requests one address has: it may be a whole farm behind one address.  At the
limit, one request is refused for each that arrives: the arriving one if its address has the most with it, otherwise the most
recent one of the address that has the most.  So whoever is refused has at least the fair share (the limit divided by the
addresses).
"""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

from proxy.core.events import ShedReason
from proxy.errors import Overloaded

R = TypeVar("R")


class LoadShed(Overloaded):
    """A request is refused because of load, for *reason*; another node, or this one in a second, may well answer it."""

    def __init__(self, reason: ShedReason, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class GivingWay(enum.Enum):
    """Whose request is refused."""

    NOBODY = enum.auto()
    ARRIVING = enum.auto()
    HEAVIEST = enum.auto()


def giving_way(total: int, limit: int, own: int, most: int) -> GivingWay:
    """Whose request is refused when one arrives where *total* wait and *limit* may.

    *own* is how many of them its address has already, *most* the most that any address has.
    """
    if total < limit:
        return GivingWay.NOBODY
    return GivingWay.ARRIVING if own + 1 >= most else GivingWay.HEAVIEST


class Crowd(Generic[R]):
    """The requests that wait, by client address.  Every step takes the same time, however many there are."""

    def __init__(self) -> None:
        self.total = 0
        #: The most that any address has.
        self.most = 0
        #: Of each address, the oldest first.
        self._of: dict[str, dict[R, None]] = {}
        self._by_count: dict[int, dict[str, None]] = {}

    def count(self, client: str) -> int:
        """How many requests of *client* wait."""
        requests = self._of.get(client)
        return 0 if requests is None else len(requests)

    @property
    def clients(self) -> int:
        """How many addresses have any."""
        return len(self._of)

    def add(self, client: str, request: R) -> None:
        """*request* of *client* waits from now on, if it does not yet."""
        requests = self._of.setdefault(client, {})
        if request in requests:
            return
        requests[request] = None
        count = len(requests)
        self._moved(client, count - 1, count)
        self.total += 1
        self.most = max(self.most, count)

    def remove(self, client: str, request: R) -> None:
        """*request* of *client* waits no more, if it does."""
        requests = self._of.get(client)
        if requests is None or request not in requests:
            return
        del requests[request]
        count = len(requests)
        self._moved(client, count + 1, count)
        self.total -= 1
        if self.most not in self._by_count:
            self.most = count
        if not count:
            del self._of[client]

    def newest_of_heaviest(self) -> tuple[str, R]:
        """An address that has the most requests, and its most recent one.  Raises KeyError when nothing waits."""
        client = next(iter(self._by_count[self.most]))
        return client, next(reversed(self._of[client]))

    def _moved(self, client: str, before: int, after: int) -> None:
        if before:
            clients = self._by_count[before]
            del clients[client]
            if not clients:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[client] = None

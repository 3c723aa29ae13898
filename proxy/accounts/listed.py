"""Whether a directory still knows the users of tokens, asked for as seldom as passwords are, and never waited for in vain.

What the directory says holds for a minute.  While it does not answer, what it said last holds: an outage revokes no token, and
lets nobody in whom it did not know.  It is left alone for half a minute then, so that only some requests wait for it.

That this proxy has no room for another question says nothing about the directory: what it said last holds too, and the next
request may ask.
"""

from __future__ import annotations

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from proxy.access.principals import DirectoryUser
from proxy.core.bounded import BoundedTable
from proxy.errors import Overloaded, RightsUnknown
from proxy.interfaces import IDirectory
from proxy.mechanism.flight import Flights

#: For how long an answer holds, and for how long a directory that does not answer is left alone (seconds).
_HOLDS, _PAUSE = 60.0, 30.0
#: What may be remembered, and what one user and one of its groups weigh (bytes).
_MEMORY, _WEIGHT, _GROUP = 1 << 20, 400, 100


class _Said(Struct, frozen=True):
    """What the directory said of a user, and when (by the reactor's clock)."""

    user: DirectoryUser | None
    at: float


class ListedUsers:
    """The users whom *directory* knows."""

    def __init__(self, directory: IDirectory, reactor: IReactorTime) -> None:
        self._directory = directory
        self._reactor = reactor
        self._said: BoundedTable[str, _Said] = BoundedTable(_MEMORY, _weight)
        self._asking: Flights[_Said | None] = Flights()
        self._pause_until = 0.0

    async def find(self, name: str) -> DirectoryUser | None:
        """The user *name*, ``None`` if there is nobody of that name.

        If that was never found out, raises RightsUnknown while the directory does not answer, and Overloaded if there was no
        room to ask it.
        """
        said = self._said.get(name)
        now = self._reactor.seconds()
        if (said is None or now - said.at >= _HOLDS) and now >= self._pause_until:
            try:
                said = await self._asking.join(name, lambda: self._ask(name)) or said
            except Overloaded:
                if said is None:
                    raise
        if said is None:
            raise RightsUnknown("the directory does not answer, and did not say yet whether it knows this user")
        return said.user

    async def _ask(self, name: str) -> _Said | None:
        try:
            said = _Said(await self._directory.find(name), self._reactor.seconds())
        except RightsUnknown:
            self._pause_until = self._reactor.seconds() + _PAUSE
            return None
        self._said.put(name, said)
        return said

    def close(self) -> None:
        """Give up what is being asked."""
        self._asking.close()


def _weight(said: _Said) -> int:
    return _WEIGHT + (0 if said.user is None else _GROUP * len(said.user.groups))

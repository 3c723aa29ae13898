"""Who looks at the dashboard, and what may be shown to them: every name is asked for at the door."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from msgspec import Struct

from proxy.access.principals import ANONYMOUS, Principal
from proxy.access.roles import Permission
from proxy.errors import LoginRequired
from proxy.interfaces import IRepository
from proxy.web.answers import Ask
from proxy.web.dashboard.sessions import BrowserSessions
from proxy.web.door import Door


class Viewer(Struct, frozen=True):
    """*principal*, who may be shown what *may_name* says of (index, normalised project), and all of what *reads_all* says.

    *operational*: also how the service itself stands, as whoever reads the metrics; *administers*: also what may name parts of
    this host, and addresses of clients.  *standing* is the same for all who may see the same.
    """

    principal: Principal
    may_name: Callable[[str, str], bool]
    reads_all: Callable[[str], bool]
    operational: bool
    administers: bool
    standing: Hashable


class Viewers:
    """Tells viewers of *repositories* by what *door* says, and those who have logged in by *sessions*."""

    def __init__(self, door: Door, sessions: BrowserSessions, repositories: Mapping[str, IRepository]) -> None:
        self._door = door
        self._sessions = sessions
        self._repositories = repositories

    async def of(self, ask: Ask) -> tuple[Viewer, Ask]:
        """Who sends *ask*, and *ask* known to be sent by them.  Raises as :meth:`Door.viewer`."""
        credential = None if ask.header("authorization") is not None else self._sessions.credential(ask)
        principal = await self._door.viewer(ask) if credential is None else await self._of_session(ask, credential)
        return self.viewer(principal), ask.by(principal)

    async def _of_session(self, ask: Ask, credential: bytes) -> Principal:
        if not ask.caller.principal.is_anonymous:
            return ask.caller.principal
        try:
            return await self._door.login(ask, credential)
        except LoginRequired:
            self._sessions.end(ask)  # it was right once
            return ANONYMOUS

    def viewer(self, principal: Principal) -> Viewer:
        """What *principal* may be shown."""
        administers = any(self.may(principal, Permission.ADMINISTER, index, None) for index in self._repositories)
        operational = administers or self._door.reads_metrics(principal)

        def may_name(index: str, project: str) -> bool:
            return self.may(principal, Permission.READ, index, project)

        def reads_all(index: str) -> bool:
            return self._door.reading(principal, self._repositories[index]) is None

        standing = (self._door.standing(principal), operational, administers)
        return Viewer(principal, may_name, reads_all, operational, administers, standing)

    def may(self, principal: Principal, permission: Permission, index: str, project: str | None) -> bool:
        """Whether *principal* may use *permission* there; not in an index that does not exist (any more)."""
        repository = self._repositories.get(index)
        return repository is not None and self._door.may(principal, permission, repository, project)

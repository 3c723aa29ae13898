"""What operators do with users and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.access.principals import is_user_name
from proxy.access.roles import ALL, Role, is_pattern
from proxy.accounts.accounts import Accounts
from proxy.accounts.tokens import IssuedScope, IssuedToken, Tokens
from proxy.accounts.users import UsersFile, without_use
from proxy.administration.parts import IndexParts, chosen
from proxy.errors import BadRequest, Overloaded, RightsUnknown
from proxy.interfaces import Clock, Operation, Report
from proxy.names import normalize


class Accounting:
    """Changes *users* and *tokens*, and has *accounts* forget at once whom it knows; *clock* tells the wall time."""

    def __init__(
        self, indexes: Mapping[str, IndexParts], users: UsersFile, tokens: Tokens, accounts: Accounts, clock: Clock
    ) -> None:
        self._indexes = indexes
        self._users = users
        self._tokens = tokens
        self._accounts = accounts
        self._clock = clock

    @property
    def operations(self) -> Mapping[str, Operation]:
        return {
            "user_add": self.add,
            "user_passwd": self.passwd,
            "user_remove": self.remove,
            "users": self.users,
            "token_create": self.create,
            "tokens": self.tokens,
            "token_revoke": self.revoke,
        }

    async def add(self, report: Report, user: str, password: str) -> dict[str, Any]:
        """Add *user*.  Raises BadRequest, StorageFailed."""
        await self._users.add(user, password.encode())
        return {"user": user}

    async def passwd(self, report: Report, user: str, password: str) -> dict[str, Any]:
        """Set another password for *user*; the one before counts no more.  Raises BadRequest, NotFound, StorageFailed."""
        await self._users.change(user, password.encode())
        return {"user": user}

    async def remove(self, report: Report, user: str) -> dict[str, Any]:
        """Remove *user*, and revoke the tokens of *user*.  Raises NotFound, StorageFailed."""
        await self._users.remove(user)
        revoked = await self._tokens.revoke_of(user)
        self._accounts.forget()
        return {"user": user, "revoked": revoked}

    async def users(self, report: Report) -> list[dict[str, Any]]:
        """The users, by name; not *usable* are those whose hashes are of another kind, who cannot log in."""
        users = await self._users.users()
        useless = without_use(users)
        count = dict.fromkeys(users, 0)
        for issued, _ in (await self._tokens.issued()).values():
            if issued.user in count:
                count[issued.user] += 1
        return [{"user": name, "usable": name not in useless, "tokens": count[name]} for name in sorted(users)]

    async def create(
        self,
        report: Report,
        user: str,
        role: str | None = None,
        indexes: Sequence[str] = (),
        projects: Sequence[str] = (),
        expires: float | None = None,
    ) -> dict[str, Any]:
        """Issue a token for *user*, which expires after *expires* seconds; this answer alone has it.

        With a *role* it may do what that permits on *indexes* with *projects*, and nothing else; without, what its user may.
        ``bound``: *user* is in the file of users, ``listed``: in the directory; it is valid as long as that is so.

        Raises BadRequest, NotFound, StorageFailed, RightsUnknown while the directory does not answer.
        """
        if not is_user_name(user):
            raise BadRequest(f"{user!r} is no name of a user: expected letters, digits and, inside, any of . _ @ + -")
        if expires is not None and expires <= 0:
            raise BadRequest(f"a token that expires after {expires:g} s is of no use")
        own = None if role is None else [self._scope(role, indexes, projects)]
        if own is None and (indexes or projects):
            raise BadRequest("indexes and projects are those of a role: name one, or confine the token with token narrow")
        until = None if expires is None else self._clock() + expires
        bound = await self._users.has(user)
        known = None if bound else await self._accounts.listed(user)
        if known is not None and not await self._users.has(known.name):
            user = known.name
        listed = known is not None and known.name == user
        name, text = await self._tokens.issue(user, own, until, bound=bound, listed=listed)
        issued = (await self._tokens.issued())[name][0]
        return {**_shown(name, issued, None), "token": text}

    def _scope(self, role: str, indexes: Sequence[str], projects: Sequence[str]) -> IssuedScope:
        known = [each.value for each in Role]
        if role not in known:
            raise BadRequest(f"there is no role {role!r}; there is {', '.join(known)}")
        for index in indexes:
            for leaf in () if index == ALL else chosen(self._indexes, index)[index].repository.leaves:
                if leaf != index:
                    raise BadRequest(f"{index} is a group, in which the rights on its members count: name {leaf} or others")
        for pattern in projects:
            if not is_pattern(pattern):
                raise BadRequest(
                    f"{pattern!r} is no pattern: expected the name of a project, in which * and ? stand for others"
                )
        return IssuedScope(Role(role), tuple(indexes) or (ALL,), tuple(map(normalize, projects)) or (ALL,))

    async def tokens(self, report: Report, user: str | None = None) -> list[dict[str, Any]]:
        """The tokens that were not revoked and have not expired, of one *user* or of all, with their last use to the hour.

        ``known`` is whether the file of users or the directory has the user now, ``None`` where that is not known; the token is
        refused if they have not, and it was issued for one who was there.  Raises StorageFailed.
        """
        found = await self._tokens.issued()
        known = {each: await self._known(each) for each in {issued.user for issued, _ in found.values()} if each is not None}
        shown = [
            {**_shown(name, issued, used), "known": known.get(issued.user or "")} for name, (issued, used) in found.items()
        ]
        return [each for each in sorted(shown, key=lambda each: each["created"]) if user in (None, each["user"])]

    async def _known(self, user: str) -> bool | None:
        try:
            return await self._users.has(user) or await self._accounts.listed(user) is not None
        except (RightsUnknown, Overloaded):
            return None

    async def revoke(self, report: Report, tokens: Sequence[str]) -> list[dict[str, Any]]:
        """Revoke *tokens*, by their ids; they count no more.  Raises NotFound, StorageFailed."""
        try:
            return [_shown(name, await self._tokens.revoke(name), None) for name in tokens]
        finally:
            self._accounts.forget()


def _shown(name: str, issued: IssuedToken, used: float | None) -> dict[str, Any]:
    own = None if issued.own is None else issued.own[0]
    return {
        "id": name,
        "user": issued.user,
        "role": None if own is None else own.role.value,
        "indexes": None if own is None else list(own.indexes),
        "projects": None if own is None else list(own.projects),
        "created": issued.created,
        "expires": issued.expires,
        "bound": issued.bound,
        "listed": issued.listed,
        "used": used,
    }

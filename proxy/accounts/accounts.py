"""Who stands behind a credential: looked up in what was found lately, else verified, once for all who send the same.

Theory of operation.  A credential that was right is remembered for a minute, by a keyed hash: neither it nor anything that it
could be found by is kept.  Whatever changes users or tokens ends all of that at once, by a new *generation*; what was being
verified then is not remembered.  Hashes of passwords are computed one at a time, for addresses in turn.  A wrong credential is
answered later the more often it was tried; nothing that is right waits for that.
"""

from __future__ import annotations

import hashlib
import os

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from proxy.access.credentials import PasswordLogin, TokenLogin, login_of
from proxy.access.principals import DirectoryUser, Principal, PrincipalKind
from proxy.accounts.failures import FailedLogins
from proxy.accounts.listed import ListedUsers
from proxy.accounts.tokens import Tokens, ValidToken
from proxy.accounts.turns import Turns
from proxy.accounts.users import UsersFile
from proxy.core.audited import Audited, AuditOutcome
from proxy.core.bounded import BoundedTable
from proxy.core.networks import client_network
from proxy.interfaces import Clock, IAccounts, IAuditLog, IDirectory
from proxy.mechanism.flight import Flights

#: For how long a right credential is remembered (seconds).
_REMEMBERED = 60.0
#: What may be remembered, and what one credential weighs (bytes).
_MEMORY, _WEIGHT = 4 << 20, 600

_LOGIN = "log in"
#: In Python 3.11 a member of an enumeration takes long to find.
_USER = PrincipalKind.USER


class _Verified(Struct, frozen=True):
    """Who it was, and until when that holds: by the reactor's clock, and by the wall clock where a token expires."""

    principal: Principal
    until: float
    expires: float | None


@implementer(IAccounts)
class Accounts:
    """The accounts of *users*, of *tokens*, and of a *directory* if there is one; a user of the file is none of the directory.

    *clock* tells the wall time, *audit* is told of logins, *failures* counts them.
    """

    def __init__(
        self,
        users: UsersFile,
        tokens: Tokens,
        reactor: IReactorTime,
        clock: Clock,
        audit: IAuditLog,
        failures: FailedLogins | None = None,
        *,
        directory: IDirectory | None = None,
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._reactor = reactor
        self._clock = clock
        self._audit = audit
        self._directory = directory
        self._listed = None if directory is None else ListedUsers(directory, reactor)
        #: Copied for each text: to begin with the key takes as long as a short text.
        self._keyed = hashlib.blake2b(digest_size=32, key=os.urandom(32))
        self._generation = 0
        self._right: BoundedTable[bytes, _Verified] = BoundedTable(_MEMORY, lambda verified: _WEIGHT)
        self._own: dict[bytes, Principal] = {}
        self._secrets: dict[Principal, str] = {}
        self._verifying: Flights[Principal | None] = Flights()
        self._failures = failures or FailedLogins(reactor.seconds)
        self._turns = Turns()

    @property
    def waiting(self) -> int:
        """Credentials that wait for their verification."""
        return self._turns.waiting

    def forget(self) -> None:
        """Remember no credential: users or tokens have changed."""
        self._generation += 1
        self._right = BoundedTable(_MEMORY, lambda verified: _WEIGHT)

    def forget_token(self, name: str) -> None:
        """Do not remember the token with the id *name*: it was revoked."""
        self._generation += 1  # it may be being verified
        for key in list(self._right):
            verified = self._right.get(key)
            if verified is not None and verified.principal.kind is PrincipalKind.TOKEN and verified.principal.name == name:
                self._right.discard(key)

    def entrust(self, principal: Principal) -> str:
        """A password, with any user name, for *principal*, a part of this process.

        The same each time.  Nobody else has it but who asks for it at the admin socket, and it ends with this process.
        """
        if principal not in self._secrets:
            secret = self._secrets[principal] = os.urandom(24).hex()
            self._own[self._hash(secret.encode("ascii"))] = principal
        return self._secrets[principal]

    def remembered(self, credential: bytes) -> Principal | None:
        verified = self._right.get(self._hash(credential))
        if verified is None or verified.until <= self._reactor.seconds():
            return None
        if verified.expires is not None and verified.expires <= self._clock():
            return None
        if verified.principal.kind is _USER and not self._users.readable:
            return None
        return verified.principal

    async def authenticate(self, credential: bytes, origin: str) -> Principal | None:
        found = self.remembered(credential)
        if found is not None:
            return found
        login = login_of(credential)
        if isinstance(login, PasswordLogin) and (own := self._own.get(self._hash(login.password))) is not None:
            return own
        name = login.user if isinstance(login, PasswordLogin) else ""
        key = (self._hash(credential), self._generation)
        principal = await self._verifying.join(key, lambda: self._verify(credential, login, origin))
        if principal is None:
            await deferLater(self._reactor, self._failures.failed(client_network(origin), name))
            return None
        self._failures.succeeded(client_network(origin), name)
        return principal

    async def _verify(self, credential: bytes, login: PasswordLogin | TokenLogin | None, origin: str) -> Principal | None:
        generation, expires = self._generation, None
        principal, named = None, "a credential"
        if isinstance(login, TokenLogin):
            found = await self._tokens.principal(login.text)
            named = "a token"
            if found is not None:
                principal, expires = await self._of_valid(found), found.expires
        elif login is not None:
            users = await self._users.users()
            # Somebody may have typed the password in the place of the name.
            named = f"user:{login.user}" if login.user in users else "an unknown user"
            principal = await self._user(login, origin, local=login.user in users)
        if principal is None:
            self._audit.note(Audited(named, origin, _LOGIN, AuditOutcome.WRONG))
            return None
        self._audit.note(Audited(str(principal), origin, _LOGIN, AuditOutcome.DONE))
        if generation == self._generation:
            until = self._reactor.seconds() + _REMEMBERED
            self._right.put(self._hash(credential), _Verified(principal, until, expires))
        return principal

    async def _of_valid(self, token: ValidToken) -> Principal | None:
        """Who sends *token*, with the groups of its user; ``None`` if its user is not known any more.  Raises RightsUnknown."""
        if token.until_unlisted is not None:
            if await self._users.has(token.until_unlisted):
                return token.principal
            user = await self.listed(token.until_unlisted)
            return None if user is None else replace(token.principal, groups=user.groups)
        return token.principal if token.until_removed is None or await self._users.has(token.until_removed) else None

    async def listed(self, user: str) -> DirectoryUser | None:
        """Who *user* is in the directory, to the minute; ``None`` if there is nobody of that name, or no directory.

        What a directory that does not answer said last holds.  Raises RightsUnknown if that was never found out.
        """
        return None if self._listed is None else await self._listed.find(user)

    async def _user(self, login: PasswordLogin, origin: str, *, local: bool) -> Principal | None:
        """The user of *login*, if the password is right; *local*: it is one of the file.  Raises RightsUnknown."""
        if self._directory is not None and not local:
            found = await self._directory.login(login.user, login.password)
            if found is None or found.name in await self._users.users():
                return None
            return Principal(PrincipalKind.USER, found.name, groups=found.groups)
        async with self._turns.of(client_network(origin), login.user):
            right = await self._users.is_right(login.user, login.password)
        return Principal(PrincipalKind.USER, login.user) if right else None

    def close(self) -> None:
        """Give up what is being verified."""
        self._verifying.close()
        if self._listed is not None:
            self._listed.close()

    def _hash(self, text: bytes) -> bytes:
        hashing = self._keyed.copy()
        hashing.update(text)
        return hashing.digest()

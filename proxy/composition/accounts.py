"""Who may do what in a service: its users and tokens, the rights that the configuration grants, and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from proxy.access.principals import Principal
from proxy.access.rights import FirstUploader, Grant, GrantedRights
from proxy.access.roles import Extent, Role, Scope
from proxy.accounts import audit, users
from proxy.accounts.accounts import Accounts
from proxy.accounts.audit import AuditFile, AuditLog, Unaudited
from proxy.accounts.jobs import JobTokens
from proxy.accounts.passwords import HashingCost
from proxy.accounts.tokens import Tokens
from proxy.accounts.users import UsersFile
from proxy.composition.means import Means
from proxy.composition.shared import HeldParts
from proxy.composition.storage import Storage
from proxy.core.troubles import Reason, Trouble
from proxy.core.warming import AGENT
from proxy.errors import RightsUnknown
from proxy.mechanism.offload import Offload
from proxy.mechanism.patience import within
from proxy.mechanism.rotating import Rotating
from proxy.settings import AccessSettings, CiSettings, GrantSettings, LdapSettings, Settings

if TYPE_CHECKING:
    from proxy.identity.ldap import LdapDirectory


#: How long the file system may take that the file of users is on (seconds).
_PATIENCE = 1.0
_SILENT = (
    f"{users.KEY} cannot be looked at, because its file system does not answer: nobody can log in with a password meanwhile"
)


class AccountStores(Struct, frozen=True, kw_only=True):
    """What lasts as long as the service.  *hashing* is the thread for passwords: hashes take long, and memory, so there is one
    at a time.  New ones are made at *cost*.
    """

    tokens: Tokens
    audit: AuditLog | Unaudited
    hashing: Offload
    cost: HashingCost

    def configure(self, access: AccessSettings) -> None:
        """Keep the audit log within the limits of *access* from now on."""
        if isinstance(self.audit, AuditLog):
            self.audit.configure(access.audit_size, access.audit_files)

    async def close(self) -> None:
        """Write what is in memory only."""
        await self.audit.close()


class LoginRoom(Struct, frozen=True, kw_only=True):
    """Who can log in, and what is remembered of it.  *directory* knows users who are not in the file, if there is one."""

    accounts: Accounts
    users: UsersFile
    directory: LdapDirectory | None = None

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return () if self.directory is None else self.directory.rotating

    def close(self) -> None:
        """Give up what is being verified."""
        self.accounts.close()

    def stop(self) -> None:
        """End the threads."""
        if self.directory is not None:
            self.directory.stop()


class AccessRoom(Struct, frozen=True, kw_only=True):
    """All of it, as one configuration has it."""

    rights: GrantedRights
    stores: AccountStores
    logins: LoginRoom

    @property
    def accounts(self) -> Accounts:
        """Who stands behind a credential."""
        return self.logins.accounts

    @property
    def audit(self) -> AuditLog | Unaudited:
        """The record of who did what."""
        return self.stores.audit

    async def look(self, clock: IReactorTime) -> Sequence[Trouble]:
        """What cannot be told of those who ask, because users or tokens cannot be read."""
        late = not await within(_PATIENCE, self.logins.users.look(), clock)
        directory = self.logins.directory
        found = [_SILENT if late else self.logins.users.trouble, None if directory is None else directory.trouble]
        try:
            await self.stores.tokens.look()
        except RightsUnknown as error:
            found.append(f"{error}: who sends one is refused with 503; check the disk")
        troubles = [Trouble(Reason.RIGHTS, each) for each in found if each is not None]
        if directory is not None and (overload := directory.overload) is not None:
            troubles.append(Trouble(Reason.OVERLOADED, overload))
        return troubles

    @property
    def jobs(self) -> JobTokens:
        """What makes tokens for CI jobs."""
        return JobTokens(self.stores.tokens, self.accounts)

    def entrusted(self, url: str, principal: Principal) -> str:
        """The default index of this proxy, which is at *url*, with a password for *principal*, a part of this process."""
        parts = urlsplit(url)
        netloc = f"{AGENT}:{self.accounts.entrust(principal)}@{parts.netloc}"
        return urlunsplit(parts._replace(netloc=netloc, path="/simple/"))


def grant_of(settings: GrantSettings) -> Grant:
    """What *settings* grant."""
    extent = Extent(settings.indexes, settings.projects)
    return Grant(Scope(Role(settings.role), extent), settings.principals)


def build_account_stores(
    access: AccessSettings, storage: Storage, means: Means, *, reading: bool, hashing_cost: HashingCost
) -> AccountStores:
    """The tokens and the audit log of *storage*.  Who is only *reading* writes nothing."""
    book = AuditFile(storage.directory / audit.NAME, access.audit_size, access.audit_files, storage.place.is_ours)
    log = Unaudited() if reading else AuditLog(book, means.disk, means.reactor, means.clock)
    hashing = Offload(means.reactor, 1, "passwords")
    return AccountStores(tokens=Tokens(storage.ledger, means.clock), audit=log, hashing=hashing, cost=hashing_cost)


def build_access(
    settings: Settings,
    stores: AccountStores,
    holding: HeldParts[LoginRoom],
    storage: Storage,
    means: Means,
    first_uploader: FirstUploader,
) -> AccessRoom:
    """The users and rights of *settings*, with what is in *stores*.

    *first_uploader* tells who began a project of a hosted index.  LoginRoom stay as they are while the same users may log in.
    """
    access = settings.access
    ldap = access.ldap and _without_secrets_of_files(access.ldap)
    logins = holding.take((access.users_file, ldap), lambda: _logins(access, stores, storage, means))
    rights = GrantedRights(map(grant_of, settings.grants), access.groups, first_uploader, _read_by_jobs(settings.ci))
    return AccessRoom(rights=rights, stores=stores, logins=logins)


def _without_secrets_of_files(ldap: LdapSettings) -> LdapSettings:
    """*ldap* without what is read again from its file when that changes."""
    return ldap if ldap.bind_password_file is None else replace(ldap, bind_password=None)


def _logins(access: AccessSettings, stores: AccountStores, storage: Storage, means: Means) -> LoginRoom:
    file = UsersFile(
        access.users_file or storage.directory / users.NAME,
        expected=access.users_file is not None,
        observing=means.observing,
        hashing=stores.hashing,
        changed=lambda: accounts.forget(),
        cost=stores.cost,
    )
    directory = _directory(access.ldap, means)
    accounts = Accounts(file, stores.tokens, means.reactor, means.clock, stores.audit, directory=directory)
    return LoginRoom(accounts=accounts, users=file, directory=directory)


def divides_bytes(settings: Settings) -> bool:
    """Whether there are several proxy indexes of which some are not for everybody: none may serve what another has fetched."""
    return sum(each.kind == "proxy" for each in settings.indexes) > 1 and _has_own_readers(settings)


def _has_own_readers(settings: Settings) -> bool:
    """Whether some proxy index is not for everybody."""
    extents = [grant_of(each).scope.extent for each in settings.grants if each.role == Role.READER.value]
    extents += _read_by_jobs(settings.ci)
    return any(each.includes_index(index.name) for each in extents for index in settings.indexes if index.kind == "proxy")


def _read_by_jobs(settings: CiSettings | None) -> list[Extent]:
    """What rules give CI jobs to read: a grant like others."""
    rules = () if settings is None else settings.rules
    return [Extent(each.indexes, each.projects) for each in rules if each.role == Role.READER.value]


def _directory(settings: LdapSettings | None, means: Means) -> LdapDirectory | None:
    """The directory of *settings*."""
    if settings is None:
        return None
    # What it needs is an extra.
    from proxy.identity.ldap import LdapDirectory

    return LdapDirectory(settings, means.reactor, means.observing)

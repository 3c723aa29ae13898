"""Who may do what in a service: its users and tokens, the rights that the configuration grants, and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from attrs import frozen

from proxy.access.principals import Principal
from proxy.access.rights import FirstUploader, Grant, GrantedRights
from proxy.access.roles import Extent, Role, Scope
from proxy.accounts import audit, users
from proxy.accounts.accounts import Accounts
from proxy.accounts.audit import AuditFile, AuditLog, Unaudited
from proxy.accounts.jobs import JobTokens
from proxy.accounts.tokens import Tokens
from proxy.accounts.users import UsersFile
from proxy.composition.means import Means
from proxy.composition.storage import Storage
from proxy.core.warming import AGENT
from proxy.mechanism.offload import Offload
from proxy.mechanism.rotating import Rotating
from proxy.settings import CiSettings, GrantSettings, LdapSettings, Settings

if TYPE_CHECKING:
    from proxy.identity.ldap import LdapDirectory


@frozen(kw_only=True)
class AccessRoom:
    """All of it.  *hashing* is the thread for passwords: hashes take long, and memory, so there is one at a time.

    *directory* knows users who are not in the file, if there is one.
    """

    rights: GrantedRights
    accounts: Accounts
    users: UsersFile
    tokens: Tokens
    audit: AuditLog | Unaudited
    hashing: Offload
    directory: LdapDirectory | None = None

    @property
    def rotating(self) -> Sequence[Rotating[Any]]:
        """The files that have to be looked at regularly."""
        return [*self.users.rotating, *(() if self.directory is None else self.directory.rotating)]

    @property
    def jobs(self) -> JobTokens:
        """What makes tokens for CI jobs."""
        return JobTokens(self.tokens, self.accounts)

    def entrusted(self, url: str, principal: Principal) -> str:
        """The default index of this proxy, which is at *url*, with a password for *principal*, a part of this process."""
        parts = urlsplit(url)
        netloc = f"{AGENT}:{self.accounts.entrust(principal)}@{parts.netloc}"
        return urlunsplit(parts._replace(netloc=netloc, path="/simple/"))

    async def close(self) -> None:
        """Write what is in memory only."""
        self.accounts.close()
        await self.audit.close()

    def stop(self) -> None:
        """End the threads."""
        self.hashing.stop()
        if self.directory is not None:
            self.directory.stop()


def grant_of(settings: GrantSettings) -> Grant:
    """What *settings* grant."""
    extent = Extent(settings.indexes, settings.projects)
    return Grant(Scope(Role(settings.role), extent), settings.principals)


def build_access(
    settings: Settings, storage: Storage, means: Means, first_uploader: FirstUploader, *, reading: bool
) -> AccessRoom:
    """The users, tokens and rights of *settings*; *first_uploader* tells who began a project of a hosted index.

    Who is only *reading* writes nothing.
    """
    access, hashing = settings.access, Offload(means.reactor, 1, "passwords")
    file = UsersFile(
        access.users_file or storage.directory / users.NAME,
        expected=access.users_file is not None,
        observing=means.observing,
        hashing=hashing,
        changed=lambda: accounts.forget(),
    )
    book = AuditFile(storage.directory / audit.NAME, access.audit_size, access.audit_files, storage.place.is_ours)
    log = Unaudited() if reading else AuditLog(book, means.disk, means.reactor, means.clock)
    tokens = Tokens(storage.ledger, means.clock)
    directory = _directory(access.ldap, means)
    accounts = Accounts(file, tokens, means.reactor, means.clock, log, directory=directory)
    rights = GrantedRights(map(grant_of, settings.grants), access.groups, first_uploader, _read_by_jobs(settings.ci))
    return AccessRoom(
        rights=rights, accounts=accounts, users=file, tokens=tokens, audit=log, hashing=hashing, directory=directory
    )


def has_own_readers(settings: Settings) -> bool:
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

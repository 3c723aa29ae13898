"""Users whom a directory knows, beside those of the proxy's own file: whose password counts, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from msgspec import Struct, field
from twisted.internet.defer import Deferred, DeferredList
from zope.interface import implementer

from proxy.access.principals import DirectoryUser, Principal, PrincipalKind
from proxy.access.rights import Access, Grant, GrantedRights, Permission
from proxy.access.roles import Role, Scope
from proxy.accounts.accounts import Accounts
from proxy.accounts.tokens import Tokens
from proxy.accounts.users import UsersFile
from proxy.core.audited import Audited
from proxy.errors import RightsUnknown
from proxy.interfaces import IAuditLog, IDirectory
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.memory import MemoryVersioned
from tests.support.exchanges import Ahead
from tests.support.logins import basic

HERE = "127.0.0.1"


@implementer(IDirectory, IAuditLog)
class Known(Struct):
    """A directory in memory, which takes a name in any case; and an audit log that nobody reads."""

    users: dict[str, tuple[bytes, frozenset[str]]] = field(default_factory=dict)
    is_down: bool = False
    #: The names that it was asked about.
    asked: list[str] = field(default_factory=list)

    async def login(self, user: str, password: bytes) -> DirectoryUser | None:
        self.asked.append(user)
        if self.is_down:
            raise RightsUnknown("the directory does not answer")
        right, groups = self.users.get(user.lower(), (b"", frozenset[str]()))
        return DirectoryUser(user.lower(), groups) if right and right == password else None

    def note(self, entry: Audited) -> None:
        pass


class Place:
    """Accounts with a directory that knows alice, and a file in which bob is."""

    def __init__(self, folder: Path) -> None:
        self.ahead = Ahead()
        self.directory = Known(
            {"alice": (b"alice's", frozenset({"Web Developers"})), "bob": (b"of the directory", frozenset())}
        )
        observing = Observing(Inline(), UNRECORDED, self.ahead.wall)
        self.users = UsersFile(
            folder / "users", expected=False, observing=observing, hashing=Inline(), changed=lambda: self.accounts.forget()
        )
        tokens = Tokens(MemoryVersioned(self.ahead.wall), self.ahead.wall)
        self.accounts = Accounts(self.users, tokens, self.ahead, self.ahead.wall, Known(), directory=self.directory)  # type: ignore[arg-type]

    async def login(self, user: str, password: str) -> Principal | None:
        return await self.accounts.authenticate(basic(user, password).encode(), HERE)


@pytest.fixture
def place(_clean_reactor: None, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    pytest_twisted.blockon(Deferred.fromCoroutine(made.users.add("bob", b"of the file")))
    yield made
    made.accounts.close()


@pytest_twisted.ensureDeferred
async def test_a_user_of_the_directory_has_its_groups(place: Place) -> None:
    alice = await place.login("alice", "alice's")
    assert alice == Principal(PrincipalKind.USER, "alice", groups=frozenset({"Web Developers"}))
    grant = Grant(Scope(Role.UPLOADER), ("group:web",))
    mapped = GrantedRights([grant], {"web": ["group:Web Developers"]})
    assert mapped.may(alice, Permission.UPLOAD, "internal", "six") is Access.ALLOWED
    for users in (["group:web"], ["Web Developers"], ["bob"]):
        other = GrantedRights([grant], {"web": users})
        assert other.may(alice, Permission.UPLOAD, "internal", "six") is Access.HIDDEN


@pytest_twisted.ensureDeferred
async def test_the_name_is_that_of_the_directory(place: Place) -> None:
    alice = await place.login("ALICE", "alice's")
    assert alice is not None
    assert alice.name == "alice"


@pytest_twisted.ensureDeferred
async def test_a_user_of_the_file_is_none_of_the_directory(place: Place) -> None:
    bob = await place.login("bob", "of the file")
    assert bob == Principal(PrincipalKind.USER, "bob")
    assert await place.login("bob", "of the directory") is None
    assert place.directory.asked == []
    # The directory does not tell cases; the file does.
    assert await place.login("BOB", "of the directory") is None


@pytest_twisted.ensureDeferred
async def test_a_right_password_is_remembered_for_a_minute_and_asked_about_once(place: Place) -> None:
    logins = [Deferred.fromCoroutine(place.login("alice", "alice's")) for _ in range(100)]
    assert len({principal for _, principal in await DeferredList(logins, fireOnOneErrback=True)}) == 1
    assert place.directory.asked == ["alice"]
    del place.directory.users["alice"]
    assert await place.login("alice", "alice's") is not None
    place.ahead.by += 60
    assert await place.login("alice", "alice's") is None
    assert place.directory.asked == ["alice"] * 2


@pytest_twisted.ensureDeferred
async def test_nobody_of_a_directory_that_is_down_is_let_in(place: Place) -> None:
    place.directory.is_down = True
    with pytest.raises(RightsUnknown):
        await place.login("alice", "alice's")
    assert await place.login("bob", "of the file") is not None
    place.directory.is_down = False
    assert await place.login("alice", "alice's") is not None

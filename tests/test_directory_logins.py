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
from proxy.administration.accounts import Accounting
from proxy.core.audited import Audited
from proxy.errors import Overloaded, RightsUnknown
from proxy.interfaces import IAuditLog, IDirectory
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.memory import MemoryVersioned
from tests.support.exchanges import Ahead
from tests.support.logins import QUICK, basic

HERE = "127.0.0.1"


@implementer(IDirectory, IAuditLog)
class Known(Struct):
    """A directory in memory, which takes a name in any case; and an audit log that nobody reads."""

    users: dict[str, tuple[bytes, frozenset[str]]] = field(default_factory=dict)
    is_down: bool = False
    #: As many questions wait for it as may.
    is_full: bool = False
    #: The names that it was asked about.
    asked: list[str] = field(default_factory=list)

    async def find(self, user: str) -> DirectoryUser | None:
        if self.is_full:
            raise Overloaded("too many logins wait for the directory: ask again")
        self.asked.append(user)
        if self.is_down:
            raise RightsUnknown("the directory does not answer")
        found = self.users.get(user.lower())
        return None if found is None else DirectoryUser(user.lower(), found[1])

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
            folder / "users",
            expected=False,
            observing=observing,
            hashing=Inline(),
            changed=lambda: self.accounts.forget(),
            cost=QUICK,
        )
        self.tokens = tokens = Tokens(MemoryVersioned(self.ahead.wall), self.ahead.wall)
        self.accounts = Accounts(self.users, tokens, self.ahead, self.ahead.wall, Known(), directory=self.directory)  # type: ignore[arg-type]
        self.accounting = Accounting({}, self.users, tokens, self.accounts, self.ahead.wall)

    async def token(self, user: str, role: str | None = None) -> str:
        """A new token of *user*."""
        text: str = (await self.accounting.create(unheard, user, role))["token"]
        return text

    async def login(self, user: str, password: str) -> Principal | None:
        return await self.accounts.authenticate(basic(user, password).encode(), HERE)


def unheard(said: object) -> None:
    """Nobody is told how far it came."""


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


# -- tokens of users whom the directory knows --------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_token_is_valid_as_long_as_the_directory_knows_its_user(place: Place) -> None:
    whole, confined = await place.token("ALICE"), await place.token("alice", "reader")
    assert [(each["user"], each["listed"], each["known"]) for each in await place.accounting.tokens(unheard)] == [
        ("alice", True, True)
    ] * 2
    found = await place.login("any", whole)
    assert found is not None
    assert (found.user, found.groups) == ("alice", frozenset({"Web Developers"}))  # it may do what its user may
    mapped = GrantedRights([Grant(Scope(Role.UPLOADER), ("group:web",))], {"web": ["group:Web Developers"]})
    assert mapped.may(found, Permission.UPLOAD, "internal", "six") is Access.ALLOWED
    narrow = await place.login("any", confined)
    assert narrow is not None
    assert mapped.may(narrow, Permission.UPLOAD, "internal", "six") is Access.HIDDEN
    del place.directory.users["alice"]
    place.ahead.by += 60
    assert [await place.login("any", each) for each in (whole, confined)] == [None, None]
    assert [each["known"] for each in await place.accounting.tokens(unheard)] == [False, False]
    # One in the file of that name is as good.
    await place.users.add("alice", b"of the file")
    assert await place.login("any", confined) is not None


@pytest_twisted.ensureDeferred
async def test_the_directory_is_asked_once_a_minute_for_all_tokens_of_a_user(place: Place) -> None:
    tokens = [await place.token("alice", "reader") for _ in range(20)]
    logins = [Deferred.fromCoroutine(place.login("any", each)) for each in tokens]
    assert all(principal is not None for _, principal in await DeferredList(logins, fireOnOneErrback=True))
    assert place.directory.asked == ["alice"]


@pytest_twisted.ensureDeferred
async def test_a_directory_that_does_not_answer_revokes_no_token_and_is_left_alone(place: Place) -> None:
    token, of_bob = await place.token("alice", "reader"), await place.token("bob", "reader")
    del place.directory.users["alice"]
    place.directory.is_down = True
    place.ahead.by += 60
    before = len(place.directory.asked)
    assert await place.login("any", token) is not None
    place.ahead.by += 29
    assert await place.login("other", token) is not None
    assert await place.login("any", of_bob) is not None  # he is in the file
    assert len(place.directory.asked) == before + 1
    place.directory.is_down = False
    place.ahead.by += 60
    assert await place.login("any", token) is None


@pytest_twisted.ensureDeferred
async def test_that_nobody_else_may_wait_for_the_directory_does_not_mean_that_it_is_down(place: Place) -> None:
    token, of_carol = await place.token("alice", "reader"), await place.token("carol", "reader")
    place.directory.users["dan"] = (b"dan's", frozenset())
    of_dan = await place.token("dan", "reader")
    began = Accounts(place.users, place.tokens, place.ahead, place.ahead.wall, Known(), directory=place.directory)  # type: ignore[arg-type]
    place.directory.is_full = True
    place.ahead.by += 60
    assert await place.login("any", token) is not None  # what it said last holds
    assert await place.login("any", of_carol) is not None  # a token of nobody
    with pytest.raises(Overloaded, match="too many logins wait for the directory: ask again"):
        await began.authenticate(basic("any", of_dan).encode(), HERE)
    # It is asked again as soon as there is room.
    place.directory.is_full = False
    before = len(place.directory.asked)
    assert await began.authenticate(basic("any", of_dan).encode(), HERE) is not None
    del place.directory.users["alice"]
    assert await place.login("other", token) is None
    assert place.directory.asked[before:] == ["dan", "alice"]
    began.close()


@pytest_twisted.ensureDeferred
async def test_after_a_start_whom_the_directory_never_told_of_is_not_let_in(place: Place) -> None:
    token = await place.token("alice", "reader")
    began = Accounts(place.users, place.tokens, place.ahead, place.ahead.wall, Known(), directory=place.directory)  # type: ignore[arg-type]
    place.directory.is_down = True
    with pytest.raises(RightsUnknown):
        await began.authenticate(basic("any", token).encode(), HERE)
    with pytest.raises(RightsUnknown):
        await place.token("carol", "reader")
    place.directory.is_down = False
    place.ahead.by += 30
    assert await began.authenticate(basic("any", token).encode(), HERE) is not None
    began.close()


@pytest_twisted.ensureDeferred
async def test_a_token_of_nobody_is_valid_until_it_is_revoked(place: Place) -> None:
    token = await place.token("ci", "reader")
    (listed,) = await place.accounting.tokens(unheard)
    assert (listed["bound"], listed["listed"], listed["known"]) == (False, False, False)
    place.directory.is_down = True
    assert await place.login("any", token) is not None

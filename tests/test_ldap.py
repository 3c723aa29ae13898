"""Logins against a real LDAP directory: who is let in, as whom, in which groups, and what happens while it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import LogEvent, formatEvent

from proxy.access.principals import DirectoryUser
from proxy.errors import Overloaded, RightsUnknown
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.settings import LdapSettings
from proxy.statistics.recorders import UNRECORDED
from tests.support.slapd import BASE, READER, READER_PASSWORD, SLAPADD, SLAPD, Slapd

pytest.importorskip("ldap", reason="python-ldap is not here (pip install 'pypiproxy[ldap]')")
pytestmark = pytest.mark.skipif(SLAPD is None or SLAPADD is None, reason="slapd is not here (Debian: apt install slapd)")

from proxy.identity.ldap import LdapDirectory  # noqa: E402  # what it needs may be absent

reactor: Any = default_reactor
PASSWORD = "alice's pässword".encode()
ALICE = DirectoryUser("alice", frozenset({"Web Developers"}))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    made = Slapd(tmp_path_factory.mktemp("ldap") / "slapd").prepare().start()
    yield made
    made.stop()


@pytest.fixture
def slapd(prepared: Slapd) -> Iterator[Slapd]:
    """A directory that answers, whatever a test does with it."""
    yield prepared
    prepared.stop()
    prepared.start()


Make = Callable[..., LdapDirectory]


@pytest.fixture
def make(_clean_reactor: None) -> Iterator[Make]:
    """Makes what asks the given directory."""
    made: list[LdapDirectory] = []

    def make(slapd: Slapd, **settings: Any) -> LdapDirectory:
        known = LdapSettings(
            url=slapd.url,
            ca_file=slapd.ca_file,
            bind_dn=READER,
            bind_password=READER_PASSWORD,
            base=f"ou=people,{BASE}",
            group_base=f"ou=groups,{BASE}",
            timeout=2.0,
        )
        made.append(LdapDirectory(replace(known, **settings), reactor, Observing(Inline(), UNRECORDED, time.time)))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("over", ["StartTLS", "ldaps", "plain"])
async def test_a_right_password_is_let_in_with_its_groups(prepared: Slapd, make: Make, over: str) -> None:
    ways: dict[str, dict[str, Any]] = {"StartTLS": {}, "ldaps": {"url": prepared.tls_url}, "plain": {"start_tls": False}}
    directory = make(prepared, **ways[over])
    assert await directory.login("alice", PASSWORD) == ALICE
    assert await directory.login("bob", b"bob's") == DirectoryUser("bob", frozenset({"admins"}))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("alice", b"wrong"),
        ("alice", b""),
        ("alice", b"\0"),
        ("alice", PASSWORD + b"\0"),
        ("alice", b"x" * 5000),
        ("carol", b"wrong"),
        ("", b"wrong"),
        ("*", PASSWORD),
        ("al*", PASSWORD),
        ("alice)(uid=*", PASSWORD),
        ("alice)(|(uid=*)", PASSWORD),
        ("alice\0", PASSWORD),
        ("uid=alice,ou=people,dc=corp,dc=example", PASSWORD),
        ("reader", READER_PASSWORD.encode()),
        ("twin", b"twin's"),
    ],
)
async def test_what_is_not_right_is_let_in_by_nobody(prepared: Slapd, make: Make, user: str, password: bytes) -> None:
    assert await make(prepared).login(user, password) is None


@pytest_twisted.ensureDeferred
async def test_a_user_is_found_without_a_password(prepared: Slapd, make: Make) -> None:
    directory = make(prepared)
    assert await directory.find("ALICE") == ALICE
    for nobody in ("carol", "", "*", "al*", "alice)(uid=*", "reader", "twin"):
        assert await directory.find(nobody) is None


@pytest_twisted.ensureDeferred
async def test_the_name_is_that_of_the_entry(prepared: Slapd, make: Make) -> None:
    assert await make(prepared).login("ALICE", PASSWORD) == ALICE


@pytest_twisted.ensureDeferred
async def test_names_with_signs_of_filters_in_them_find_their_groups(prepared: Slapd, make: Make) -> None:
    assert await make(prepared).login("odd", b"odd's") == DirectoryUser("odd", frozenset({"Web Developers"}))


@pytest_twisted.ensureDeferred
async def test_groups_are_found_as_they_are_configured(prepared: Slapd, make: Make) -> None:
    unix = make(prepared, group_filter="(&(objectClass=posixGroup)(memberUid={user}))")
    assert await unix.login("alice", PASSWORD) == DirectoryUser("alice", frozenset({"unix"}))
    assert await make(prepared, group_base=None).login("alice", PASSWORD) == DirectoryUser("alice")
    absent = make(prepared, group_base=f"ou=none,{BASE}")
    assert await absent.login("alice", PASSWORD) == DirectoryUser("alice")


@pytest_twisted.ensureDeferred
async def test_a_filter_keeps_others_out(prepared: Slapd, make: Make) -> None:
    directory = make(prepared, user_filter="(cn=Alice)")
    assert await directory.login("alice", PASSWORD) == ALICE
    assert await directory.login("bob", b"bob's") is None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("over", ["ldap", "ldaps"])
async def test_a_directory_that_nobody_vouches_for_is_told_nothing(prepared: Slapd, make: Make, over: str) -> None:
    directory = make(prepared, url=prepared.url if over == "ldap" else prepared.tls_url, ca_file=None)
    with pytest.raises(RightsUnknown, match="the directory does not answer"):
        await directory.login("alice", PASSWORD)


@pytest_twisted.ensureDeferred
async def test_a_wrong_password_of_who_searches_is_nobodys_fault(prepared: Slapd, make: Make, logged: list[LogEvent]) -> None:
    with pytest.raises(RightsUnknown):
        await make(prepared, bind_password="old").login("alice", PASSWORD)
    lines = [formatEvent(each) or "" for each in logged]
    assert any(each.endswith("does not answer: the password of access.ldap.bind_dn is wrong") for each in lines)
    assert not any("old" in each or "pässword" in each for each in lines)


@pytest_twisted.ensureDeferred
async def test_a_password_file_that_changes_is_used(prepared: Slapd, make: Make, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    directory = make(prepared, bind_password="old", bind_password_file=file)
    with pytest.raises(RightsUnknown):
        await directory.login("alice", PASSWORD)
    file.write_text(f"{READER_PASSWORD}\n")
    (rotating,) = directory.rotating
    await rotating.look()
    assert await directory.login("alice", PASSWORD) == ALICE


@pytest_twisted.ensureDeferred
async def test_nobody_is_let_in_while_it_is_down(slapd: Slapd, make: Make, logged: list[LogEvent]) -> None:
    directory = make(slapd)
    assert await directory.login("alice", PASSWORD) == ALICE
    slapd.stop()
    for _ in range(2):
        with pytest.raises(RightsUnknown, match="the directory does not answer"):
            await directory.login("alice", PASSWORD)
    slapd.start()
    assert await directory.login("alice", PASSWORD) == ALICE
    lines = [formatEvent(each) for each in logged if each.get("log_namespace", "").startswith("proxy.identity.ldap")]
    down, up = lines
    assert (down or "").startswith(f"the directory {slapd.url} does not answer: Can't contact LDAP server")
    assert up == f"the directory {slapd.url} answers again"


@pytest_twisted.ensureDeferred
async def test_a_directory_that_says_nothing_is_given_up(slapd: Slapd, make: Make) -> None:
    directory = make(slapd, timeout=0.3)
    slapd.hold()
    with pytest.raises(RightsUnknown, match="the directory does not answer"):
        await directory.login("alice", PASSWORD)


@pytest_twisted.ensureDeferred
async def test_more_than_may_wait_are_refused_and_the_directory_is_not_blamed(
    prepared: Slapd, make: Make, logged: list[LogEvent]
) -> None:
    directory = make(prepared)
    assert directory.overload is None
    logins = [Deferred.fromCoroutine(directory.find("alice")) for _ in range(200)]
    for _ in range(3):
        with pytest.raises(Overloaded, match="too many logins wait for the directory: ask again"):
            await directory.login("alice", PASSWORD)
    assert [found for _, found in await DeferredList(logins, fireOnOneErrback=True)] == [ALICE] * 200
    assert directory.trouble is None
    assert (directory.overload or "").startswith("more than 200 logins waited for the directory of access.ldap")
    lines = [formatEvent(each) for each in logged if each.get("log_namespace", "").startswith("proxy.identity.ldap")]
    assert lines == [f"200 logins wait for the directory {prepared.url}: others are answered 503"]


@pytest_twisted.ensureDeferred
async def test_many_may_log_in_at_once(prepared: Slapd, make: Make) -> None:
    directory = make(prepared)
    logins = [Deferred.fromCoroutine(directory.login("alice", PASSWORD)) for _ in range(50)]
    assert [found for _, found in await DeferredList(logins, fireOnOneErrback=True)] == [ALICE] * 50

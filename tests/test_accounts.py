"""Who stands behind a credential: found once for all who send it, forgotten at once, and never guessed quickly."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import bcrypt
import pytest
from msgspec import Struct, field
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from proxy.access.principals import PREFETCH, WARM, Principal, PrincipalKind
from proxy.access.roles import Extent, Role, Scope
from proxy.access.tokens import Confinement, narrowed, read_token
from proxy.accounts.accounts import Accounts
from proxy.accounts.audit import AuditFile, AuditLog
from proxy.accounts.failures import FailedLogins
from proxy.accounts.tokens import IssuedScope, Tokens
from proxy.accounts.turns import Turns
from proxy.accounts.users import UsersFile
from proxy.core.audited import Audited, AuditOutcome
from proxy.core.networks import client_network
from proxy.errors import NotFound, Overloaded, RightsUnknown, StorageFailed
from proxy.interfaces import IAuditLog, IOffload
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.model import Versioned
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.memory import MemoryVersioned
from tests.support.logins import QUICK, basic

T = TypeVar("T")
THEN = 1_800_000_000.0
ALICE = Principal(PrincipalKind.USER, "alice")


@implementer(IOffload)
class Later:
    """A thread that computes when it is told to."""

    def __init__(self) -> None:
        self.memory = Inline().memory
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.holds = False
        self.done = 0
        #: What was computed of what.
        self.given: list[tuple[object, ...]] = []

    async def run(self, function: Callable[..., T], *args: object) -> T:
        self.done += 1
        self.given.append(args)
        if not self.holds:
            return function(*args)
        waiter: Deferred[T] = Deferred()
        self.waiting.append((waiter, lambda: function(*args)))
        return await waiter

    run_first = run

    def go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for waiter, work in waiting:
            waiter.callback(work())


@implementer(IAuditLog)
class Noted(Struct, frozen=True):
    """An audit log in memory."""

    entries: list[Audited] = field(default_factory=list)

    def note(self, entry: Audited) -> None:
        self.entries.append(entry)


class Unreadable(MemoryVersioned):
    """Records that cannot be read while *broken*."""

    broken = False

    async def read(self, key: str) -> Versioned | None:
        if self.broken:
            raise StorageFailed("the disk is gone")
        return await super().read(key)


class Room:
    """Accounts in *folder*, with a clock that tests set."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.hashing = Later()
        self.noted = Noted()
        self.users = UsersFile(
            folder / "users",
            expected=False,
            observing=Observing(Inline(), UNRECORDED, self.wall),
            hashing=self.hashing,
            changed=self.changed,
            cost=QUICK,
        )
        self.records = Unreadable(self.wall)
        self.tokens = Tokens(self.records, self.wall)
        self.accounts = Accounts(self.users, self.tokens, self.clock, self.wall, self.noted)

    def wall(self) -> float:
        return THEN + self.clock.seconds()

    def changed(self) -> None:
        self.accounts.forget()

    def ask(self, credential: str, origin: str = "192.0.2.1") -> Deferred[Principal | None]:
        return Deferred.fromCoroutine(self.accounts.authenticate(credential.encode(), origin))


def now(work: Any) -> Any:
    """The result of *work*, which waits for nothing."""
    found: list[Any] = []
    (work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)).addBoth(found.append)
    assert found, "it waits"
    if isinstance(found[0], Failure):
        found[0].raiseException()
    return found[0]


class AccountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.room = Room(folder)
        now(self.room.users.add("alice", b"secret"))
        self.room.hashing.done = 0
        self.right = basic("alice", "secret")

    def test_a_burst_with_one_password_costs_one_hash(self) -> None:
        self.room.hashing.holds = True
        asked = [self.room.ask(self.right, f"192.0.2.{number}") for number in range(100)]
        self.room.hashing.go()
        self.assertEqual({self.successResultOf(each) for each in asked}, {ALICE})
        self.assertEqual(self.room.hashing.done, 1)
        self.assertEqual(now(self.room.ask(self.right)), ALICE)
        self.assertEqual(self.room.hashing.done, 1)

    def test_it_is_remembered_for_a_minute(self) -> None:
        self.assertIsNone(self.room.accounts.remembered(self.right.encode()))
        now(self.room.ask(self.right))
        self.room.clock.advance(59.0)
        self.assertEqual(self.room.accounts.remembered(self.right.encode()), ALICE)
        self.assertIsNone(self.room.accounts.remembered(basic("alice", "Secret").encode()))
        self.room.clock.advance(1.0)
        self.assertIsNone(self.room.accounts.remembered(self.right.encode()))
        now(self.room.ask(self.right))
        self.assertEqual(self.room.hashing.done, 2)

    def test_another_password_counts_at_once_also_for_what_is_being_verified(self) -> None:
        now(self.room.ask(self.right))
        now(self.room.users.change("alice", b"other"))
        self.assertIsNone(self.room.accounts.remembered(self.right.encode()))
        self.room.hashing.holds = True
        asked = self.room.ask(basic("alice", "other"))
        self.room.hashing.holds = False
        now(self.room.users.remove("alice"))
        self.room.hashing.go()
        self.successResultOf(asked)
        self.assertIsNone(self.room.accounts.remembered(basic("alice", "other").encode()))

    def test_while_the_file_cannot_be_read_who_is_remembered_is_not_known_either(self) -> None:
        now(self.room.ask(self.right))
        self.room.users.path.unlink()
        now(self.room.users.look())
        self.assertIsNone(self.room.accounts.remembered(self.right.encode()))
        self.failureResultOf(self.room.ask(self.right), RightsUnknown)

    def test_wrong_credentials_wait_longer_and_longer_and_right_ones_never(self) -> None:
        waits = []
        for number in range(9):
            asked = self.room.ask(basic("alice", f"guess {number}"))
            before = self.room.clock.seconds()
            while not asked.called:
                self.room.clock.advance(0.1)
            self.assertIsNone(self.successResultOf(asked))
            waits.append(round(self.room.clock.seconds() - before, 1))
            self.assertEqual(now(self.room.ask(self.right, "192.0.2.2")), ALICE)
        self.assertEqual(waits[0], 0.1)
        self.assertEqual(waits, sorted(waits))
        self.assertEqual(waits[-1], 5.0)
        self.room.accounts.forget()
        self.assertEqual(now(self.room.ask(self.right)), ALICE)  # from where the guesses came

    def test_a_right_password_is_examined_after_at_most_one_of_each_address_that_guesses(self) -> None:
        self.room.hashing.holds = True
        guesses = [self.room.ask(basic("alice", f"guess {number}")) for number in range(50)]
        asked = self.room.ask(self.right, "192.0.2.2")
        for _ in range(2):
            self.room.hashing.go()
        self.room.hashing.go()
        self.assertEqual(self.successResultOf(asked), ALICE)
        self.assertLessEqual(self.room.hashing.done, 4)
        self.room.accounts.close()
        for each in guesses:
            each.addErrback(lambda failure: failure.trap(CancelledError) and None)
        for _ in range(60):
            self.room.hashing.go()
            self.room.clock.advance(6.0)

    def test_who_brings_too_much_is_told_to_ask_again(self) -> None:
        self.room.hashing.holds = True
        guesses = [self.room.ask(basic("alice", f"guess {number}")) for number in range(70)]
        refused = [each for each in guesses if each.called]
        self.assertEqual(len(refused), 5)
        for each in refused:
            self.failureResultOf(each, Overloaded)
        self.room.hashing.holds = False
        self.room.hashing.go()
        self.room.clock.advance(6.0)

    def test_it_takes_as_much_work_to_find_out_that_there_is_no_such_user(self) -> None:
        self.room.ask(basic("nobody", "secret"))
        self.assertEqual(self.room.hashing.done, 1)
        self.room.clock.advance(6.0)

    def test_who_is_none_is_compared_with_a_hash_that_takes_as_long_as_one_of_the_file(self) -> None:
        slow = bcrypt.hashpw(b"secret", bcrypt.gensalt(5)).decode()
        self.room.users.path.write_text("".join(f"{name}:{slow}\n" for name in ("alice", "bob")))
        self.room.hashing.given.clear()
        for user in ("nobody", "alice", "nobody else"):
            self.room.ask(basic(user, "secret"))
        self.room.clock.advance(6.0)
        self.assertEqual(self.room.hashing.given, [(b"secret", slow)] * 3)
        # The password of that hash is not one of who is none.
        self.assertIsNone(self.room.accounts.remembered(basic("nobody", "secret").encode()))
        self.assertIsNotNone(self.room.accounts.remembered(basic("alice", "secret").encode()))

    def test_addresses_of_one_network_are_one_client(self) -> None:
        self.room.hashing.holds = True
        guesses = [self.room.ask(basic("alice", f"guess {number}"), f"2001:db8:0:1::{number:x}") for number in range(50)]
        asked = self.room.ask(self.right, "2001:db8:0:2::1")
        for _ in range(3):
            self.room.hashing.go()
        self.assertEqual(self.successResultOf(asked), ALICE)
        self.room.accounts.close()
        for each in guesses:
            each.addErrback(lambda failure: failure.trap(CancelledError) and None)
        for _ in range(60):
            self.room.hashing.go()
            self.room.clock.advance(6.0)

    def test_a_file_of_users_that_is_a_directory_is_not_an_empty_one(self) -> None:
        self.room.users.path.unlink()
        self.room.users.path.mkdir()
        self.failureResultOf(self.room.ask(self.right), RightsUnknown)

    def test_what_can_be_no_credential_is_wrong(self) -> None:
        for each in ("", "Basic", "Bearer x", basic("alice", "secret")[:-3] + "!", "Digest x"):
            asked = self.room.ask(each)
            self.room.clock.advance(6.0)
            self.assertIsNone(self.successResultOf(asked), each)
        self.assertEqual(self.room.hashing.done, 0)

    def test_a_part_of_the_proxy_is_known_by_what_it_was_entrusted_with(self) -> None:
        secret = self.room.accounts.entrust(WARM)
        self.assertEqual(now(self.room.ask(basic("warm", secret))), WARM)
        self.assertEqual(secret, self.room.accounts.entrust(WARM))
        self.assertNotEqual(secret, self.room.accounts.entrust(PREFETCH))

    def test_the_audit_log_has_no_name_that_may_be_a_password(self) -> None:
        for user, password in (("alice", "secret"), ("alice", "hunter2"), ("hunter2", "alice")):
            self.room.ask(basic(user, password))
        self.room.clock.advance(6.0)
        entries = [(each.who, each.outcome) for each in self.room.noted.entries]
        wrong = AuditOutcome.WRONG
        self.assertEqual(entries, [("user:alice", AuditOutcome.DONE), ("user:alice", wrong), ("an unknown user", wrong)])
        self.assertNotIn("hunter2", repr(self.room.noted))

    # -- tokens ------------------------------------------------------------------------------------------------------------

    def test_a_token_is_a_password_of_any_user_and_a_bearer(self) -> None:
        scope = IssuedScope(Role.UPLOADER, ("internal",), ("acme-*",))
        name, text = now(self.room.tokens.issue("ci", [scope], None))
        own = (Scope(Role.UPLOADER, Extent(("internal",), ("acme-*",))),)
        for each in (basic("__token__", text), basic("", text), f"Bearer {text}"):
            who = now(self.room.ask(each))
            self.assertEqual(who, Principal(PrincipalKind.TOKEN, name, user="ci", own=own))
        self.assertEqual(self.room.hashing.done, 0)
        acts_for_user = now(self.room.ask(f"Bearer {now(self.room.tokens.issue('alice', None, None))[1]}"))
        self.assertEqual((acts_for_user.user, acts_for_user.own), ("alice", None))

    def test_what_is_stored_is_no_token(self) -> None:
        _, text = now(self.room.tokens.issue("ci", None, None))
        private = read_token(text).private
        stored = b"".join(each.value for each in now(self.room.records.scan("")))
        for secret in (text.encode(), private, private.hex().encode(), text.split("_", 2)[2].encode()):
            self.assertNotIn(secret, stored)

    def test_a_token_that_is_revoked_is_wrong_at_once(self) -> None:
        name, text = now(self.room.tokens.issue("ci", None, None))
        now(self.room.ask(f"Bearer {text}"))
        now(self.room.tokens.revoke(name))
        self.room.accounts.forget()
        asked = self.room.ask(f"Bearer {text}")
        self.room.clock.advance(6.0)
        self.assertIsNone(self.successResultOf(asked))
        with self.assertRaises(NotFound):
            now(self.room.tokens.revoke(name))

    def test_a_token_expires_also_while_it_is_remembered(self) -> None:
        _, text = now(self.room.tokens.issue("ci", None, self.room.wall() + 100.0))
        brief = str(narrowed(read_token(text), Confinement(expires=self.room.wall() + 10.0), os.urandom(32)))
        for each, seconds in ((brief, 9.0), (text, 70.0)):
            bearer = f"Bearer {each}"
            self.assertIsNotNone(now(self.room.ask(bearer)))
            self.room.clock.advance(seconds)
            self.assertIsNotNone(now(self.room.ask(bearer)))
            self.room.clock.advance(11.0)
            self.assertIsNone(self.room.accounts.remembered(bearer.encode()))
            asked = self.room.ask(bearer)
            self.room.clock.advance(5.0 if each == text else 0.1)
            self.assertIsNone(self.successResultOf(asked))

    def test_a_narrowed_token_brings_what_it_is_confined_to(self) -> None:
        name, text = now(self.room.tokens.issue("ci", None, None))
        narrow = narrowed(read_token(text), Confinement(projects=("acme-*",)), os.urandom(32))
        who = now(self.room.ask(f"Bearer {narrow}"))
        self.assertEqual((who.name, who.narrowed), (name, (Extent(projects=("acme-*",)),)))

    def test_while_tokens_cannot_be_read_they_are_neither_right_nor_wrong(self) -> None:
        _, text = now(self.room.tokens.issue("ci", None, None))
        self.room.records.broken = True
        self.failureResultOf(self.room.ask(f"Bearer {text}"), RightsUnknown)
        self.room.records.broken = False
        self.assertIsNotNone(now(self.room.ask(f"Bearer {text}")))

    def test_a_token_of_a_user_of_the_file_ends_with_the_user(self) -> None:
        _, text = now(self.room.tokens.issue("alice", None, None, bound=True))
        _, other = now(self.room.tokens.issue("service", None, None))
        file = self.room.users.path.read_text()
        self.assertIsNotNone(now(self.room.ask(f"Bearer {text}")))
        self.room.users.path.write_text("# somebody has removed alice by hand\n")
        now(self.room.users.look())
        asked = self.room.ask(f"Bearer {text}")
        self.room.clock.advance(6.0)
        self.assertIsNone(self.successResultOf(asked))
        self.assertIsNotNone(now(self.room.ask(f"Bearer {other}")))
        self.room.users.path.write_text(file)
        self.assertIsNotNone(now(self.room.ask(f"Bearer {text}")))
        # A file that cannot be read says nothing against users who were there.
        self.room.users.path.unlink()
        self.room.accounts.forget()
        self.assertIsNotNone(now(self.room.ask(f"Bearer {text}")))

    def test_the_last_use_is_noted_once_an_hour(self) -> None:
        name, text = now(self.room.tokens.issue("ci", None, None))
        used = lambda: now(self.room.tokens.issued())[name][1]  # noqa: E731
        self.assertIsNone(used())
        first = self.room.wall()
        for _ in range(3):
            now(self.room.ask(f"Bearer {text}"))
            self.assertEqual(used(), first)
            self.room.clock.advance(1000.0)
        self.room.clock.advance(1000.0)
        now(self.room.ask(f"Bearer {text}"))
        self.assertEqual(used(), self.room.wall())

    def test_all_tokens_of_a_user_are_revoked_together(self) -> None:
        names = sorted(now(self.room.tokens.issue("ci", None, None))[0] for _ in range(2))
        other, _ = now(self.room.tokens.issue("alice", None, None))
        self.assertEqual(sorted(now(self.room.tokens.revoke_of("ci"))), names)
        self.assertEqual(list(now(self.room.tokens.issued())), [other])


# -- turns -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:a:b:c:d", "2001:db8:0:1::/64"),
        ("fe80::a:b%eth0", "fe80::/64"),
        ("a:b", "a:b"),
        ("-", "-"),
    ],
)
def test_a_client_has_one_address_or_a_network_of_them(address: str, network: str) -> None:
    assert client_network(address) == network


def test_origins_take_turns() -> None:
    turns, order = Turns(), []
    gates: dict[str, Deferred[None]] = {}

    async def work(name: str) -> None:
        async with turns.of(name[0], "ann"):
            order.append(name)
            gates[name] = Deferred()
            await gates[name]

    works = {name: Deferred.fromCoroutine(work(name)) for name in ("a1", "a2", "a3", "b1", "c1", "c2")}
    works["c1"].cancel()
    works["c1"].addErrback(lambda failure: failure.trap(CancelledError) and None)
    for name in ("a1", "a2", "b1", "c2", "a3"):
        gates[name].callback(None)
    now(gatherResults([*works.values()]))
    assert order == ["a1", "a2", "b1", "c2", "a3"]


def test_names_of_one_origin_take_turns_so_that_guesses_of_one_do_not_delay_another() -> None:
    turns, order = Turns(), []
    gates: dict[str, Deferred[None]] = {}

    async def work(name: str) -> None:
        async with turns.of("192.0.2.1", name[0]):
            order.append(name)
            gates[name] = Deferred()
            await gates[name]

    works = {name: Deferred.fromCoroutine(work(name)) for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2")}
    works["c1"].cancel()
    works["c1"].addErrback(lambda failure: failure.trap(CancelledError) and None)
    expected = ["a1", "a2", "b1", "a3", "b2", "a4"]
    for name in expected:
        gates[name].callback(None)
    now(gatherResults([*works.values()]))
    assert order == expected


def test_failures_are_forgotten_after_ten_minutes_and_after_a_success() -> None:
    clock = Clock()
    failures = FailedLogins(clock.seconds)
    assert [failures.failed("a", "x") for _ in range(3)] == [0.1, 0.2, 0.4]
    assert failures.failed("a", "y") == failures.failed("b", "x") == 0.1
    clock.advance(601.0)
    assert failures.failed("a", "x") == 0.1
    failures.failed("a", "x")
    failures.succeeded("a", "x")
    assert failures.failed("a", "x") == 0.1


# -- the audit log -----------------------------------------------------------------------------------------------------------


class Book:
    """An audit log in *folder*."""

    def __init__(self, folder: Path, size: int = 10_000, files: int = 3) -> None:
        self.clock = Clock()
        self.ours = True
        self.path = folder / "audit.jsonl"
        file = AuditFile(self.path, size, files, lambda: self.ours)
        self.log = AuditLog(file, Inline(), self.clock, lambda: THEN + self.clock.seconds())

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def done(project: str = "six", outcome: AuditOutcome = AuditOutcome.DONE) -> Audited:
    return Audited("user:alice", "192.0.2.1", "upload", outcome, "internal", project, "six-1.0.tar.gz")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_a_line_says_who_did_what_from_where(book: Book) -> None:
    book.log.note(done())
    book.clock.advance(1.0)
    assert book.lines() == [
        {
            "time": "2027-01-15T08:00:00.000Z",
            "who": "user:alice",
            "from": "192.0.2.1",
            "action": "upload",
            "outcome": "done",
            "index": "internal",
            "project": "six",
            "what": "six-1.0.tar.gz",
        }
    ]
    assert (book.path.stat().st_mode & 0o777) == 0o600


def test_requests_without_a_credential_are_counted_once_a_minute(book: Book) -> None:
    for number in range(500):
        book.log.note(Audited("anonymous", f"192.0.2.{number}", "read", AuditOutcome.LOGIN, "internal", f"p{number}"))
    book.clock.advance(59.0)
    assert book.lines() == []
    book.clock.advance(2.0)
    book.clock.advance(1.0)
    (line,) = book.lines()
    assert (line["who"], line["outcome"], line["index"], line["count"]) == ("anonymous", "login required", "internal", 500)


def test_refusals_of_one_kind_have_one_line_and_a_number(book: Book) -> None:
    for _ in range(100):
        book.log.note(done(outcome=AuditOutcome.REFUSED))
    book.clock.advance(1.0)
    assert [each.get("count") for each in book.lines()] == [None]
    now(book.log.close())
    assert [each.get("count") for each in book.lines()] == [None, 99]


def test_kinds_of_refusals_are_bounded(book: Book) -> None:
    for number in range(5000):
        book.log.note(done(f"p{number}", AuditOutcome.REFUSED))
    now(book.log.close())
    everything = [json.loads(line) for path in book.path.parent.iterdir() for line in path.read_text().splitlines()]
    assert len(everything) <= 1002
    assert {"others"} <= {each["who"] for each in everything}


def test_the_file_is_rotated_and_bounded(tmp_path: Path) -> None:
    book = Book(tmp_path, size=1000, files=3)
    for number in range(100):
        book.log.note(done(f"p{number}"))
        book.clock.advance(1.0)
    assert sorted(os.listdir(tmp_path)) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size < 1300 for path in tmp_path.iterdir())
    assert book.lines()[-1]["project"] == "p99"
    alone = Book(tmp_path / "alone", size=1000, files=1)
    alone.path.parent.mkdir()
    for number in range(100):
        alone.log.note(done(f"p{number}"))
        alone.clock.advance(1.0)
    assert os.listdir(alone.path.parent) == ["audit.jsonl"]


def test_lines_wait_for_a_disk_that_takes_none_and_nothing_is_written_elsewhere(book: Book) -> None:
    book.ours = False
    book.log.note(done("first"))
    book.clock.advance(1.0)
    assert book.lines() == []
    for number in range(10_005):
        book.log.note(done(f"p{number}"))
    book.ours = True
    now(book.log.close())
    lines = book.lines()
    assert lines[0] == {"action": "lines were dropped", "count": 6}
    assert (len(lines), lines[1]["project"]) == (10_001, "first")

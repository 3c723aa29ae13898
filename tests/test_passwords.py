"""The file of users, and the hashes in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import pytest_twisted

from proxy.accounts import passwords
from proxy.accounts.users import UsersFile, read_users, users_in, without_use
from proxy.errors import BadRequest, NotFound, ProxyError, RightsUnknown, StorageFailed
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.statistics.recorders import UNRECORDED
from tests.support.logins import QUICK
from tests.support.replacing import replace

#: As ``htpasswd -nbB alice secret`` and ``htpasswd -nbm`` write them.
BCRYPT = "$2y$05$AaQZpzvbR8l3vAVDm5pFoeoLZSzrrkYHPFcqeYJFYPj5XmFn3nC0W"
MD5 = "$apr1$QnKqGmN8$Rnm0DGmZfsDqYpXCkKTDw1"


def hash_of(password: bytes) -> str:
    return passwords.hashed(password)


@pytest.mark.parametrize("password", [b"secret", b"x" * 1000, "pässwörd".encode(), b" "])
def test_a_password_is_compared_with_its_hash(password: bytes) -> None:
    made = hash_of(password)
    assert made.startswith("$argon2id$")
    assert passwords.is_hash(made)
    assert passwords.is_right(password, made)
    assert not passwords.is_right(password + b"x", made)
    assert not passwords.is_right(b"", made)
    assert hash_of(password) != made


def test_what_other_programs_write_is_understood() -> None:
    import bcrypt

    for prefix in ("2b", "2a"):
        made = bcrypt.hashpw(b"secret", bcrypt.gensalt(4, prefix.encode())).decode()
        for written in (made, made.replace(f"${prefix}$", "$2y$")):
            assert passwords.is_hash(written)
            assert passwords.is_right(b"secret", written)
            assert not passwords.is_right(b"Secret", written)
    long = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert passwords.is_right(b"x" * 100, long)  # as htpasswd has it
    assert not passwords.is_right(b"a\0b", long)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        MD5,
        "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
        "$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
        "$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
        "$argon2id$v=19$m=65536,t=300,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
        BCRYPT.replace("$05$", "$31$"),
        BCRYPT[:-1],
    ],
)
def test_what_is_no_hash_or_too_expensive_is_of_no_use(text: str) -> None:
    assert not passwords.is_hash(text)


def test_nobody_has_the_password_that_unknown_users_are_compared_with() -> None:
    for cost in (passwords.SERVER_COST, QUICK):
        nobodys = passwords.nobodys(cost)
        assert passwords.is_hash(nobodys)
        assert nobodys.split("$")[:4] == passwords.hashed(b"x", cost).split("$")[:4]  # it takes as long
        assert not passwords.is_right(b"", nobodys)


def test_a_file_is_read_as_htpasswd_writes_it() -> None:
    users = read_users(f"# users\n\nalice:{BCRYPT}\nbob@corp.example:{MD5}\n".encode())
    assert users == {"alice": BCRYPT, "bob@corp.example": MD5}
    assert without_use(users) == ["bob@corp.example"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"alice\n", "line 1: expected the name of a user, a colon and a hash"),
        (b"# x\na b:hunter2\n", "line 2: expected the name of a user"),
        (b"alice:x\nalice:y\n", "line 2: the user alice is there twice"),
        (b"\xff\xfe", "is not a text file"),
    ],
)
def test_a_file_that_is_none_is_told_without_its_contents(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_users(data)
    assert "hunter2" not in str(caught.value)


class Room:
    """A file of users in *folder*, in this thread."""

    def __init__(self, folder: Path, *, expected: bool = False) -> None:
        self.changes = 0
        self.path = folder / "users"
        self.file = UsersFile(
            self.path,
            expected=expected,
            observing=Observing(Inline(), UNRECORDED, lambda: 2_000_000_000.0),
            hashing=Inline(),
            changed=self.changed,
            cost=QUICK,
        )

    def changed(self) -> None:
        self.changes += 1


@pytest_twisted.ensureDeferred
async def test_users_are_added_changed_and_removed_and_other_lines_stay(tmp_path: Path) -> None:
    room = Room(tmp_path)
    await room.file.add("alice", b"one")
    assert (room.path.stat().st_mode & 0o777) == 0o600
    replace(room.path, f"# ours\n{room.path.read_text()}bob:{BCRYPT}\n")
    room.path.chmod(0o640)
    assert await room.file.is_right("alice", b"one")
    await room.file.change("alice", b"two")
    assert (await room.file.is_right("alice", b"one"), await room.file.is_right("alice", b"two")) == (False, True)
    await room.file.remove("alice")
    assert not await room.file.is_right("alice", b"two")
    assert room.path.read_text() == f"# ours\nbob:{BCRYPT}\n"
    assert (room.path.stat().st_mode & 0o777) == 0o640
    assert os.listdir(tmp_path) == ["users"]
    assert room.changes >= 4


@pytest_twisted.ensureDeferred
async def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    room = Room(tmp_path)
    room.path.symlink_to(tmp_path / "real" / "users")
    await room.file.add("alice", b"one")
    assert room.path.is_symlink()
    assert users_in(tmp_path / "real" / "users") == await room.file.users()


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    room = Room(tmp_path)
    await room.file.add("alice", b"one")
    before = room.path.read_bytes()
    refusals: list[tuple[str, type[ProxyError]]] = []
    for work in (
        room.file.add("alice", b"two"),
        room.file.add("a:b", b"two"),
        room.file.add("", b"two"),
        room.file.add("carol", b""),
        room.file.change("carol", b"two"),
        room.file.remove("carol"),
    ):
        try:
            await work
        except ProxyError as error:
            refusals.append((str(error), type(error)))
    assert [kind for _, kind in refusals] == [BadRequest, BadRequest, BadRequest, BadRequest, NotFound, NotFound]
    assert room.path.read_bytes() == before


@pytest_twisted.ensureDeferred
async def test_a_change_by_hand_is_seen_at_the_next_login(tmp_path: Path) -> None:
    room = Room(tmp_path)
    assert not await room.file.is_right("alice", b"one")
    replace(room.path, f"alice:{hash_of(b'one')}\n")
    assert await room.file.is_right("alice", b"one")
    replace(room.path, f"alice:{hash_of(b'two')}\n")
    assert not await room.file.is_right("alice", b"one")


@pytest_twisted.ensureDeferred
async def test_while_the_file_cannot_be_read_nobody_is_known(tmp_path: Path) -> None:
    room = Room(tmp_path)
    await room.file.add("alice", b"one")
    good = room.path.read_bytes()
    for broken in (b"nonsense\n", None):
        if broken is None:
            room.path.unlink()
        else:
            replace(room.path, broken)
        with pytest.raises(RightsUnknown, match=r"access\.users_file (line 1|cannot be read)"):
            await room.file.is_right("alice", b"one")
        assert not room.file.readable
        replace(room.path, good)
        assert await room.file.is_right("alice", b"one")
        assert room.file.readable


@pytest_twisted.ensureDeferred
async def test_a_file_that_the_configuration_names_has_to_be_there(tmp_path: Path) -> None:
    room = Room(tmp_path, expected=True)
    with pytest.raises(RightsUnknown, match="cannot be read"):
        await room.file.users()
    await room.file.add("alice", b"one")
    assert list(await room.file.users()) == ["alice"]
    assert await Room(tmp_path / "elsewhere").file.users() == {}


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_understood_is_not_written_over(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.path.write_text("nonsense\n")
    with pytest.raises(StorageFailed, match="line 1"):
        await room.file.add("alice", b"one")
    assert room.path.read_text() == "nonsense\n"


@pytest.mark.skipif(subprocess.call(["sh", "-c", "command -v htpasswd >/dev/null"]) != 0, reason="needs htpasswd")
def test_htpasswd_writes_files_for_us(tmp_path: Path) -> None:
    path = tmp_path / "users"
    subprocess.run(["htpasswd", "-cbB", path, "alice", "secret"], check=True, capture_output=True)
    users = users_in(path)
    assert users is not None
    assert passwords.is_right(b"secret", users["alice"])

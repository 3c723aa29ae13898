"""The file of users: a line ``name:hash`` for each, as htpasswd writes it.

It belongs to the operator, who may edit it with any tool: it is read again when it changes.  While it cannot be read or
understood nobody can log in with a password; what it said before does not count any more.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from twisted.internet.defer import DeferredLock

from proxy.access.principals import is_user_name
from proxy.accounts import passwords
from proxy.accounts.passwords import SERVER_COST, HashingCost
from proxy.errors import BadRequest, NotFound, RightsUnknown, StorageFailed
from proxy.interfaces import IOffload
from proxy.mechanism.flight import uninterrupted
from proxy.mechanism.rotating import Observing, Rotating, UnusableFile

#: What messages call it.
KEY = "access.users_file"
#: Its name in the data directory, where the configuration has no other.
NAME = "users"
_CONSEQUENCE = "nobody can log in with a password meanwhile; check the file, its owner and its mode"

#: Hashes by the names of users.
UserHashes = Mapping[str, str]


def read_users(data: bytes) -> dict[str, str]:
    """The users in a file with *data*; a hash that is of no use stands for a user who cannot log in.

    Raises ValueError, which states the line and what was expected.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError("is not a text file") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        # The line is not shown: somebody may have put a password there.
        if not colon or not is_user_name(name):
            raise ValueError(f"line {number}: expected the name of a user, a colon and a hash")
        if name in found:
            raise ValueError(f"line {number}: the user {name} is there twice; expected each once")
        found[name] = hashed.strip()
    return found


def without_use(users: UserHashes) -> list[str]:
    """The names of those of *users* who cannot log in: their hashes are of another kind."""
    return [name for name, hashed in users.items() if not passwords.is_hash(hashed)]


def users_in(path: Path) -> dict[str, str] | None:
    """The users in the file at *path*, none if it is not there, ``None`` if it cannot be read or understood.  Blocks."""
    try:
        return read_users(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None


class UsersFile:
    """The users in the file at *path*, which need not be there unless it is *expected*.

    *hashing* is the thread for hashes, which are made at *cost*; *changed* is called when there are other users, or other
    passwords.
    """

    def __init__(
        self,
        path: Path,
        *,
        expected: bool,
        observing: Observing,
        hashing: IOffload,
        changed: Callable[[], None],
        cost: HashingCost = SERVER_COST,
    ) -> None:
        self.path = path
        self._expected = expected
        self._observing = observing
        self._hashing = hashing
        self._cost = cost
        self._changed = changed
        self._rotating: Rotating[UserHashes] | None = None
        self._writing = DeferredLock()

    @property
    def trouble(self) -> str | None:
        """Why nobody is known, and what follows from it; ``None`` if the file could be read when it was looked at last."""
        file = self._rotating
        return None if file is None or file.trouble is None else f"{file.trouble}: {file.consequence}"

    @property
    def readable(self) -> bool:
        """Whether it could be read when it was looked at last."""
        return self._rotating is None or self._rotating.trouble is None

    async def look(self) -> None:
        """Find out whether the file has changed."""
        if self._rotating is None:
            if not self._expected and not await self._observing.thread.run(self.path.exists):
                return
            made = await self._observing.thread.run(self._read)
            if self._rotating is None:  # nobody else was faster
                self._rotating = made
        await self._rotating.look()

    def _read(self) -> Rotating[UserHashes]:
        """What follows the file from now on; nobody is known as long as it cannot be read.  Blocks."""
        files, load = {KEY: self.path}, partial(_load, self.path)
        try:
            return Rotating(files, load, self._observing, changed=self._changed, consequence=_CONSEQUENCE)
        except (OSError, UnusableFile):
            return Rotating(files, load, self._observing, changed=self._changed, value={}, consequence=_CONSEQUENCE)

    async def users(self) -> UserHashes:
        """The users as they are now.  Raises RightsUnknown while the file cannot be read."""
        await self.look()
        if self._rotating is None:
            return {}
        if self._rotating.trouble is not None:
            raise RightsUnknown(f"who may log in is not known for now: {self._rotating.trouble}")
        return self._rotating.value

    async def is_right(self, name: str, password: bytes) -> bool:
        """Whether *name* is a user with *password*.  Takes as long for who is none.  Raises RightsUnknown."""
        users = await self.users()
        hashed = users.get(name, "")
        known = passwords.is_hash(hashed)
        right = await self._hashing.run(passwords.is_right, password, hashed if known else _stand_in(name, users, self._cost))
        return known and right

    async def has(self, name: str) -> bool:
        """Whether *name* is a user, as far as the file could be read last.  Raises RightsUnknown if it never could."""
        await self.look()
        if self._rotating is None:
            return False
        if self._rotating.trouble is not None and not self._rotating.value:
            raise RightsUnknown(f"which users there are is not known for now: {self._rotating.trouble}")
        return name in self._rotating.value

    # -- changes -----------------------------------------------------------------------------------------------------------

    async def add(self, name: str, password: bytes) -> None:
        """Add the user *name*.  Raises BadRequest, StorageFailed."""

        def added(there: bool) -> None:
            if there:
                raise BadRequest(f"there is a user {name} already: pypiproxy user passwd {name} sets another password")

        await self._set(name, password, added)

    async def change(self, name: str, password: bytes) -> None:
        """Set another password for *name*.  Raises BadRequest, NotFound, StorageFailed."""

        def changed(there: bool) -> None:
            if not there:
                raise NotFound(f"there is no user {name}: pypiproxy user list prints those that there are")

        await self._set(name, password, changed)

    async def remove(self, name: str) -> None:
        """Remove the user *name*.  Raises NotFound, StorageFailed."""

        def removed(there: bool) -> None:
            if not there:
                raise NotFound(f"there is no user {name}: pypiproxy user list prints those that there are")

        await self._write(name, None, removed)

    async def _set(self, name: str, password: bytes, check: Callable[[bool], None]) -> None:
        if not is_user_name(name):
            raise BadRequest(f"{name!r} is no name of a user: expected letters, digits and, inside, any of . _ @ + -")
        if not password or b"\0" in password:
            raise BadRequest("the password is empty or has a NUL: expected another one")
        await self._write(name, await self._hashing.run(passwords.hashed, password, self._cost), check)

    async def _write(self, name: str, hashed: str | None, check: Callable[[bool], None]) -> None:
        await uninterrupted(self._written(name, hashed, check))

    async def _written(self, name: str, hashed: str | None, check: Callable[[bool], None]) -> None:
        await self._writing.acquire()
        try:
            await self._observing.thread.run(_replace, self.path, name, hashed, check)
        except OSError as error:
            raise StorageFailed(f"{self.path} cannot be written: {error.strerror}") from error
        finally:
            self._writing.release()
        await self.look()
        self._changed()


def _stand_in(name: str, users: UserHashes, cost: HashingCost) -> str:
    """The hash that the password of *name*, who is none of *users*, is compared with: it takes as long as one of theirs.

    Where there are none, as long as one that is made at *cost*.
    """
    usable = sorted(hashed for hashed in users.values() if passwords.is_hash(hashed))
    if not usable:
        return passwords.nobodys(cost)
    return usable[int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % len(usable)]


def _load(path: Path, contents: Mapping[str, bytes]) -> UserHashes:
    if os.path.isdir(path):
        raise UnusableFile(f"{KEY} is a directory, not a file of users")
    try:
        return read_users(contents[KEY])
    except ValueError as error:
        raise UnusableFile(f"{KEY} {error}") from None


def _replace(path: Path, name: str, hashed: str | None, check: Callable[[bool], None]) -> None:
    """Write the file at *path* anew with this hash for *name*, ``None``: without *name*; other lines stay as they are."""
    path = path.resolve()
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        data, mode = b"", 0o600
    try:
        there = name in read_users(data)
    except ValueError as error:
        raise StorageFailed(f"{path} {error}") from error
    check(there)
    lines = data.decode("utf-8").splitlines()
    line = None if hashed is None else f"{name}:{hashed}"
    kept = [line if each.startswith(f"{name}:") else each for each in lines]
    if line is not None and not there:
        kept.append(line)
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{each}\n" for each in kept if each is not None)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

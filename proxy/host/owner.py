"""Whose a data directory is: root must leave no files in it that its owner cannot use.

Theory of operation.  What root makes in a directory that belongs to another user belongs to root, with mode 0700: the service,
which runs as that user, can neither read nor replace it.  So root is refused, with the command to use instead.  Root does not
become that user: the user may not be able to read Python, the requirement files or the bundle that root can, and a command that
loses them half-way is worse than one that does not start.  ``twistd --uid`` names the user itself (:func:`acting_as`).

In a user namespace (a rootless container) a directory may belong to a user that is not mapped there.  Nobody can become that
user, and the file system decides what may be done.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from proxy.errors import ConfigError

#: The map of a namespace that has all users.
_ALL_USERS = "0 0 4294967295"
#: What the kernel calls users that a namespace does not have, unless it was told otherwise.
_OVERFLOW = 65534


class Users(Struct, frozen=True):
    """The users that this process can tell apart."""

    #: Whether these are all users of the machine.
    all: bool
    #: Stands for each user that this namespace does not have.
    overflow: int

    @classmethod
    def known(cls) -> Users:
        """Those of the namespace that this process runs in."""
        found, overflow = _ALL_USERS, _OVERFLOW
        with suppress(OSError, ValueError):  # without namespaces there are all users
            found = " ".join(Path("/proc/self/uid_map").read_text("ascii").split())
            overflow = int(Path("/proc/sys/fs/overflowuid").read_text("ascii"))
        return cls(found == _ALL_USERS, overflow)


def is_foreign(owner: int, user: int, users: Users) -> bool:
    """Whether *user* is root and *owner* somebody else whom it could be instead."""
    if user != 0 or owner == 0:
        return False
    return users.all or owner != users.overflow


def refuse_root(path: Path, arguments: Sequence[str] | None = None) -> None:
    """Raise ConfigError when this process is root and the directory *path* belongs to another user.

    The message has the command to use: *arguments* (those of this process) as that user.
    """
    try:
        facts = path.stat()
    except OSError:
        return  # there is nothing yet, or whoever opens it says why not
    if not is_foreign(facts.st_uid, os.geteuid(), Users.known()):
        return
    name = _name(facts.st_uid)
    raise ConfigError(
        f'"{path}": it belongs to {name}, who could not use what root creates there; run this as that user: '
        f"{line_as(facts.st_uid, facts.st_gid, arguments)}"
    )


def line_as(user: int, group: int, arguments: Sequence[str] | None = None) -> str:
    """The command line with which this user runs *arguments* (those of this process) as *user*."""
    given = sys.argv if arguments is None else arguments
    program = Path(given[0]).name
    line = shlex.join([given[0] if program in ("pypiproxy", "twistd") else "pypiproxy", *given[1:]])
    try:
        name = shlex.quote(pwd.getpwuid(user).pw_name)
    except KeyError:
        return f"setpriv --reuid={user} --regid={group} --clear-groups {line}"
    return f"runuser -u {name} -- {line}" if os.geteuid() == 0 and shutil.which("runuser") else f"sudo -u {name} {line}"


@contextmanager
def acting_as(user: int | None, group: int | None) -> Iterator[None]:
    """Have root create files as *user* and *group* (by default the user's own) in the block; other users are left alone."""
    if user is None or os.geteuid() != 0:
        yield
        return
    before = os.getegid()
    if group is None:
        with suppress(KeyError):  # a user without an entry
            group = pwd.getpwuid(user).pw_gid
    if group is not None:
        os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user id {user}"

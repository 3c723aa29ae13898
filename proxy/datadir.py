"""The data directory: created, checked, and claimed by one running instance at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from attrs import define, field

from proxy.errors import ConfigError, InUse

_LOCK = "lock"


@define
class Claim:
    """The right to use a data directory, until :meth:`release` or the end of the process.

    The lock belongs to the open file, so it lives on in the child when the process that claimed becomes a daemon.
    """

    path: Path
    _fd: int = field(repr=False)

    def sign(self) -> None:
        """Write this process's id into the lock file; again after a fork, for the child has another."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let another instance have the directory.  May be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def claim(path: Path) -> Claim:
    """Make sure that *path* is a directory (created with mode 0700) this process may write to, and lock it.

    Raises ConfigError when it cannot be written, is open to everybody, or another instance uses it (InUse).
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            # The caches below are as trustworthy as the directory they stand in.
            raise ConfigError(f'"{path}": everybody may write there (mode {stat.S_IMODE(mode):04o}); expected 0700')
        fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f'"{path}": {error.strerror}; expected a directory that can be written') from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        if not isinstance(error, BlockingIOError):
            raise ConfigError(f'"{path}": cannot be locked: {error.strerror}; expected a local file system') from error
        raise InUse(
            f'"{path}": the instance with process id {owner} uses it; expected a directory of its own for each instance', owner
        ) from error
    claimed = Claim(path, fd)
    claimed.sign()
    return claimed

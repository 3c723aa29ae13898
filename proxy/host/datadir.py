"""The data directory: created, checked, and claimed by one running instance at a time.

Theory of operation.  Two locks are held.  The lock file inside the directory keeps out whoever sees the same directory, by
whatever path.  It goes when the directory does, so the path itself is reserved too: with an abstract Unix socket, which belongs
to no file system.  Its name contains the mount namespace, in which a path means one directory; elsewhere the lock file decides.
Both belong to what is open, so they live on in the child when the process that claimed becomes a daemon.

The marker states the format of the directory (:mod:`proxy.storage.marker`).  An earlier one is brought into the present one as
soon as the directory is locked, and refused by those who only read; a newer one is refused by all.  Versions of
format 0 do not look at the format, but want a *file* called ``lock``: from format 1 on that is a directory, with the lock file
in it, and they end with an error at once.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from proxy.cache.migration import Migration
from proxy.errors import FOR_NOW, ConfigError, InUse
from proxy.host.owner import refuse_root
from proxy.storage.marker import FORMAT, LOCK, MARKER, Marker, new_name, read_marker, write_marker
from proxy.storage.syncing import sync

#: What is in the directory of the lock: the file that is locked, and what tells an operator why a version does not start.
_LOCK_FILE = "pid"
_README = "README"
_WHY = (
    "A newer version of pypiproxy has written this data directory. Versions that do not know its format expect a file\n"
    'where this directory is, and end with "Is a directory". Nothing is lost: start the newer version again, or see\n'
    '"Returning to an earlier version" in docs/upgrade.md.\n'
)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
#: What SO_PEERCRED gives: process, user and group.
_CREDENTIALS = struct.Struct("3i")


class Claim:
    """The right to use a data directory, until :meth:`release` or the end of the process."""

    def __init__(self, path: Path, fd: int, name: socket.socket | None) -> None:
        self.path = path
        self._fd = fd
        self._name = name

    def sign(self) -> None:
        """Write this process's id into the lock file; again after a fork, for the child has another."""
        with suppress(OSError):  # it is for messages; a disk that is full or read-only takes none
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        if self._name is not None:
            self._name.listen()  # the kernel notes who listens

    def release(self) -> None:
        """Let another instance have the directory.  May be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._name is not None:
            self._name.close()
            self._name = None

    def withdraw(self) -> None:
        """Release the directory, and remove the lock from it: for who leaves it as it was before it was claimed."""
        with suppress(OSError):
            for each in (_LOCK_FILE, _README):
                (self.path / LOCK / each).unlink()
            (self.path / LOCK).rmdir()
        self.release()


def claim(path: Path) -> Claim:
    """Make sure that *path* is a directory (created with mode 0700) of this process's own, and lock it.

    A directory that carries the marker of an earlier start need not take any file, nor is one needed on a full disk.  One of an
    earlier version is brought into the present format, which takes some seconds per 100,000 files.  Raises ConfigError when it
    cannot be used, is open to everybody, has a newer format, another instance uses it (InUse), or this process is root and the
    directory belongs to another user.
    """
    refuse_root(path)
    refuse_newer(path)
    name = _reserve(path)
    try:
        fd = _present(path, _lock(path))
    except BaseException:
        if name is not None:
            name.close()
        raise
    claimed = Claim(path, fd, name)
    claimed.sign()
    return claimed


def is_there(path: Path) -> bool:
    """Whether *path* is a directory.  Raises ConfigError when it cannot be looked at."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(f'"{path}": {error.strerror}{_where(path)}; expected a directory that can be read') from error


def refuse_missing(path: Path) -> None:
    """Raise ConfigError when *path* is no directory: for who works on one that is there."""
    if not is_there(path):
        raise ConfigError(
            f"{path}: there is no such directory; name the data directory of the proxy with --data-dir, "
            "or its configuration with --config"
        )


def is_new(path: Path) -> bool:
    """Whether no instance has used *path* so far, as far as that can be seen."""
    return not (os.path.lexists(path / LOCK) or os.path.lexists(path / MARKER))


def refuse_newer(path: Path) -> None:
    """Raise ConfigError when the format of the data directory *path* is newer than the present one."""
    marker = read_marker(path)
    if marker is not None and marker.format > FORMAT:
        raise ConfigError(
            f'"{path}": a newer version of pypiproxy wrote it (format {marker.format}; this version knows {FORMAT}); '
            "expected the data directory of this version or an earlier one: start the newer version, or restore its backup"
        )


def refuse_earlier(path: Path) -> None:
    """Raise ConfigError when the format of the data directory *path* is earlier than the present one: for who only reads."""
    marker = read_marker(path)
    # Without a marker the lock tells: from format 1 on it is a directory.
    if (path / LOCK).is_file() if marker is None else marker.format < FORMAT:
        raise ConfigError(
            f"{path}: it has the format of an earlier version of pypiproxy, and a command that only reads does not convert it; "
            "start the proxy on it, or run a command that writes (import, pin, purge, refresh, unpin, verify --repair, warm), "
            "which converts it, and do this again"
        )


def _present(path: Path, fd: int) -> int:
    """Bring *path*, locked with *fd*, into the present format; the descriptor that it is locked with afterwards."""
    try:
        marker = read_marker(path)
        migration = Migration(path)
        if marker is None or marker.format < FORMAT:
            if marker is None and not any((path / each).exists() for each in migration.SOURCES):
                return fd  # it is new, and gets its marker when it is used
            migration.fill()
            fd = _locked_anew(path, fd)
            write_marker(path, Marker(new_name() if marker is None else marker.name, FORMAT))
            sync(path / MARKER)
            sync(path)
        migration.clean()
    except BaseException as error:
        with suppress(OSError):  # there may be none
            os.close(fd)
        if isinstance(error, OSError):
            raise ConfigError(f'"{path}": cannot be brought into format {FORMAT}: {error}; make room or mend it') from error
        raise
    return fd


def _locked_anew(path: Path, fd: int) -> int:
    """Have a directory in place of the lock file that *fd* is; the new descriptor, locked.  Raises OSError, InUse."""
    if (path / LOCK).is_dir():
        return fd
    with suppress(FileNotFoundError):
        os.unlink(path / LOCK)
    made = _lock(path)
    os.close(fd)
    return made


def _lock(path: Path) -> int:
    """The descriptor of the lock file, locked; of the directory where there can be no such file, -1 where there is neither."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (mode := _closed(path)) & stat.S_IWOTH:
            # The caches below are as trustworthy as the directory they stand in.
            raise ConfigError(
                f'"{path}": everybody may write there (mode {stat.S_IMODE(mode):04o}); '
                f"expected 0700, or a directory in it: {path / 'data'}"
            )
        fd = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in FOR_NOW and not (error.errno in _NOT_ALLOWED and os.path.isfile(path / MARKER)):
            expected = f"expected a directory that can be written{_whose(path)}"
            raise ConfigError(f'"{path}": {error.strerror}{_where(path)}; {expected}') from error
        found = _readable(path)
        if found is None:
            return -1
        fd = found
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _owner(fd)
        os.close(fd)
        if not isinstance(error, BlockingIOError):
            raise ConfigError(f'"{path}": cannot be locked: {error.strerror}; expected a local file system') from error
        raise _in_use(path, owner) from error
    return fd


def _closed(path: Path) -> int:
    """The mode of the directory *path*; 0700 from now on if it is empty and this user's own, as a new volume may be.

    One with the sticky bit, such as /tmp, is meant to be open to everybody.  Raises OSError.
    """
    found = path.stat()
    if (
        found.st_mode & stat.S_IWOTH
        and not found.st_mode & stat.S_ISVTX
        and found.st_uid == os.geteuid()
        and not os.listdir(path)
    ):
        path.chmod(0o700)
        return path.stat().st_mode
    return found.st_mode


def _whose(path: Path) -> str:
    """Who can write to *path*, or to what is nearest above it, as the rest of a clause, if that is somebody else."""
    user = os.geteuid()
    with suppress(OSError):
        nearest = next(each for each in (path, *path.parents) if each.exists())
        if (owner := nearest.stat().st_uid) != user:
            them = f"{nearest} belongs to user {owner} and this process is user {user}"
            return f" ({them}: chown {user} {nearest}, or run this as user {owner})"
    return ""


def _where(path: Path) -> str:
    """Which directory above *path* lets nobody through, as the rest of a clause, if one does not."""
    closed = next((each for each in reversed(path.parents) if os.path.isdir(each) and not os.access(each, os.X_OK)), None)
    return "" if closed is None else f' ("{closed}" may not be entered)'


def _lock_file(path: Path) -> Path:
    """The file to be locked; its directory is made unless there is the lock file of an earlier version.  Raises OSError."""
    place = path / LOCK
    if place.is_file():
        return place
    if not place.is_dir():
        place.mkdir(mode=0o700, exist_ok=True)
        (place / _README).write_text(_WHY, "utf-8")
    return place / _LOCK_FILE


def _readable(path: Path) -> int | None:
    for each in (path / LOCK / _LOCK_FILE, path / LOCK, path):
        with suppress(OSError):
            return os.open(each, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _owner(fd: int) -> str:
    with suppress(OSError):
        return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    return "unknown"


def _in_use(path: Path, owner: str) -> InUse:
    return InUse(
        f'"{path}": the instance with process id {owner} uses it; expected a directory of its own for each instance', owner
    )


def _reserve(path: Path) -> socket.socket | None:
    """Reserve *path*, whatever is there; ``None`` where that is not possible.  Raises InUse."""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/mnt")
        digest = hashlib.sha256(os.fsencode(f"{space}\0{os.path.realpath(path)}")).hexdigest()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = f"\0pypiproxy-{digest[:40]}"
        try:
            made.bind(name)
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRINUSE and (owner := _listener(name)) is not None:
                raise _in_use(path, owner) from error
            return None
        return made
    return None


def _listener(name: str) -> str | None:
    """The process that listens at *name*, if it is this user's or root's: whoever else does can keep nobody out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(name)
            pid, user, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        except OSError:
            return None
        return str(pid) if user in (0, os.getuid()) else None

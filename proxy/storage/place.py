"""The data directory of a running proxy: whether it is the right one, and whether it takes and gives files.

Theory of operation.  A directory is the right one while it is the very directory that the proxy was started on, which it holds
open, or bears the same marker: a file with the name of this instance, written at the first start.  A volume that is mounted
again is recognised by it; the mount point that is left when a volume has gone bears none, and nothing is ever written there.
One that was deleted, and is missing or empty now, is made anew on the same file system.

Failures are noted where they happen (`failed`, from any thread).  `look` tries what is wrong by now; what it finds in order is
forgotten, so that nobody has to be told of a recovery.  A look blocks and runs in a worker thread.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from twisted.logger import Logger

from proxy.core.troubles import Reason, Trouble
from proxy.errors import NO_ROOM
from proxy.storage.database import SET_ASIDE
from proxy.storage.marker import FORMAT, Marker, new_name, read_marker, write_marker
from proxy.storage.usable import unusable

#: The directories that are made where they are missing, and looked at.
_FOLDERS = ("files", "partial", "lists")
#: The file that is written to see whether that can be done: its name, if it needs one, and its size (bytes), a page of most
#: file systems.
_PROBE = ".probe"
_PROBE_SIZE = 4096
#: What file systems say that have no files without a name, such as NFS (open(2), O_TMPFILE).
_NEEDS_NAMES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
#: A disk with less free space is full, whatever fits (bytes).
_FULL = 1024 * 1024
#: Entries that cannot be used and are named in one line.
_NAMED = 5
#: How long a failure is remembered that nothing has disproved (seconds), and how many of them.
_REMEMBERED = 600.0
_MOST = 32
#: What was set aside this long ago is no news (seconds).
_NEWS = 86400.0

_LOST = "the data directory was taken away or replaced: nothing is stored until it is back or the proxy is restarted"
_THROUGH = "pass through to clients and are not stored"
_AFTERWARDS = "what upstream has is fetched again; remove what was set aside when you have looked at it"


class _Failure(Struct):
    """One thing that the disk did not do: with what *error*, at what *moment* (steady), for *needed* bytes."""

    error: int
    moment: float
    needed: int
    reading: bool


class Place:
    """The data directory at *root*, made with mode 0700 if need be.

    *clock* tells the wall time, *steady* a time that no clock setting changes.
    """

    log = Logger()

    def __init__(self, root: Path, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._root = root
        self._path = str(root)
        self._clock = clock
        self._steady = steady
        self._lock = threading.Lock()
        with suppress(OSError):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = _opened(root)
        self._identity = None if self._held is None else _identity(os.fstat(self._held))
        self._failures: dict[str, _Failure] = {}
        #: This instance's name, the same after a restart as long as the directory can keep it.
        self.name = self._read_marker() or new_name()
        self._mark()

    # -- asked and told from any thread ------------------------------------------------------------------------------------

    def is_ours(self) -> bool:
        """Whether the directory at the path is the right one.  Costs a system call."""
        return self._identity is not None and self._identity == _identity(self._facts())

    def failed(self, error: OSError, path: Path, needed: int = 0, *, reading: bool = False) -> None:
        """Note that *path*, a file, could not be written (read, with *reading*), for *needed* bytes in all."""
        if len(self._failures) < _MOST or str(path.parent) in self._failures:
            self._failures[str(path.parent)] = _Failure(error.errno or errno.EIO, self._steady(), needed, reading)

    # -- in a worker thread ------------------------------------------------------------------------------------------------

    def look(self) -> list[Trouble]:
        """What is wrong now, after putting right what can be put right."""
        with self._lock:
            if not self.is_ours() and not self._found_again():
                return [Trouble(Reason.DIRECTORY_LOST, _LOST)]
            self._mark()
            found = [*self._folders(), *self._unusable(), *self._remembered(), *self._room()]
        worst: dict[Reason, Trouble] = {}
        for each in found:
            worst.setdefault(each.reason, each)
        return list(worst.values())

    def news(self) -> list[Trouble]:
        """What was found damaged lately."""
        since = self._clock() - _NEWS
        files = sum(1 for _, moment in _entries(self._root / "quarantine") if moment > since)
        databases = sorted(name for name, moment in _entries(self._root) if SET_ASIDE in name and moment > since)
        found = [f"{files} damaged files (in quarantine/)"] if files else []
        found += [f"a damaged database ({name})" for name in databases]
        if not found:
            return []
        return [Trouble(Reason.DAMAGED, f"set aside within the last day: {' and '.join(found)}; {_AFTERWARDS}")]

    def prepare(self, folder: Path) -> None:
        """Make *folder*, below the root, if this is the right directory.  Raises OSError."""
        if not self.is_ours():
            raise OSError(errno.ENODEV, "the data directory is not there", str(folder))
        if not os.path.isdir(folder):  # to try and fail takes ten times as long
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def close(self) -> None:
        """Let the directory go."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    # -- which directory it is -----------------------------------------------------------------------------------------------

    def _facts(self) -> os.stat_result | None:
        try:
            return os.stat(self._path)
        except OSError:
            return None

    def _found_again(self) -> bool:
        """Whether the directory at the path may take the place of the one that was held; it then does."""
        deleted = self._held is not None and os.fstat(self._held).st_nlink == 0
        if (deleted or self._held is None) and self._facts() is None:
            self._make_anew()
        facts = self._facts()
        if facts is None or not stat.S_ISDIR(facts.st_mode):
            return False
        if self._held is not None and self._read_marker() != self.name and not (deleted and self._is_blank(facts)):
            return False
        found = _opened(self._root)
        if found is None:
            return False
        self.close()
        self._held, self._identity = found, _identity(os.fstat(found))
        self.log.warn("the data directory is another one than before, and the right one: it is used from now on")
        return True

    def _make_anew(self) -> None:
        """Make the directory, again only where its parent is on the file system that it was on."""
        with suppress(OSError):
            if self._held is None or os.stat(self._root.parent).st_dev == os.fstat(self._held).st_dev:
                self._root.mkdir(mode=0o700, parents=self._held is None)

    def _is_blank(self, facts: os.stat_result) -> bool:
        """Whether the directory is empty and on the file system of the one that was held."""
        assert self._held is not None
        try:
            return os.fstat(self._held).st_dev == facts.st_dev and not os.listdir(self._root)
        except OSError:
            return False

    def _read_marker(self) -> str | None:
        found = read_marker(self._root)
        return None if found is None else found.name

    def _mark(self) -> None:
        """Write the marker unless it is there.  A directory that takes none is noted by what is tried next."""
        if self._held is None or self._read_marker() is not None:
            return
        with suppress(OSError):
            write_marker(self._root, Marker(self.name, FORMAT))

    # -- what is wrong -------------------------------------------------------------------------------------------------------

    def _folders(self) -> Iterator[Trouble]:
        # Bytes are written only where some found no room lately: who fills the disk would miss them.
        size = _PROBE_SIZE if any(failure.error in NO_ROOM for failure in list(self._failures.values())) else 0
        for name in _FOLDERS:
            folder = self._root / name
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                _try_writing(folder, size)
                os.listdir(folder) if name == "partial" else os.scandir(folder).close()
            except OSError as error:
                yield _trouble(error.errno or errno.EIO, f"{name}/", reading=False)

    def _unusable(self) -> Iterator[Trouble]:
        """What is not this user's to use, before anybody needs it."""
        found = unusable(self._root)
        if found:
            names = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
            yield Trouble(
                Reason.NOT_READABLE,
                f"the user that runs the proxy may not use {names} in the data directory: what is in there counts as missing; "
                "check owner and mode (chown -R, chmod -R u+rwX)",
            )

    def _remembered(self) -> Iterator[Trouble]:
        """What failed in operation and has not been disproved since."""
        now = self._steady()
        for path, failure in list(self._failures.items()):
            if now - failure.moment > _REMEMBERED or self._disproved(Path(path), failure):
                self._failures.pop(path, None)
            else:
                yield _trouble(failure.error, os.path.relpath(path, self._root) + "/", reading=failure.reading)

    def _disproved(self, folder: Path, failure: _Failure) -> bool:
        if failure.error in NO_ROOM:
            return failure.needed <= self._free() - _FULL
        if failure.reading:
            return False  # one file of many: only a look at that file could tell
        try:
            _try_writing(folder, 0)
        except FileNotFoundError:
            return True  # it is made when it is needed
        except OSError:
            return False
        return True

    def _room(self) -> Iterator[Trouble]:
        if self._free() < _FULL:
            yield _trouble(errno.ENOSPC, "", reading=False)

    def _free(self) -> int:
        try:
            facts = os.statvfs(self._root)
        except OSError:
            return 0
        return facts.f_bavail * facts.f_frsize


def _opened(root: Path) -> int | None:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _identity(facts: os.stat_result | None) -> tuple[int, int] | None:
    return None if facts is None else (facts.st_dev, facts.st_ino)


def _try_writing(folder: Path, size: int) -> None:
    """Write a file of *size* bytes there that is gone at once, and has no name where the file system can do without.

    Raises OSError.
    """
    try:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NEEDS_NAMES:
            raise
        _try_writing_by_name(folder / _PROBE, size)
        return
    try:
        os.write(descriptor, bytes(size))
    finally:
        os.close(descriptor)


def _try_writing_by_name(probe: Path, size: int) -> None:
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, bytes(size))
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(probe)


def _entries(folder: Path) -> Iterator[tuple[str, float]]:
    """(name, when it was moved there) of what is in *folder*."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.name, entry.stat(follow_symlinks=False).st_ctime
    except OSError:
        return


def _trouble(number: int, where: str, *, reading: bool) -> Trouble:
    said = os.strerror(number)
    if number in NO_ROOM:
        return Trouble(
            Reason.DISK_FULL,
            f"the file system of the data directory is full ({said}): new files {_THROUGH}; make room on it",
        )
    if reading:
        return Trouble(
            Reason.NOT_READABLE,
            f"a file in {where} cannot be read ({said}): it is fetched again; check the disk and its owner",
        )
    return Trouble(
        Reason.NOT_WRITABLE,
        f"{where} in the data directory cannot be written ({said}): new files {_THROUGH}; check the mount, owner and mode",
    )

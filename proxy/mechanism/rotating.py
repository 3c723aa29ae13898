"""Values made of files that may be replaced while the proxy runs: secrets, certificates, authorities.

Theory of operation.  A look compares what the file system states of each file (device, inode, size, times of its data and of
its inode) with what it stated when the file was last read.  Links are followed, so a link that is switched to another file is a
change, as is a file that is renamed over another.  Files are only read after a change, and only other contents make a new
value.  Times of files are too coarse to tell two changes in quick succession, so a file that was changed shortly before it was
read is read again at the next look.  All of this happens in a thread.  While a file cannot be read or used, the last good value
remains in use and ``trouble`` states the reason.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct
from twisted.logger import Logger

from proxy.core.events import Incident, Notice
from proxy.interfaces import Clock, IOffload, IRecorder
from proxy.mechanism.flight import Flights

T = TypeVar("T")

#: How long the time of a file's last change cannot be told from that of another change (seconds): two on some file systems.
_COARSE = 2.5


class UnusableFile(Exception):
    """The contents of a file cannot be used; ``str()`` states its key in the configuration and the reason, no contents."""


class Observing(Struct, frozen=True):
    """What looks at files are made with: the thread that waits for the disk, who is told, and the time by the wall clock."""

    thread: IOffload
    recorder: IRecorder
    clock: Clock


class _Stamp(NamedTuple):
    """What the file system says of one file; times in nanoseconds since 1970."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int


class _Found(Struct, Generic[T], frozen=True):
    """What a look found: *stamps* (``None``: not to be relied on) and a *digest* of the contents; a *value* if they are new."""

    stamps: tuple[_Stamp, ...] | None = None
    digest: bytes = b""
    value: T | None = None
    #: Why there is no value, and which file that is about.
    trouble: str | None = None
    path: Path | None = None


class Rotating(Generic[T]):
    """The ``value`` that *load* makes of *files*, and makes anew when they change.

    *files* are paths by the key that the configuration has for each; a directory stands for the PEM files below it.  *load* is
    given what they contain, in a thread; it raises UnusableFile, or a ValueError that states what is wrong with them all.
    *changed* is called after the value has changed.  *value* is what was made of the files before; without it they are read
    now, and that raises OSError and UnusableFile.  *consequence* says what holds while they cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        files: Mapping[str, Path],
        load: Callable[[Mapping[str, bytes]], T],
        observing: Observing,
        *,
        changed: Callable[[], None] = lambda: None,
        value: T | None = None,
        consequence: str = "the last good value is still used",
    ) -> None:
        self.files = dict(files)
        self.consequence = consequence
        #: Why the files as they are cannot be used; ``None`` if they can.  Any client may read it.
        self.trouble: str | None = None
        self._load = load
        self._observing = observing
        self._changed = changed
        self._stamps: tuple[_Stamp, ...] | None = None
        self._digest = b""
        self._under_way: Flights[None] = Flights()
        if value is None:
            contents = self._contents()
            value, self._digest = self._made(contents), _digest(contents)
        self.value: T = value

    async def look(self) -> None:
        """Find out whether the files have changed.  Cancelling it ends the wait and nothing more."""
        await self._under_way.join("look", self._look)

    async def _look(self) -> None:
        found = await self._observing.thread.run(self._look_at_files)
        if found is not None:
            self._take(found)

    def _take(self, found: _Found[T]) -> None:
        keys = ", ".join(self.files)
        if found.trouble is not None:
            if found.trouble != self.trouble:
                self.trouble = found.trouble
                self._observing.recorder.record(Notice(Incident.ROTATION_FAILED))
                words, consequence = found.trouble, self.consequence
                self.log.error("{words} ({path}): {consequence}", words=words, path=found.path, consequence=consequence)
            return
        if self.trouble is not None:
            self.trouble = None
            self.log.info("{keys}: can be used again", keys=keys)
        self._stamps, self._digest = found.stamps, found.digest
        if found.value is not None and found.value != self.value:
            self.value = found.value
            self._observing.recorder.record(Notice(Incident.ROTATED))
            self.log.info("{keys}: changed, and used from now on", keys=keys)
            self._changed()

    # -- in a thread -------------------------------------------------------------------------------------------------------

    def _look_at_files(self) -> _Found[T] | None:
        """What is new; ``None`` if nothing is."""
        try:
            return self._read()
        except (OSError, UnusableFile) as error:
            path = Path(os.fsdecode(error.filename)) if isinstance(error, OSError) and error.filename else None
            return _Found(trouble=self._words(error, path), path=path or next(iter(self.files.values())))

    def _words(self, error: OSError | UnusableFile, path: Path | None) -> str:
        if isinstance(error, UnusableFile):
            return str(error)
        key = next((key for key, each in self.files.items() if path is not None and path.is_relative_to(each)), "")
        return f"{key or ', '.join(self.files)} cannot be read: {error.strerror}"

    def _read(self) -> _Found[T] | None:
        stamps = tuple(_stamp(key, each) for key, path in self.files.items() for each in _members(path))
        if stamps == self._stamps and self.trouble is None:
            return None
        settled = (self._observing.clock() - _COARSE) * 1e9
        contents = self._contents()
        digest = _digest(contents)
        value = None if digest == self._digest else self._made(contents)
        old = all(max(each.modified, each.changed) < settled for each in stamps)
        return _Found(stamps if old else None, digest, value)

    def _contents(self) -> dict[str, bytes]:
        return {key: b"".join(each.read_bytes() for each in _members(path)) for key, path in self.files.items()}

    def _made(self, contents: Mapping[str, bytes]) -> T:
        try:
            return self._load(contents)
        except ValueError as error:
            raise UnusableFile(f"{', '.join(self.files)} {error}") from None


def pem_files(directory: Path) -> list[Path]:
    """The PEM files below *directory*."""
    return sorted(each for each in directory.rglob("*.pem") if each.is_file())


def _members(path: Path) -> Iterable[Path]:
    """*path*, or the PEM files below it."""
    return pem_files(path) if path.is_dir() else (path,)


def _stamp(key: str, path: Path) -> _Stamp:
    """The stamp of *path*.  Raises OSError, and UnusableFile for what is no file any more: a pipe may never answer."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UnusableFile(f"{key} is no file any more")
    return _Stamp(str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _digest(contents: Mapping[str, bytes]) -> bytes:
    """Tells contents from others, and keeps nothing of them."""
    whole = hashlib.sha256()
    for each in contents.values():
        whole.update(hashlib.sha256(each).digest())
    return whole.digest()

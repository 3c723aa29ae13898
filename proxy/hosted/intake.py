"""Bytes on their way into the store: hashed as they arrive, checked completely, then committed under their digest.

An upload comes in pieces; a file of the directory is copied as a whole, sharing its blocks where the file system can.  What is
checked is the copy, which nobody else can write to.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from twisted.internet.defer import DeferredLock, ensureDeferred

from proxy.errors import FULL, BadUpload, StorageFailed
from proxy.hosted.folder import StandingFile
from proxy.hosted.inspection import Inspected, inspect
from proxy.hosted.ports import Guarding, RoomForFiles
from proxy.hosted.quiet import is_being_written
from proxy.interfaces import IFileStore, IOffload, IPartialFile
from proxy.mechanism.flight import uninterrupted
from proxy.settings import MIB

T = TypeVar("T")


class BeingWritten(Exception):
    """Somebody is writing to the file; it is looked at again later."""


class Arrived(Struct, frozen=True):
    """All bytes of a file, checked: *digests* are others than sha256."""

    inspected: Inspected
    sha256: str
    size: int
    digests: Mapping[str, str]


class IncomingFile:
    """One file on its way into the store, in *partial*."""

    def __init__(self, intake: Intake, partial: IPartialFile) -> None:
        self._intake = intake
        self._partial = partial
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._blake2b = hashlib.blake2b(digest_size=32)
        self._ended = False
        #: Held while a thread works on it: who gives up waits for that before anything is closed.
        self._at_work = DeferredLock()

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self._partial.size

    def fileno(self) -> int:
        """A descriptor of the copy."""
        return self._partial.fileno()

    async def write(self, data: bytes) -> None:
        """Append *data*.  Raises StorageFailed."""
        await self._alone(lambda: self._intake.with_room(len(data), lambda: self._intake.disk.run(self._write, data)))

    def _write(self, data: bytes) -> None:
        before = self._partial.size
        try:
            self._partial.write(data)
        except OSError:
            self._partial.truncate(before)  # it is written once more, as a whole
            raise
        self._hash(data)

    async def copy(self, descriptor: int, size: int) -> None:
        """Have all *size* bytes behind *descriptor*.  Raises StorageFailed."""

        def copied() -> None:
            self._partial.truncate()
            self._partial.copy(descriptor, size)

        await self._alone(lambda: self._intake.with_room(size, lambda: self._intake.checking.run(copied)))
        await self._alone(lambda: self._intake.checking.run(self._hash_all))

    def _hash_all(self) -> None:
        position = 0
        while data := os.pread(self._partial.fileno(), MIB, position):
            self._hash(data)
            position += len(data)

    def _hash(self, data: bytes) -> None:
        self._sha256.update(data)
        self._md5.update(data)
        self._blake2b.update(data)

    async def check(self, filename: str) -> Arrived:
        """All of it, as the file *filename*.  Raises BadUpload."""
        inspected = await self._alone(
            lambda: self._intake.checking.run(inspect, self._partial.fileno(), self._partial.size, filename)
        )
        others = {"md5": self._md5.hexdigest(), "blake2b_256": self._blake2b.hexdigest()}
        return Arrived(inspected, self._sha256.hexdigest(), self._partial.size, others)

    async def commit(self) -> None:
        """Have it in the store for good.  Raises StorageFailed."""
        sha256, size = self._sha256.hexdigest(), self._partial.size
        await self._alone(lambda: self._intake.with_room(size, lambda: self._intake.disk.run(self._partial.commit, sha256)))
        self._ended = True
        self._intake.room.committed(sha256, size)

    async def end(self) -> None:
        """Leave nothing that was not committed.  May be called more than once."""
        await self._alone(lambda: self._intake.disk.run(self._end))

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        return await uninterrupted(self._locked(work))

    async def _locked(self, work: Callable[[], Awaitable[T]]) -> T:
        await self._at_work.acquire()
        try:
            return await work()
        finally:
            self._at_work.release()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._partial.discard()
        self._partial.close()


class LinkBounds(Struct, frozen=True):
    """Which files are taken from the directory *root*: none that stands below one of the *others*.

    Whoever may put links into *root* need not be one who may read what this proxy keeps there.
    """

    root: Path
    others: tuple[Path, ...] = ()

    def require(self, descriptor: int, filename: str) -> None:
        """Raise BadUpload if the file behind *descriptor*, which is called *filename*, is not to be taken.  Blocks."""
        place = Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        if not place.is_relative_to(self.root.resolve()) and any(place.is_relative_to(each.resolve()) for each in self.others):
            raise BadUpload(f"{filename} is a link to a file of another index, or of the data directory: copy the file")


class Intake:
    """Takes files into *store*.  *checking* has threads for what takes long; *guarding* keeps what was just committed.

    *bounds* say which files of the directory are taken.
    """

    def __init__(
        self,
        store: IFileStore,
        room: RoomForFiles,
        guarding: Guarding,
        disk: IOffload,
        checking: IOffload,
        bounds: LinkBounds,
    ) -> None:
        self.store = store
        self.room = room
        self.guarding = guarding
        self.disk = disk
        self.checking = checking
        self._bounds = bounds

    def configure(self, bounds: LinkBounds) -> None:
        """Take files of the directory as *bounds* say from now on."""
        self._bounds = bounds

    async def begin(self, size: int) -> IncomingFile:
        """Begin a file of about *size* bytes.  Raises StorageFailed."""
        key = f"incoming.{secrets.token_hex(16)}"
        return IncomingFile(self, await self.with_room(size, lambda: self.store.begin(key, resume=False)))

    async def take(self, file: StandingFile, *, settled: bool) -> tuple[Arrived, IncomingFile]:
        """Copy and check a file of the directory; the caller commits the arrival, and ends it.

        *settled* is whether it was the same some time ago: that counts where nobody can tell whether it is being written.
        Raises BeingWritten, BadUpload, StorageFailed.
        """
        return await uninterrupted(self._take(file, settled), lambda taken: ensureDeferred(taken[1].end()))

    async def _take(self, file: StandingFile, settled: bool) -> tuple[Arrived, IncomingFile]:
        descriptor = await self.disk.run(_opened, file, settled, self._bounds)
        try:
            arrival = await self.begin(file.size)
            try:
                await arrival.copy(descriptor, file.size)
                await self.disk.run(_require_unchanged, descriptor, file, arrival.size)
                return await arrival.check(file.filename), arrival
            except BaseException:
                await arrival.end()
                raise
        finally:
            os.close(descriptor)

    async def with_room(self, needed: int, attempt: Callable[[], Awaitable[T]]) -> T:
        """As :meth:`attempt`.  Raises StorageFailed."""
        try:
            return await self.attempt(needed, attempt)
        except OSError as error:
            raise storage_failed("the file cannot be stored", error) from error

    async def attempt(self, needed: int, attempt: Callable[[], Awaitable[T]]) -> T:
        """What *attempt* returns, which is tried again if the disk is full and room for *needed* bytes could be made.

        Raises OSError.
        """
        try:
            return await attempt()
        except OSError as error:
            if error.errno not in FULL or not await self.room.make_room(needed):
                raise
        return await attempt()


def storage_failed(what: str, error: OSError) -> StorageFailed:
    """*what* happened for this reason, as clients are told: paths of this machine are for the log."""
    full = "; make room on its disk, or lower server.max_size" if error.errno in FULL else ""
    return StorageFailed(f"{what}: {error.strerror or type(error).__name__}{full}")


def _opened(file: StandingFile, settled: bool, bounds: LinkBounds) -> int:
    """A descriptor of *file*, which nobody is writing to."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BeingWritten from error
    except OSError as error:
        raise BadUpload(f"{file.filename} cannot be read: {error.strerror}; check its owner and its mode") from error
    try:
        bounds.require(descriptor, file.filename)
        busy = is_being_written(descriptor)
        if busy or (busy is None and not settled):
            raise BeingWritten
        _require_unchanged(descriptor, file, file.size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_unchanged(descriptor: int, file: StandingFile, copied: int) -> None:
    facts = os.fstat(descriptor)
    if (facts.st_ino, facts.st_size, facts.st_mtime_ns) != file.mark or copied != file.size:
        raise BeingWritten

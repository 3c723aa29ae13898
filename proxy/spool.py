"""The growing file: one writer, many readers, each at its own pace.

Theory of operation.  A pool delivers a download by calling :meth:`Spool.write` on the reactor.  Chunks wait in a short queue;
one coroutine takes all that is queued to a worker thread, which hashes and writes it.  What is on disk becomes visible to
readers, less the last :data:`HOLD` bytes: they are shown when the digest of the whole file has matched.  Readers read the file
itself (``sendfile``), so memory grows neither with the file nor with the number of readers.

When the disk is full the spool goes over to *passing*: further bytes are kept in a window of at most :data:`WINDOW` bytes,
which moves on when every reader has passed; nothing is committed.  A reader that comes too late for the window cannot join any
more.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.errors import Attempt, DigestMismatch
from proxy.interfaces import IBytesSource, IOffload, IPartialFile, ISink
from proxy.model import Digest, FileFacts
from proxy.settings import KIB, MIB
from proxy.waiters import Waiters
from proxy.window import Window

#: Bytes at the end that nobody sees before the digest matched.
HOLD = 4 * KIB
#: Bytes that may wait for the disk before upstream is asked to pause, and at which it may go on.
QUEUE_HIGH = 1 * MIB
QUEUE_LOW = 256 * KIB
#: Bytes kept in memory when the disk takes no more.
WINDOW = 4 * MIB

#: What a write may fail with that means "no room", not "broken"; and which of it other files can make room for.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL = (errno.ENOSPC, errno.EDQUOT)
#: The room that is asked for when nobody has said how long the file is.
UNKNOWN_SIZE = 64 * MIB
#: How often room is asked for: others may take what was made, and what is still being read is not free when it has gone.
_TRIES = 3


BeforeCommit = Callable[[str, int], Awaitable[None]]


async def _nothing(sha256: str, size: int) -> None:
    """What happens before a commit unless somebody wants to know."""


async def _no_room(needed: int) -> bool:
    """What is done about a full disk unless somebody can do better."""
    return False


class State(enum.Enum):
    """Where a spool stands in its life."""

    ARRIVING = "arriving"
    COMPLETE = "complete"
    FAILED = "failed"


@implementer(ISink)
class Spool:
    """One download.

    *name* is for messages; *expected* is the digest its page states, ``None`` when it states none.  *before_commit* is told the
    sha256 and the size of a file that has arrived whole and is right, before it is committed and before anybody sees its end.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        partial: IPartialFile,
        expected: Digest | None,
        offload: IOffload,
        before_commit: BeforeCommit = _nothing,
    ) -> None:
        self._before_commit = before_commit
        self.name = name
        self.state = State.ARRIVING
        self.failure: Failure | None = None
        self.total: int | None = None
        self.facts: FileFacts | None = None
        self.sha256: str | None = None
        #: Whether the file was committed to the store (not so on a full disk).
        self.kept = False
        self.released = 0
        self._partial = partial
        self._expected = expected
        self._offload = offload
        self._hashes = self._fresh_hashes()
        self._accepted = partial.size
        self._written = partial.size
        self._queue: list[bytes] = []
        self._queued = 0
        self._draining = False
        self._idle: Waiters[None] = Waiters()
        self._broken: Failure | None = None
        self._producer: Any = None
        self._paused = False
        self._closed = False
        self._window: Window | None = None
        self._readers: set[SpoolReader] = set()
        self._begun: Waiters[None] = Waiters()
        self._changed: list[Callable[[], None]] = []
        #: Asked when the disk takes no more for room for that many bytes; true: it may take them now.
        self.make_room: Callable[[int], Awaitable[bool]] = _no_room
        #: Called when nobody reads a download that is not kept either.
        self.on_abandoned: Callable[[], None] = lambda: None

    def _fresh_hashes(self) -> dict[str, Any]:
        names = {"sha256"} | ({self._expected.algorithm} if self._expected else set())
        return {name: hashlib.new(name, usedforsecurity=False) for name in names}

    # -- the writer's side: ISink ------------------------------------------------------------------------------------------

    @property
    def offset(self) -> int:
        return self._accepted

    async def recover(self) -> None:
        """Hash what an earlier run left in the partial file, so that the download goes on behind it."""
        if self._partial.size:
            await self._offload.run(self._rehash)

    def _rehash(self) -> None:
        for chunk in self._partial.read_all():
            self._digest(chunk)

    def _digest(self, chunk: bytes) -> None:
        for each in self._hashes.values():
            each.update(chunk)

    def begin(self, facts: FileFacts) -> None:
        if facts.size is not None:
            if self.total is not None and self.total != facts.size:
                raise ValueError(f"size was {self.total:,} bytes and is now said to be {facts.size:,}")
            self.total = facts.size
        self.facts = facts
        self._begun.wake(None)
        self._tell()

    def write(self, data: bytes) -> None:
        if self._broken is not None:
            return  # finish() will say why
        self._accepted += len(data)
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > QUEUE_HIGH:
            self._pause()
        if not self._draining:
            self._draining = True
            Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        try:
            while self._queue:
                chunk = b"".join(self._queue)
                self._queue.clear()
                if self._window is None:
                    await self._to_disk(chunk)
                else:
                    await self._offload.run(self._digest, chunk)
                    self._to_window(self._window, chunk)
                self._queued -= len(chunk)
                self._tell()
                self._maybe_resume()
        except Exception:  # noqa: BLE001  # finish() raises it to who waits for the download
            self._broken = Failure()
            self._queue.clear()
        finally:
            self._draining = False
            self._idle.wake(None)

    async def _drained(self) -> None:
        """Wait until every accepted byte is written (or writing has failed)."""
        if self._draining:
            await self._idle.wait()

    async def _to_disk(self, chunk: bytes) -> None:
        rest = b""
        try:
            await self._offload.run(self._store, chunk)
        except OSError as error:
            rest = await self._where_there_is_room(chunk[self._partial.size - self._written :], error)
        self._written = self._partial.size
        if rest:
            self._window = Window(self._written)
            self._to_window(self._window, rest)

    async def _where_there_is_room(self, rest: bytes, error: OSError) -> bytes:
        """Write *rest*, which the disk did not take because of *error*, once there is room; what is left when there is none."""
        for _ in range(_TRIES):
            wanting = UNKNOWN_SIZE if self.total is None else self.total - self._partial.size
            if error.errno not in FULL or not await self.make_room(max(wanting, len(rest))):
                break
            before = self._partial.size
            try:
                await self._offload.run(self._partial.write, rest)
            except OSError as again:
                error, rest = again, rest[self._partial.size - before :]
            else:
                return b""
        self._not_kept(error)
        return rest

    def _not_kept(self, error: OSError) -> None:
        """Say that the file goes to its clients only, if *error* is for want of room; else raise it."""
        if error.errno not in NO_ROOM:
            raise error
        self.log.error(
            "no room in the data directory for {name}: it goes to its clients and is not kept ({error}). "
            "Make room, or set max_size or min_free so that files make room for others.",
            name=self.name,
            error=error.strerror,
        )

    def _store(self, chunk: bytes) -> None:
        self._digest(chunk)
        self._partial.write(chunk)

    def _to_window(self, window: Window, chunk: bytes) -> None:
        window.append(chunk)
        self._written += len(chunk)

    async def finish(self) -> None:
        await self._drained()
        if self._broken is not None:
            self._broken.raiseException()
        if self.total is not None and self.total != self._written:
            raise ValueError(f"ended at {self._written:,} of {self.total:,} bytes")
        sha256 = self._verified()
        if self._window is None:
            await self._before_commit(sha256, self._written)
            await self._commit(sha256)
        else:
            await self._offload.run(self._partial.discard)
        self.sha256 = sha256
        self.total = self._written
        self.state = State.COMPLETE
        self._producer = None
        self._tell()

    async def _commit(self, sha256: str) -> None:
        try:
            await self._offload.run(self._partial.commit, sha256)
        except OSError as error:
            # Not tried again: a second fsync may succeed without the bytes that the first one could not write.
            self._not_kept(error)
            await self._offload.run(self._partial.discard)
        else:
            self.kept = True

    def _verified(self) -> str:
        """The sha256 of what has arrived.  Raises DigestMismatch when it is not what was expected."""
        if self._expected is not None:
            actual = self._hashes[self._expected.algorithm].hexdigest()
            if actual != self._expected.hex:
                reason = f"sent {self._expected.algorithm} {actual} where the page says {self._expected.hex}"
                raise DigestMismatch(self.name, [Attempt("upstream", reason, 0.0)])
        sha256: str = self._hashes["sha256"].hexdigest()
        return sha256

    async def restart(self) -> None:
        assert self.released == 0, "bytes that clients have seen cannot be taken back"
        await self._drained()
        await self._offload.run(self._partial.truncate)
        self._hashes = self._fresh_hashes()
        self._accepted = self._written = self._queued = 0
        self._queue.clear()
        self._window = None
        self._broken = None
        self.total = None

    async def fail(self, failure: Failure) -> None:
        """End the download: readers see *failure*.  What has arrived stays for a later try when its digest is known.

        Readers are told when that is done, so that who asks again at once finds what is to be gone on with, or nothing.
        """
        self.state = State.FAILED
        self._producer = None
        try:
            await self._drained()
            spoiled = failure.check(DigestMismatch) is not None or self._window is not None
            keep = self._expected is not None and not spoiled
            await self._offload.run(self._partial.suspend if keep else self._partial.discard)
        finally:
            self.failure = failure
            self._begun.wake(failure)
            self._tell()

    def close(self) -> None:
        """Give the partial file back; readers go on with their own descriptors."""
        self._closed = True
        self._partial.close()

    # -- back-pressure -------------------------------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        if self._paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def _maybe_resume(self) -> None:
        if self._window is not None:
            self._slide(self._window)
            if len(self._window) > WINDOW:
                self._pause()
                return
        if self._paused and self._queued <= QUEUE_LOW:
            self._paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def _slide(self, window: Window) -> None:
        """Drop from the window what every reader has passed (all of it but the held bytes when there is no reader)."""
        visible = self.visible()
        passed = min((reader.position for reader in self._readers), default=visible)
        window.move(min(passed, visible))

    # -- the readers' side -------------------------------------------------------------------------------------------------

    @property
    def joinable(self) -> bool:
        """Whether a new reader can still have every byte from 0 on."""
        if self.state is State.FAILED or self._closed:
            return False
        return self._window is None or self._window.start == self._partial.size

    def visible(self) -> int:
        """The position up to which clients may see the file now."""
        if self.state is State.COMPLETE:
            return self._written
        if self.total is not None:
            return max(0, min(self._written, self.total - HOLD))
        return max(0, self._written - HOLD)

    def begun(self) -> Deferred[None]:
        """Fires when upstream's headers are in (size and validators known), or fails with the download."""
        if self.failure is not None:
            return fail(self.failure)
        return succeed(None) if self.facts is not None else self._begun.wait()

    def reader(self) -> SpoolReader:
        """A new reader of the whole file.  Only while :attr:`joinable`; it must be closed."""
        assert self.joinable
        reader = SpoolReader(self, os.dup(self._partial.fileno()))
        self._readers.add(reader)
        return reader

    def _left(self, reader: SpoolReader) -> None:
        self._readers.discard(reader)
        self._moved()
        if self._window is not None and not self._readers and self.state is State.ARRIVING:
            self.on_abandoned()

    def _moved(self) -> None:
        if self._window is not None and self.state is State.ARRIVING:
            self._maybe_resume()

    def window_bytes(self, position: int, limit: int) -> bytes:
        """Bytes from memory for a reader beyond what is on disk; ``b""`` when *position* is on disk."""
        if self._window is None or position < self._partial.size:
            return b""
        return self._window.read(position, min(position + limit, self.visible()))

    def disk_extent(self) -> int:
        """The position up to which :meth:`SpoolReader.fileno` has bytes that may be sent."""
        visible = self.visible()
        return visible if self._window is None else min(visible, self._partial.size)

    def _tell(self) -> None:
        listeners, self._changed = self._changed, []
        for listener in listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        self._changed.append(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        if listener in self._changed:
            self._changed.remove(listener)


@implementer(IBytesSource)
class SpoolReader:
    """One reader's place in a spool."""

    def __init__(self, spool: Spool, descriptor: int) -> None:
        self._spool = spool
        self._descriptor = descriptor
        self._listener: Callable[[], None] | None = None
        self.position = 0

    @property
    def size(self) -> int | None:
        return self._spool.total

    @property
    def sha256(self) -> str | None:
        return self._spool.sha256

    def fileno(self) -> int:
        return self._descriptor

    def extent(self) -> int:
        return self._spool.disk_extent()

    def from_memory(self, position: int, limit: int) -> bytes:
        return self._spool.window_bytes(position, limit)

    def ended(self) -> bool:
        """Whether nothing more will arrive; raises the download's failure if it failed."""
        if self._spool.failure is not None:
            self._spool.failure.raiseException()
        return self._spool.state is State.COMPLETE

    def advanced(self, position: int) -> None:
        self.position = position
        self._spool.released = max(self._spool.released, position)
        self._spool._moved()

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listener = listener
        self._spool.on_change(listener)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._listener is not None:
                self._spool.off_change(self._listener)
            self._spool._left(self)

"""The growing file: one writer, many readers, each at its own pace.

Theory of operation.  A pool delivers a download by calling :meth:`Spool.write` on the reactor.  Chunks wait in a short queue;
one coroutine takes all that is queued to a worker thread, which hashes and writes it.  The first chunk goes there at once, and
so does one that follows after :data:`PACE`; of a file that arrives faster, :data:`STEP` bytes are gathered first, because each
such step costs every reader as much as a small file does.  What is on disk becomes visible to
readers, less the last :data:`HOLD` bytes: they are shown when the digest of the whole file has matched, or, where there is
none, when every other sign of completeness has been looked at.  Readers read the file itself (``sendfile``), so memory grows
neither with the file nor with the number of readers.

What an earlier run left is gone on with as far as the marks beside it prove that it is what was received; the rest is
forgotten.  Bytes that turn out to be wrong are *hidden* before anything else is done about them: until they have been replaced
nothing is visible.  A download begins anew only while no byte has been sent; a reader whose client has been promised another
size meets an error then.

When the disk is full the spool goes over to *passing*: further bytes are kept in a window of at most :data:`WINDOW` bytes,
which moves on when every reader has passed; nothing is committed.  A reader that comes too late for the window cannot join any
more, and one that holds the others up for :data:`PATIENCE` seconds is dropped.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import io
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.errors import Attempt, DigestMismatch, Overloaded, StorageFailed, UpstreamFailed, is_of_the_disk
from proxy.flight import uninterrupted
from proxy.interfaces import IBytesSource, IOffload, IPartialFile, ISink
from proxy.model import Digest, FileFacts
from proxy.settings import KIB, MIB
from proxy.spool.window import Window
from proxy.waiters import Waiters
from proxy.wheels import OpenFile, Parts

#: Bytes at the end that nobody sees before the digest matched.
HOLD = 4 * KIB
#: Bytes that may wait for the disk before upstream is asked to pause, and at which it may go on.
QUEUE_HIGH = 1 * MIB
QUEUE_LOW = 512 * KIB
#: Bytes to gather before they are written and shown, and for how long at most (seconds).
STEP = 512 * KIB
PACE = 0.05
#: Files up to this size are read for all who waited for them at once (bytes).
SMALL = 64 * KIB
#: Bytes kept in memory when the disk takes no more.
WINDOW = 4 * MIB
#: How long a reader may hold up others on a full disk (seconds): it is dropped if it takes less than a window in that time.
PATIENCE = 3.0
#: Bytes after which the digest of what has arrived is noted for a later download.
_MARK_EVERY = 1 * MIB

#: What a write may fail with that means "no room"; and which of it other files can make room for.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL = (errno.ENOSPC, errno.EDQUOT)
#: The room that is asked for when nobody has said how long the file is.
UNKNOWN_SIZE = 64 * MIB
#: How often room is asked for: others may take what was made, and what is still being read is not free when it has gone.
_TRIES = 3


T = TypeVar("T")

BeforeCommit = Callable[[str, int], Awaitable[None]]
#: Calls a function after so many seconds, as ``IReactorTime.callLater`` does.
Later = Callable[[float, Callable[[], None]], IDelayedCall]
#: Raises ValueError when a file cannot be the whole of what it should be; else whether that means something.  Blocks.
Check = Callable[[io.RawIOBase], bool]


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

    *name* is for messages; *expected* and *size* are the digest and the size its page states, ``None`` when it states none.
    *before_commit* is told the sha256 and the size of a file that has arrived whole and is right, before it is committed and
    before anybody sees its end.  *check* looks at a file without a digest before that.  *later* times the patience with slow
    readers; without it there is no end to it.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        partial: IPartialFile,
        expected: Digest | None,
        offload: IOffload,
        before_commit: BeforeCommit = _nothing,
        *,
        size: int | None = None,
        check: Check | None = None,
        later: Later | None = None,
    ) -> None:
        self._before_commit = before_commit
        self._check = check
        self._later = later
        self.name = name
        self.state = State.ARRIVING
        self.failure: Failure | None = None
        self._stated = size
        self.total = size
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
        self._marked = 0
        #: More came than there should be.
        self._surplus = False
        #: Nothing may be seen now: what has arrived is not to be trusted.
        self._hidden = False
        #: What was received is known to be wrong and not replaced yet.
        self._spoiled = False
        self._disk = DeferredLock()
        self._impatience: IDelayedCall | None = None
        self._queue: list[bytes] = []
        self._queued = 0
        self._draining = False
        #: Whether a step has been taken within the last `PACE`, and no more is taken for little.
        self._resting: IDelayedCall | None = None
        #: Whether somebody waits until all is written.
        self._flushing = False
        self._idle: Waiters[None] = Waiters()
        self._broken: Failure | None = None
        self._producer: Any = None
        self._paused = False
        self._closed = False
        self._window: Window | None = None
        self._readers: set[SpoolReader] = set()
        #: A small file that has arrived, for those who waited for it.
        self._whole: bytes | None = None
        self._begun: Waiters[None] = Waiters()
        self._telling = False
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
        """Hash what an earlier run left in the partial file, so that the download goes on behind what is proven of it."""
        if self._partial.size:
            await self._on_disk(self._recover)
            self._accepted = self._written = self._marked = self._partial.size

    def _recover(self) -> None:
        """Cut off what no mark proves, and all of it when it is as long as the file, or longer, and not right."""
        try:
            proven, hashes = self._rehashed()
        except OSError as error:
            self.log.error("what there is of {name} cannot be read and starts anew: {error}", name=self.name, error=error)
            proven, hashes = 0, self._fresh_hashes()
        whole = self.total if self.total is not None or not proven else self._partial.whole
        if self._is_expected(hashes):
            whole = proven
        elif whole is not None and proven >= whole:
            proven, whole, hashes = 0, self._stated, self._fresh_hashes()
        self.total = whole
        self._hashes = hashes
        if proven < self._partial.size:
            self._partial.truncate(proven)

    def _rehashed(self) -> tuple[int, dict[str, Any]]:
        """The last position that is proven, and the state of the digests there: by a mark, or as all of the file."""
        hashes = self._fresh_hashes()
        proven, known = 0, {name: each.copy() for name, each in hashes.items()}
        position = 0
        looked_at = {*self._partial.marks, self._partial.size, self.total or 0}
        for chunk in self._partial.read_all():
            inside = sorted(each for each in looked_at if position < each < position + len(chunk))
            for mark in [*inside, position + len(chunk)]:
                for each in hashes.values():
                    each.update(chunk[: mark - position])
                chunk, position = chunk[mark - position :], mark
                if self._partial.marks.get(position) == hashes["sha256"].hexdigest() or self._is_expected(hashes):
                    proven, known = position, {name: each.copy() for name, each in hashes.items()}
        return proven, known

    def _is_expected(self, hashes: dict[str, Any]) -> bool:
        return self._expected is not None and hashes[self._expected.algorithm].hexdigest() == self._expected.hex

    async def _on_disk(self, function: Callable[..., T], *args: Any) -> T:
        """Have a worker thread do something to the partial file, one thing at a time, each to its end: who is cancelled leaves,
        and whoever comes next finds nobody at work.
        """
        return await uninterrupted(self._alone(function, args))

    async def _alone(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        async with self._disk:
            done: T = await self._offload.run(function, *args)
        return done

    def _digest(self, chunk: bytes) -> None:
        for each in self._hashes.values():
            each.update(chunk)

    def begin(self, facts: FileFacts) -> None:
        if facts.size is not None:
            if self.total is not None and self.total != facts.size:
                raise ValueError(f"it has {facts.size:,} bytes where {self.total:,} were stated before")
            if self._accepted > facts.size:
                raise ValueError(f"it has {facts.size:,} bytes, fewer than the {self._accepted:,} that are here already")
            self.total = facts.size
        self.facts = facts
        self._tell()

    def write(self, data: bytes) -> None:
        if self._broken is not None:
            return  # finish() will say why
        if self.total is not None and len(data) > self.total - self._accepted:
            self._surplus = True
            data = data[: self.total - self._accepted]
        self._accepted += len(data)
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > QUEUE_HIGH:
            self._pause()
        self._take_step()

    def _take_step(self) -> None:
        """Have what is queued written if that is due and not under way already."""
        if not self._draining and self._due():
            self._draining = True
            Deferred.fromCoroutine(self._drain())

    def _due(self) -> bool:
        """Whether there is something to write, and it is enough, or has waited for long enough."""
        return bool(self._queue) and (self._resting is None or self._flushing or self._queued >= STEP)

    def _rest(self) -> None:
        if self._resting is None and self._later is not None:
            self._resting = self._later(PACE, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._take_step()

    def _stop_resting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    async def _drain(self) -> None:
        try:
            while self._due():
                self._rest()
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
            self._queued = 0
            self._resume()  # what waits for room would never come to finish()
        finally:
            self._draining = False
            self._idle.wake(None)

    async def _drained(self) -> None:
        """Wait until every accepted byte is written (or writing has failed)."""
        self._flushing = True
        self._take_step()
        if self._draining:
            await self._idle.wait()
        self._flushing = False
        self._stop_resting()

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
        """Say that the file goes to its clients only, if *error* is of the disk; else raise it."""
        if not is_of_the_disk(error):
            raise error
        if error.errno not in NO_ROOM:
            self.log.error(
                "the data directory cannot be written ({error}): {name} goes to its clients and is not kept. "
                "Check the mount, the owner and the mode.",
                name=self.name,
                error=error.strerror,
            )
            return
        self.log.error(
            "no room in the data directory for {name}: it goes to its clients and is not kept ({error}). "
            "Make room, or set max_size or min_free so that files make room for others.",
            name=self.name,
            error=error.strerror,
        )

    def _store(self, chunk: bytes) -> None:
        self._digest(chunk)
        self._partial.write(chunk)
        if self._expected is not None and self._partial.size - self._marked >= _MARK_EVERY:
            self._mark()

    def _mark(self) -> None:
        self._partial.mark(self._hashes["sha256"].hexdigest(), self.total)
        self._marked = self._partial.size

    def _to_window(self, window: Window, chunk: bytes) -> None:
        window.append(chunk)
        self._written += len(chunk)

    async def finish(self, *, framed: bool = True) -> None:
        await self._drained()
        if self._broken is not None:
            self._broken.raiseException()
        if self.total is not None and self.total != self._written:
            raise ValueError(f"it ended at {self._written:,} of {self.total:,} bytes")
        if self._expected is not None:
            sha256 = self._verified(self._expected)
            certain = True
        else:
            sha256 = self._hashes["sha256"].hexdigest()
            certain = await self._plausible() or framed or self.total is not None
        if self._window is None and certain:
            await self._before_commit(sha256, self._written)
            await self._commit(sha256)
        else:
            await self._on_disk(self._partial.discard)
        self.sha256 = sha256
        self.total = self._written
        self._complete()

    def _complete(self) -> None:
        self.state = State.COMPLETE
        self._producer = None
        self._be_patient()
        self._tell()

    async def _commit(self, sha256: str) -> None:
        try:
            await self._on_disk(self._partial.commit, sha256)
        except OSError as error:
            # Not tried again: a second fsync may succeed without the bytes that the first one could not write.
            self._not_kept(error)
            await self._on_disk(self._partial.discard)
        else:
            self.kept = True

    def _verified(self, expected: Digest) -> str:
        """The sha256 of what has arrived.  Raises DigestMismatch, and hides it, when it is not what was expected."""
        actual = self._hashes[expected.algorithm].hexdigest()
        if actual != expected.hex:
            self._hidden = self._spoiled = True
            reason = f"sent {expected.algorithm} {actual} where the page says {expected.hex}"
            raise DigestMismatch(self.name, [Attempt("upstream", reason, 0.0)])
        sha256: str = self._hashes["sha256"].hexdigest()
        return sha256

    async def _plausible(self) -> bool:
        """Whether what has arrived without a digest was looked at and is whole.  Raises ValueError when it cannot be."""
        if self._surplus:
            raise ValueError(f"it goes on after the {self.total:,} bytes that were stated")
        if self._check is None:
            return False
        try:
            return await self._on_disk(self._looked_at, self._check)
        except ValueError:
            self._hidden = self._spoiled = True
            raise

    def _looked_at(self, check: Check) -> bool:
        if self._window is None:
            return check(OpenFile(self._partial.fileno(), self._written))
        if self._window.start != self._partial.size or self._written > WINDOW:
            return False  # its beginning has passed by
        whole = Parts(self._written)
        whole.add(0, b"".join(self._partial.read_all()))
        whole.add(self._window.start, self._window.read(self._window.start, self._written))
        return check(whole)

    async def restart(self) -> None:
        assert self.released == 0, "bytes that clients have seen cannot be taken back"
        self._hidden = self._spoiled = True
        await self._drained()
        await self._on_disk(self._partial.truncate)
        self._hashes = self._fresh_hashes()
        self._accepted = self._written = self._queued = self._marked = 0
        self._queue.clear()
        self._window = None
        self._be_patient()
        self._paused = False
        self._broken = None
        self._surplus = False
        self.total = self._stated
        self._hidden = self._spoiled = False

    async def fail(self, failure: Failure) -> None:
        """End the download: readers see *failure*.  What has arrived stays for a later try when its digest is known.

        Readers are told when that is done, so that who asks again at once finds what is to be gone on with, or nothing.
        """
        self.state = State.FAILED
        self._producer = None
        self._be_patient()
        if failure.check(DigestMismatch) is not None:
            self._spoiled = True
        self._hidden = self._hidden or self._spoiled
        try:
            await self._drained()
            keep = self._expected is not None and not self._spoiled and not self._surplus and self._window is None
            await self._on_disk(self._suspend if keep else self._partial.discard)
        finally:
            self.failure = failure
            self._begun.wake(failure)
            self._tell()

    def _suspend(self) -> None:
        self._mark()
        self._partial.suspend()

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
                self._be_impatient(self._window)
                return
        if self._queued <= QUEUE_LOW:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def _slide(self, window: Window) -> None:
        """Drop from the window what every reader has passed (all of it but the held bytes when there is no reader)."""
        visible = self.visible()
        passed = min((reader.position for reader in self._readers), default=visible)
        window.move(min(passed, visible))

    def _be_impatient(self, window: Window) -> None:
        """Give those some time for whom upstream waits while others have all there is, and drop them then."""
        if self._impatience is not None or self._later is None or not self._starving():
            return
        then = {reader: reader.position for reader in self._readers}

        def look() -> None:
            self._impatience = None
            if len(window) > WINDOW and (starving := self._starving()):
                slow = [each for each, position in then.items() if each.position - position < WINDOW]
                for reader in self._readers.intersection(slow) - starving:
                    self._drop(reader)
                self._moved()

        self._impatience = self._later(PATIENCE, look)

    def _starving(self) -> set[SpoolReader]:
        """The readers that have all there is, if there are others."""
        visible = self.visible()
        starving = {reader for reader in self._readers if reader.position >= visible}
        return starving if len(starving) < len(self._readers) else set()

    def _be_patient(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _drop(self, reader: SpoolReader) -> None:
        self._readers.discard(reader)
        self.log.warn(
            "no room in the data directory for {name}, and a client that is too slow holds the others up: it is dropped. "
            "Make room, or set max_size or min_free so that files make room for others.",
            name=self.name,
        )
        reader.drop(Overloaded(f"there is no room to store {self.name}, and you are too slow for the others: ask again"))

    # -- the readers' side -------------------------------------------------------------------------------------------------

    @property
    def joinable(self) -> bool:
        """Whether a new reader can still have every byte from 0 on."""
        if self.state is State.FAILED or self._closed:
            return False
        return self._window is None or self._window.start == self._partial.size

    def is_wanted(self) -> bool:
        """Whether anybody waits for its beginning or reads it."""
        return len(self._begun) > 0 or bool(self._readers)

    def visible(self) -> int:
        """The position up to which clients may see the file now."""
        if self._hidden:
            return 0
        if self.state is State.COMPLETE:
            return self._written
        if self.total is not None:
            return max(0, min(self._written, self.total - HOLD))
        return max(0, self._written - HOLD)

    def begun(self) -> Deferred[None]:
        """Fires when there is something to send: the first bytes, or, of a file that is held back whole, the end; or fails with
        the download.
        """
        if self.failure is not None:
            return fail(self.failure)
        return succeed(None) if self._showing else self._begun.wait()

    @property
    def _showing(self) -> bool:
        return self.state is State.COMPLETE or (self.facts is not None and self.visible() > 0)

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
        if self._window is not None and self.state is State.ARRIVING and not self._telling:
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

    def read_whole(self) -> bytes | None:
        """All bytes of a small file that has just come to its end, read once for all readers; else ``None``."""
        if self.state is not State.COMPLETE or self._window is not None or self._written > SMALL or self._closed:
            return None
        if self._whole is None:
            self._whole = os.pread(self._partial.fileno(), self._written, 0)
        return self._whole if len(self._whole) == self._written else None

    def unchanged(self, descriptor: int) -> bool:
        """Whether the file behind *descriptor*, a reader's, is what was received (as long as more arrives nobody can tell)."""
        return self.state is not State.COMPLETE or self._partial.unchanged(descriptor)

    def _tell(self) -> None:
        if self._showing and self.failure is None:
            # Whoever waited for the beginning becomes a reader in here, and some are sent to at once: the window waits for all.
            self._telling = True
            self._begun.wake(None)
            self._telling = False
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
        self._dropped: Exception | None = None
        #: What the client has been promised.
        self.size = spool.total
        self.position = 0

    @property
    def sha256(self) -> str | None:
        return self._spool.sha256

    def fileno(self) -> int:
        return self._descriptor

    def take_read(self) -> bytes | None:
        data = self._spool.read_whole() if self._fits() else None
        if data is not None:
            self.confirm()
            self.advanced(len(data))
        return data

    def confine(self, start: int, stop: int) -> None:
        self.position = start

    def _fits(self) -> bool:
        """Whether the file still has the size that was promised: it may have begun anew."""
        return self.size is None or self._spool.total in (None, self.size)

    def extent(self) -> int:
        if not self._fits() or self._dropped is not None:
            return 0
        extent = self._spool.disk_extent()
        if self.size is not None and self._spool.total is None:
            return min(extent, max(0, self.size - HOLD))  # begun anew: whether that is its end is not known yet
        return extent

    def from_memory(self, position: int, limit: int) -> bytes:
        return self._spool.window_bytes(position, limit) if self._fits() and self._dropped is None else b""

    def ended(self) -> bool:
        """Whether nothing more will arrive; raises the download's failure if it failed."""
        if self._dropped is not None:
            raise self._dropped
        if self._spool.failure is not None:
            self._spool.failure.raiseException()
        if not self._fits():
            reason = f"had {self.size:,} bytes at first and has {self._spool.total:,} now"
            raise UpstreamFailed(self._spool.name, [Attempt("upstream", reason, 0.0)])
        return self._spool.state is State.COMPLETE

    def confirm(self) -> None:
        if not self._spool.unchanged(self._descriptor):
            raise StorageFailed(f"{self._spool.name} was changed on the disk while it was sent: ask again")

    def drop(self, error: Exception) -> None:
        """Told by the spool: nothing more will be kept for this reader."""
        self._dropped = error

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

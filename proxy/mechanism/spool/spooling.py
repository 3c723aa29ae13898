"""One download on its way to the disk and to its readers; the theory is in the package's docstring."""

from __future__ import annotations

import io
import os
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.errors import DigestMismatch
from proxy.interfaces import IOffload, IPartialFile, ISink
from proxy.mechanism.spool.arrival import Arrival
from proxy.mechanism.spool.audience import Audience
from proxy.mechanism.spool.passing import Passing
from proxy.mechanism.spool.reader import SpoolReader
from proxy.mechanism.spool.states import SpoolEvent
from proxy.mechanism.spool.steps import QUEUE_HIGH, QUEUE_LOW, STEP, Later, Steps
from proxy.mechanism.spool.valve import Valve
from proxy.mechanism.spool.writer import MakeRoom, Writer, no_room
from proxy.mechanism.waiters import Waiters
from proxy.model import Digest, FileFacts

BeforeCommit = Callable[[str, int], Awaitable[None]]
#: Raises ValueError when a file cannot be the whole of what it should be; else whether that means something.  Blocks.
Check = Callable[[io.RawIOBase], bool]


async def _nothing(sha256: str, size: int) -> None:
    """What happens before a commit unless somebody wants to know."""


def _let_go() -> None:
    """What is done about a download that nobody reads, unless somebody wants to end it."""


@implementer(ISink)
class Spool:
    """One download.

    *name* is for messages; *expected* and *size* are the digest and the size its page states, ``None`` when it states none.
    *before_commit* is told the sha256 and the size of a file that has arrived whole and is right, before it is committed and
    before anybody sees its end.  *check* looks at a file without a digest before that.  *make_room* is asked when the disk
    takes no more for room for that many bytes; true: it may take them now.  *abandoned* is called when nobody reads a
    download that is not kept either.  *later* times steps and the patience with slow readers.
    """

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
        make_room: MakeRoom = no_room,
        abandoned: Callable[[], None] = _let_go,
        later: Later | None = None,
    ) -> None:
        self.facts: FileFacts | None = None
        #: Whether the file was committed to the store (not so on a full disk).
        self.kept = False
        self.released = 0
        self._before_commit = before_commit
        self._check = check
        self._abandoned = abandoned
        self._later = later
        self._stated = size
        self._partial = partial
        self._writer = Writer(name, partial, expected, offload, make_room)
        self._file = Arrival(self._writer, size)
        self._accepted = partial.size
        #: More came than there should be.
        self._surplus = False
        #: Why writing has failed.
        self._broken: Failure | None = None
        self._steps = Steps(later, self._take_step)
        self._draining = False
        self._idle: Waiters[None] = Waiters()
        self._valve = Valve()
        self._closed = False
        self._audience = Audience()

    @property
    def total(self) -> int | None:
        """The size of the whole, as far as it is known (bytes)."""
        return self._file.total

    @property
    def sha256(self) -> str | None:
        """The digest of the whole in hex, once it is known."""
        return self._file.sha256

    # -- the writer's side: ISink ------------------------------------------------------------------------------------------

    @property
    def offset(self) -> int:
        return self._accepted

    async def recover(self) -> None:
        """Hash what an earlier run left in the partial file, so that the download goes on behind what is proven of it."""
        self._file.is_sized(await self._writer.recover(self.total, self._stated))
        self._accepted = self._writer.stored

    def begin(self, facts: FileFacts) -> None:
        if facts.size is not None:
            if self.total is not None and self.total != facts.size:
                raise ValueError(f"it has {facts.size:,} bytes where {self.total:,} were stated before")
            if self._accepted > facts.size:
                raise ValueError(f"it has {facts.size:,} bytes, fewer than the {self._accepted:,} that are here already")
            self._file.is_sized(facts.size)
        self.facts = facts
        self._tell()

    def write(self, data: bytes) -> None:
        if not self._file.is_taking():
            return  # finish() will say why
        if self.total is not None and len(data) > self.total - self._accepted:
            self._surplus = True
            data = data[: self.total - self._accepted]
        self._accepted += len(data)
        self._steps.add(data)
        if self._steps.held > QUEUE_HIGH:
            self._valve.shut()
        self._take_step()

    def _take_step(self) -> None:
        """Have what is queued written if that is due and not under way already."""
        if not self._draining and self._steps.due():
            self._draining = True
            Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        try:
            while self._steps.due():
                chunk = self._steps.take()
                await self._put(chunk)
                self._steps.written(len(chunk))
                if not self._ends_with(len(chunk)):
                    self._tell()
                self._maybe_resume()
        except Exception:  # noqa: BLE001  # finish() raises it to who waits for the download
            self._broken = Failure()
            self._file.happened(SpoolEvent.BROKE)
            self._steps.forget()
            self._valve.open()  # what waits for room would never come to finish()
        finally:
            self._draining = False
            self._idle.wake(None)

    def _ends_with(self, count: int) -> bool:
        """Whether the *count* bytes that were written last end a file of which there was something before, and are so few that
        they are shown together with its very end, once that is verified: whatever is shown costs every reader a step.
        """
        return self._file.written == self.total and count <= STEP and count < self.total and self._file.passing is None

    async def _put(self, chunk: bytes) -> None:
        """Write *chunk*, or have it pass."""
        if self._file.passing is not None:
            await self._writer.pass_by(chunk)
            self._file.passing.append(chunk)
        elif rest := await self._writer.write(chunk, self.total):
            start, readers = self._writer.stored, self._audience.readers
            passing = Passing(self._file.name, start, readers, self.visible, self._drop, self._later)
            passing.append(rest)
            self._file.overflow(passing)

    async def _drained(self) -> None:
        """Wait until every accepted byte is written (or writing has failed)."""
        self._steps.hurry()
        self._take_step()
        if self._draining:
            await self._idle.wait()
        self._steps.calm()

    async def finish(self, *, framed: bool = True) -> None:
        await self._drained()
        if self._broken is not None:
            self._broken.raiseException()
        if self.total is not None and self.total != self._file.written:
            raise ValueError(f"it ended at {self._file.written:,} of {self.total:,} bytes")
        certain = await self._certain(framed)
        sha256 = self._writer.sha256
        if self._file.passing is None and certain:
            await self._before_commit(sha256, self._file.written)
            self.kept = await self._writer.commit(sha256)
        else:
            await self._writer.discard()
        self._file.end(sha256)
        self._valve.unregister()
        self._be_patient()
        self._tell()

    async def _certain(self, framed: bool) -> bool:
        """Whether what has arrived is known to be right, or whole.  Raises DigestMismatch or ValueError when it is not."""
        if self._writer.expected is None and self._surplus:
            raise ValueError(f"it goes on after the {self.total:,} bytes that were stated")
        try:
            if self._writer.expected is not None:
                self._writer.verify()
                return True
            bounded = framed or self.total is not None
            plausible = self._check is not None and await self._writer.run(self._looked_at, self._check, bounded)
        except (DigestMismatch, ValueError):
            self._file.happened(SpoolEvent.REFUTED)
            raise
        return plausible or bounded

    def _looked_at(self, check: Check, bounded: bool) -> bool:
        """Whether *check* was shown all that has arrived, and finds that it is whole.  Raises ValueError when it cannot be.

        *bounded*: upstream has said where it ends.  Otherwise what has passed by unseen may have been cut off.
        """
        file = self._file.to_look_at()
        if file is None:
            if not bounded:
                raise ValueError("the disk has no room for it, and nothing else tells its end from an interruption")
            return False
        return check(file)

    async def restart(self) -> None:
        assert self.released == 0, "bytes that clients have seen cannot be taken back"
        self._file.happened(SpoolEvent.BEGAN_ANEW)
        await self._drained()
        await self._writer.empty()
        self._accepted = 0
        self._steps.forget()
        self._be_patient()
        self._valve.forget()
        self._broken = None
        self._surplus = False
        self._file.empty(self._stated)

    async def fail(self, failure: Failure) -> None:
        """End the download: readers see *failure*.  What has arrived stays for a later try when its digest is known.

        Readers are told when that is done, so that who asks again at once finds what is to be gone on with, or nothing.
        """
        if failure.check(DigestMismatch) is not None:
            self._file.happened(SpoolEvent.REFUTED)
        self._file.happened(SpoolEvent.GAVE_UP)
        if self._file.is_complete():
            return
        self._valve.unregister()
        self._be_patient()
        try:
            await self._drained()
            if self._is_of_use():
                await self._writer.suspend(self.total)
            else:
                await self._writer.discard()
        finally:
            self._file.fail(failure)
            self._audience.fail(failure)
            self._audience.change()

    def _is_of_use(self) -> bool:
        """Whether a later download can go on with what has arrived of one that was given up."""
        known = self._writer.expected is not None and not self._surplus
        return known and self._file.passing is None and not self._file.is_hidden()

    def close(self) -> None:
        """Give the partial file back; readers go on with their own descriptors."""
        self._closed = True
        self._partial.close()

    # -- back-pressure -------------------------------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._valve.register(producer)

    def unregisterProducer(self) -> None:
        self._valve.unregister()

    def _maybe_resume(self) -> None:
        if self._file.passing is not None and self._file.passing.is_full():
            self._valve.shut()
        elif self._steps.held <= QUEUE_LOW:
            self._valve.open()

    def _be_patient(self) -> None:
        if self._file.passing is not None:
            self._file.passing.end_patience()

    def _drop(self, slow: Collection[SpoolReader]) -> None:
        self._audience.readers.difference_update(slow)
        self._moved()

    # -- the readers' side -------------------------------------------------------------------------------------------------

    @property
    def joinable(self) -> bool:
        """Whether a new reader can still have every byte from 0 on."""
        if self._file.is_given_up() or self._closed:
            return False
        return self._file.passing is None or self._file.passing.has_all

    def is_wanted(self) -> bool:
        """Whether anybody waits for its beginning or reads it."""
        return not self._audience.is_empty()

    def visible(self) -> int:
        """The position up to which clients may see the file now."""
        return self._file.visible()

    def begun(self) -> Deferred[None]:
        """Fires when there is something to send: the first bytes, or, of a file that is held back whole, the end; or fails with
        the download.
        """
        if self._file.failure is not None:
            return fail(self._file.failure)
        return succeed(None) if self._showing else self._audience.wait()

    @property
    def _showing(self) -> bool:
        return self._file.is_complete() or (self.facts is not None and self.visible() > 0)

    def reader(self) -> SpoolReader:
        """A new reader of the whole file.  Only while :attr:`joinable`; it must be closed."""
        assert self.joinable
        reader = SpoolReader(self._file, self, os.dup(self._partial.fileno()))
        self._audience.readers.add(reader)
        return reader

    def another(self) -> SpoolReader | None:
        # On a full disk those who read wait for each other: who joins them is looked at anew.
        return self.reader() if self.joinable and self._file.passing is None and self.visible() else None

    def left(self, reader: SpoolReader) -> None:
        self._audience.readers.discard(reader)
        self._moved()
        if self._is_passing() and not self._audience.readers:
            self._abandoned()

    def advanced(self, position: int) -> None:
        self.released = max(self.released, position)
        self._moved()

    def _is_passing(self) -> bool:
        """Whether upstream and readers wait for each other: the window has what was received, and no more."""
        return self._file.passing is not None and not self._file.is_given_up() and not self._file.is_complete()

    def _moved(self) -> None:
        # While readers join, some are sent to already: the window waits for all of them.
        if self._is_passing() and not self._audience.joining:
            self._maybe_resume()

    def _tell(self) -> None:
        if self._showing and self._file.failure is None:
            self._audience.begin()
        self._audience.change()

    def on_change(self, listener: Callable[[], None]) -> None:
        self._audience.listen(listener)

    def off_change(self, listener: Callable[[], None]) -> None:
        self._audience.unlisten(listener)

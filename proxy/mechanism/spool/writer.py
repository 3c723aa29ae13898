"""The writer's side of an arriving file: digests, the disk, marks for a later download, and room on a disk that is full.

Whatever blocks runs in a worker thread, one thing at a time; everything else belongs to the reactor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from proxy.errors import FULL, NO_ROOM, Attempted, DigestMismatch, is_of_the_disk
from proxy.interfaces import IOffload, IPartialFile
from proxy.mechanism.flight import uninterrupted
from proxy.model import Digest
from proxy.settings import MIB

T = TypeVar("T")

#: The room that is asked for when nobody has said how long the file is (bytes).
UNKNOWN_SIZE = 64 * MIB
#: Bytes after which the digest of what has arrived is noted for a later download.
_MARK_EVERY = 1 * MIB
#: How often room is asked for: others may take what was made, and what is still being read is not free when it has gone.
_TRIES = 3

#: Asked when the disk takes no more for room for that many bytes; true: it may take them now.
MakeRoom = Callable[[int], Awaitable[bool]]


async def no_room(needed: int) -> bool:
    """What is done about a full disk unless somebody can do better."""
    return False


class Writer:
    """Writes *name* into *partial*, and knows the digests of all that it was given, written or not.

    *expected* is the digest that the file should have, ``None`` when nobody stated one.
    """

    log = Logger()

    def __init__(
        self, name: str, partial: IPartialFile, expected: Digest | None, offload: IOffload, make_room: MakeRoom
    ) -> None:
        self.name = name
        self.expected = expected
        self.partial = partial
        #: Bytes on the disk.
        self.stored = partial.size
        self._offload = offload
        self._make_room = make_room
        self._disk = DeferredLock()
        self._hashes = self._fresh_hashes()
        self._marked = 0

    def _fresh_hashes(self) -> dict[str, Any]:
        names = {"sha256"} | ({self.expected.algorithm} if self.expected else set())
        return {name: hashlib.new(name, usedforsecurity=False) for name in names}

    @property
    def sha256(self) -> str:
        """The sha256 of all so far, in hex."""
        digest: str = self._hashes["sha256"].hexdigest()
        return digest

    def verify(self) -> None:
        """Raise DigestMismatch when what has arrived is not what was expected."""
        if self.expected is not None and not self._is_expected(self._hashes):
            actual = self._hashes[self.expected.algorithm].hexdigest()
            reason = f"sent {self.expected.algorithm} {actual} where the page says {self.expected.hex}"
            raise DigestMismatch(self.name, [Attempted("upstream", reason, 0.0)])

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Have a worker thread do something to the partial file, one thing at a time, each to its end: who is cancelled leaves,
        and whoever comes next finds nobody at work.
        """
        return await uninterrupted(self._alone(function, args))

    async def _alone(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        async with self._disk:
            done: T = await self._offload.run(function, *args)
        return done

    # -- what an earlier run left ------------------------------------------------------------------------------------------

    async def recover(self, total: int | None, stated: int | None) -> int | None:
        """Hash what there is, and cut off what is not proven.  Returns the size of the whole, as far as it is known now.

        *total* is its size as far as it was known before, *stated* the size that the page states (bytes).
        """
        whole = await self.run(self._recover, total, stated) if self.partial.size else total
        self.stored = self._marked = self.partial.size
        return whole

    def _recover(self, total: int | None, stated: int | None) -> int | None:
        """Cut off what no mark proves, and all of it when it is as long as the file, or longer, and not right."""
        try:
            proven, hashes = self._rehashed(total)
        except OSError as error:
            self.log.error("what there is of {name} cannot be read and starts anew: {error}", name=self.name, error=error)
            proven, hashes = 0, self._fresh_hashes()
        whole = total if total is not None or not proven else self.partial.whole
        if self._is_expected(hashes):
            whole = proven
        elif whole is not None and proven >= whole:
            proven, whole, hashes = 0, stated, self._fresh_hashes()
        self._hashes = hashes
        if proven < self.partial.size:
            self.partial.truncate(proven)
        return whole

    def _rehashed(self, total: int | None) -> tuple[int, dict[str, Any]]:
        """The last position that is proven, and the state of the digests there: by a mark, or as all of the file."""
        hashes = self._fresh_hashes()
        proven, known = 0, {name: each.copy() for name, each in hashes.items()}
        position = 0
        looked_at = {*self.partial.marks, self.partial.size, total or 0}
        for chunk in self.partial.read_all():
            inside = sorted(each for each in looked_at if position < each < position + len(chunk))
            for mark in [*inside, position + len(chunk)]:
                for each in hashes.values():
                    each.update(chunk[: mark - position])
                chunk, position = chunk[mark - position :], mark
                if self.partial.marks.get(position) == hashes["sha256"].hexdigest() or self._is_expected(hashes):
                    proven, known = position, {name: each.copy() for name, each in hashes.items()}
        return proven, known

    def _is_expected(self, hashes: dict[str, Any]) -> bool:
        return self.expected is not None and hashes[self.expected.algorithm].hexdigest() == self.expected.hex

    # -- what comes --------------------------------------------------------------------------------------------------------

    async def write(self, chunk: bytes, total: int | None) -> bytes:
        """Hash *chunk* and write it behind what is there; *total* as in :meth:`recover`.

        Returns what the disk does not take: from then on chunks are only to be :meth:`pass_by`.  Raises what is no matter of
        the disk.
        """
        rest = b""
        try:
            await self._offload.run(self._store, chunk, total)
        except OSError as error:
            rest = await self._where_there_is_room(chunk[self.partial.size - self.stored :], total, error)
        self.stored = self.partial.size
        return rest

    async def pass_by(self, chunk: bytes) -> None:
        """Hash *chunk*, which is not written."""
        await self._offload.run(self._digest, chunk)

    def _digest(self, chunk: bytes) -> None:
        for each in self._hashes.values():
            each.update(chunk)

    def _store(self, chunk: bytes, total: int | None) -> None:
        self._digest(chunk)
        self.partial.write(chunk)
        if self.expected is not None and self.partial.size - self._marked >= _MARK_EVERY:
            self._mark(total)

    def _mark(self, total: int | None) -> None:
        self.partial.mark(self._hashes["sha256"].hexdigest(), total)
        self._marked = self.partial.size

    async def _where_there_is_room(self, rest: bytes, total: int | None, error: OSError) -> bytes:
        """Write *rest*, which the disk did not take because of *error*, once there is room; what is left when there is none."""
        for _ in range(_TRIES):
            wanting = UNKNOWN_SIZE if total is None else total - self.partial.size
            if error.errno not in FULL or not await self._make_room(max(wanting, len(rest))):
                break
            before = self.partial.size
            try:
                await self._offload.run(self.partial.write, rest)
            except OSError as again:
                error, rest = again, rest[self.partial.size - before :]
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

    # -- how it ends -------------------------------------------------------------------------------------------------------

    async def commit(self, sha256: str) -> bool:
        """Make it the committed file *sha256*; whether the disk took it."""
        try:
            await self.run(self.partial.commit, sha256)
        except OSError as error:
            # Not tried again: a second fsync may succeed without the bytes that the first one could not write.
            self._not_kept(error)
            await self.discard()
            return False
        return True

    async def empty(self) -> None:
        """Forget all bytes."""
        await self.run(self.partial.truncate)
        self._hashes = self._fresh_hashes()
        self.stored = self._marked = 0

    async def suspend(self, total: int | None) -> None:
        """Leave what is there for a later download; *total* as in :meth:`recover`."""
        await self.run(self._suspend, total)

    def _suspend(self, total: int | None) -> None:
        self._mark(total)
        self.partial.suspend()

    async def discard(self) -> None:
        """Remove what is there; readers keep what they have."""
        await self.run(self.partial.discard)

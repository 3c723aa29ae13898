"""When each stored file was last used: noted in memory at each use, written to the store in batches.

The store keeps the time with the file itself, so that it survives a restart, and the loss of every record.  It is their order
that counts: after the clock was set back, a use is noted as right after the last one, even one of an earlier run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from twisted.logger import Logger

from proxy.interfaces import Clock, IFileStore, IOffload
from proxy.model import CommittedFile

#: What lies between two uses while the clock is behind (seconds): little, but more than a float can tell apart.
_TICK = 1e-6


class UsageBook:
    """The last uses of all files in *store*.  *clock* tells the time, in seconds since the epoch."""

    log = Logger()

    def __init__(self, store: IFileStore, offload: IOffload, clock: Clock) -> None:
        self._store = store
        self._offload = offload
        self._clock = clock
        #: The last use of any file, or a later moment.
        self._latest = 0.0
        self._follows = False
        self._noted: dict[str, float] = {}
        self._being_written: Mapping[str, float] = {}

    def used(self, sha256: str) -> None:
        """Note a use of a file now.  Called for every answer: it costs a dictionary store."""
        now = self._clock()
        self._latest = now if now >= self._latest else self._latest + _TICK
        self._noted[sha256] = self._latest

    def used_since(self, sha256: str, moment: float) -> bool:
        """Whether a use after *moment* is in memory (one that is written already may be missed)."""
        return self._noted.get(sha256, 0.0) > moment

    async def follow(self) -> None:
        """Make sure that the uses of this run come after those of earlier ones: the clock may have been set back since."""
        if not self._follows:
            await self.files()

    async def write(self) -> None:
        """Write what was noted since the last time."""
        if not self._noted:
            return
        batch, self._noted = self._noted, {}
        self._being_written = batch
        try:
            await self._store.touch(batch)
        except OSError as error:
            self._noted = {**batch, **self._noted}
            self.log.error("when files were last used cannot be written and is tried again: {error}", error=error)
        finally:
            self._being_written = {}

    async def files(self) -> list[CommittedFile]:
        """Every stored file with its size and its last use."""
        stored = await self._store.inventory()
        files, latest = await self._offload.run(_with_later, stored, {**self._being_written, **self._noted})
        if not self._follows and latest > self._clock():
            for sha256 in sorted(self._noted, key=self._noted.__getitem__):
                latest += _TICK
                self._noted[sha256] = latest
        self._follows = True
        self._latest = max(self._latest, latest)
        return files

    async def last_used(self) -> Mapping[str, float]:
        """The last use of every stored file, in seconds since the epoch, by sha256."""
        return await self._offload.run(_times, await self.files())

    async def files_of(self, digests: Collection[str]) -> Mapping[str, CommittedFile]:
        """Those of the files with these sha256 that are stored."""
        return await self._offload.run(_among, await self.files(), digests)


def _with_later(stored: list[CommittedFile], noted: Mapping[str, float]) -> tuple[list[CommittedFile], float]:
    """*stored* with the times in *noted* where these are later, and the last of all times."""
    files = [file._replace(used=max(file.used, noted.get(file.sha256, 0.0))) for file in stored]
    return files, max((file.used for file in files), default=0.0)


def _times(stored: list[CommittedFile]) -> dict[str, float]:
    return {file.sha256: file.used for file in stored}


def _among(stored: list[CommittedFile], digests: Collection[str]) -> dict[str, CommittedFile]:
    return {file.sha256: file for file in stored if file.sha256 in digests}

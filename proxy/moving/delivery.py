"""Bytes of another index on their way into the intake of a hosted one: a sink that lets its sender wait for the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from proxy.errors import DigestMismatch
from proxy.hosted.intake import IncomingFile, Intake
from proxy.interfaces import ISink
from proxy.model import FileFacts, Wanted
from proxy.settings import MIB

#: Bytes that may wait to be written.
_MOST = 1 * MIB


@implementer(ISink)
class Delivery:
    """Writes what is delivered of *wanted* into a file of *intake*; *told* hears of each piece."""

    def __init__(self, wanted: Wanted, intake: Intake, told: Callable[[int], None]) -> None:
        self._wanted = wanted
        self._intake = intake
        self._told = told
        self.offset = 0
        self.released = 0
        self.facts = FileFacts(None)
        self._waiting: list[bytes] = []
        self._held = 0
        self._writing: Deferred[None] | None = None
        self._failure: BaseException | None = None
        self._producer: IPushProducer | None = None
        self._paused = False
        self._digest = self._new_digest()
        self._file: IncomingFile | None = None

    async def prepare(self) -> None:
        """Begin the file.  Raises StorageFailed."""
        self._file = await self._intake.begin(self._wanted.size or 0)

    @property
    def file(self) -> IncomingFile:
        """The file that everything is written to."""
        assert self._file is not None, "it is prepared first"
        return self._file

    def _new_digest(self) -> hashlib._Hash | None:
        wanted = self._wanted.digest
        return None if wanted is None else hashlib.new(wanted.algorithm, usedforsecurity=False)

    def begin(self, facts: FileFacts) -> None:
        self.facts = facts

    def write(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        self.offset += len(data)
        self._told(len(data))
        if self._digest is not None:
            self._digest.update(data)
        self._waiting.append(data)
        self._held += len(data)
        if self._held > _MOST and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
        if self._writing is None:
            self._writing = Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                await self.file.write(data)
                self._held -= len(data)
                if self._paused and self._held <= _MOST and self._producer is not None:
                    self._paused = False
                    self._producer.resumeProducing()
        except BaseException as error:  # noqa: BLE001  # whoever delivers is told, at the next piece or at the end
            self._failure = error
            if self._paused and self._producer is not None:
                self._paused = False
                self._producer.resumeProducing()
        finally:
            self._writing = None

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self._producer = producer
        self._paused = False

    def unregisterProducer(self) -> None:
        self._producer = None

    async def _written(self) -> None:
        if self._writing is not None:
            await self._writing
        if self._failure is not None:
            raise self._failure

    async def finish(self, *, framed: bool = True) -> None:
        await self._written()
        wanted = self._wanted
        if wanted.size is not None and wanted.size != self.offset:
            raise ValueError(f"it has {self.offset:,} bytes, not {wanted.size:,}")
        if wanted.digest is not None and self._digest is not None and self._digest.hexdigest() != wanted.digest.hex:
            raise DigestMismatch(f"{wanted.filename} with {wanted.digest}", [])

    async def restart(self) -> None:
        await self._written()
        await self.file.end()
        self._told(-self.offset)
        self.offset = 0
        self._digest = self._new_digest()
        await self.prepare()

    async def discard(self) -> None:
        """Leave nothing."""
        if self._writing is not None:
            await self._writing
        if self._file is not None:
            await self._file.end()

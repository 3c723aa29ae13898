"""Metadata for wheels whose upstream offers none (PEP 658): read out of the wheel, kept for ever under the wheel's digest.

The wheel is read where it is stored; else by a few small ranges at upstream; else, where ranges do not work, it is downloaded.
A wheel that has no readable METADATA is remembered as such, so that no client is sent there again.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxy.cache.files import FileCache
from proxy.cache.pins import PinBook
from proxy.errors import NotFound, StorageFailed, UpstreamFailed
from proxy.flight import Flights
from proxy.interfaces import IBytesSource, IOffload, IRepository
from proxy.model import NO_BYTES, Pin
from proxy.repository.located import Located
from proxy.repository.offered import metadata_name
from proxy.settings import KIB
from proxy.storage.whole import anonymous
from proxy.wheels import Absent, OpenFile, Parts, Unreadable, read_metadata

#: What is read from the end at first: the directory of most wheels, and their metadata, which stands before it.
_TAIL = 32 * KIB
#: A piece that turns out to be needed is read with what follows it: the METADATA comes after its header.
_AT_LEAST = 16 * KIB
#: Ranges after which a wheel is given up.
_MOST_RANGES = 10


class WheelMetadata:
    """The metadata of the wheels of all indexes.  *count* is told of each thing worth counting."""

    log = Logger()

    def __init__(
        self, files: FileCache, pins: PinBook, offload: IOffload, reactor: IReactorTime, count: Callable[[str], None]
    ) -> None:
        self._files = files
        self._pins = pins
        self._offload = offload
        self._reactor = reactor
        self._count = count
        self._reads: Flights[tuple[bytes, str]] = Flights()

    def close(self) -> None:
        """Stop what is under way."""
        self._reads.close()

    async def of(self, repository: IRepository, project: str, asked: str, filename: str) -> IBytesSource:
        """The metadata of the wheel *filename*, whose URL on *repository* has the digest segment *asked*.

        Raises NotFound when it has none that can be read, and what the methods of :class:`IRepository` raise.
        """
        key = (repository.name, project, asked, filename)
        data, sha256 = await self._reads.join(key, lambda: self._read(*key, repository))
        stored = await self._files.stored(sha256)
        return stored if stored is not None else anonymous(data, sha256)

    async def _read(self, index: str, project: str, asked: str, filename: str, repository: IRepository) -> tuple[bytes, str]:
        located = await repository.locate(project, asked, filename)

        async def remember(sha256: str, size: int) -> None:
            url = located.wanted.url if located.wanted is not None else ""
            pin = Pin(sha256, size, {}, url, self._reactor.seconds())
            await self._pins.put(index, project, metadata_name(asked, filename), pin)

        try:
            data = await self._data(repository, located, asked, filename)
        except Unreadable as error:
            self.log.warn("{wheel} is not offered with metadata again: {error}", wheel=filename, error=error)
            self._count("wheel without metadata")
            await remember(NO_BYTES, 0)
            raise NotFound(f"{filename} has no metadata: {error}") from error
        sha256 = await self._files.keep(data)
        self._count("metadata read out of a wheel")
        await remember(sha256, len(data))
        return data, sha256

    async def _data(self, repository: IRepository, located: Located, asked: str, filename: str) -> bytes:
        """The METADATA.  Raises Unreadable."""
        if located.stored is None:
            try:
                size = (await repository.facts(located)).size
                if size is not None:
                    return await self._from_ranges(repository, located, filename, size)
            except UpstreamFailed:
                pass  # ranges do not work there, or nothing does: the download will tell
        source = located.stored or await repository.download(located, asked)
        try:
            await whole(source, filename)
            return await self._offload.run(read_metadata, OpenFile(source.fileno(), source.extent()), filename)
        finally:
            source.close()

    async def _from_ranges(self, repository: IRepository, located: Located, filename: str, size: int) -> bytes:
        parts = Parts(size)
        start, stop = max(0, size - _TAIL), size
        for _ in range(_MOST_RANGES):
            parts.add(start, await _part(repository, located, start, stop))
            try:
                return await self._offload.run(read_metadata, parts, filename)
            except Absent as absent:
                start, stop = absent.start, min(size, max(absent.stop, absent.start + _AT_LEAST))
        raise Unreadable(f"{_MOST_RANGES} pieces of it were not enough to find any")


async def _part(repository: IRepository, located: Located, start: int, stop: int) -> bytes:
    reader = await repository.open_range(located, start, stop)
    chunks = []
    try:
        while chunk := await reader.read():
            chunks.append(chunk)
    finally:
        reader.close()
    return b"".join(chunks)


async def whole(source: IBytesSource, filename: str) -> None:
    """Wait until all of *source* is on disk."""
    while not source.ended():
        if source.from_memory(source.extent(), 1):
            raise StorageFailed(f"there is no room to store {filename}, make room on its file system")
        await _change(source)


def _change(source: IBytesSource) -> Deferred[None]:
    changed: Deferred[None] = Deferred()
    source.on_change(lambda: changed.callback(None))
    return changed

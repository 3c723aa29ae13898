"""The metadata beside files (PEP 658): found where it can be had, kept for ever under the digest of its file.

What the index already has comes first: the metadata itself, then the stored file that it is read out of.  Then upstream's own
metadata, a few small ranges of the wheel, and at last its download, which a build was about to do anyway.  None of these is
believed: bytes are served that have the digest which the page states or, where it states none, that are metadata of this very
project.  Where that cannot be had, the file is not offered with metadata again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import TypeVar

from msgspec import Struct, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.core.amounts import duration
from proxy.core.bounded import BoundedTable
from proxy.core.completeness import is_metadata_of
from proxy.core.events import Incident, Notice
from proxy.core.sdists import is_reliable, is_sdist, read_pkg_info
from proxy.core.wheels import Absent, OpenFile, SparseFile, Unreadable, read_metadata
from proxy.errors import Attempted, DigestMismatch, NotFound, NotHere, ProxyError, StorageFailed, UpstreamFailed
from proxy.interfaces import Clock, IBytesSource, IFileHandle, IOffload, IRecorder
from proxy.mechanism.flight import Flights, Routine
from proxy.mechanism.waiting import waiting
from proxy.model import NO_BYTES, Digest, LedgerEntry, body_digest
from proxy.names import is_wheel, metadata_name
from proxy.repository.gathered import FEW_BYTES, matching
from proxy.repository.listed import Listed, ListedFiles
from proxy.repository.offered import metadata_digest, stated_metadata
from proxy.settings import KIB
from proxy.simple.links import bare
from proxy.storage.whole import anonymous

T = TypeVar("T")

#: What is read from the end at first: the directory of most wheels, and their metadata, which stands before it.
_TAIL = 32 * KIB
#: A piece that turns out to be needed is read with what follows it: the METADATA comes after its header.
_AT_LEAST = 16 * KIB
#: Ranges after which a wheel is given up.
_MOST_RANGES = 10
#: How long what comes first is waited for (seconds): the last resort has to begin before clients give up.
_PAGE_WITHIN = 2.0
_SIDECAR_WITHIN = 3.0
_RANGES_WITHIN = 2.5
#: Stored metadata of which it is remembered that it was looked into.
_LOOKED_INTO = 50_000


class _Key(Struct, frozen=True):
    """Whose metadata is sought."""

    index: str
    project: str
    asked: str
    filename: str

    def notice(self, incident: Incident) -> Notice:
        return Notice(incident, self.index, self.project, self.filename)


class _Search(Struct):
    """What is known on the way to the metadata of one file."""

    key: _Key
    holder: ListedFiles
    listed: Listed | None
    #: Why what was found is not it.
    rejected: list[str] = field(default_factory=list)
    #: The file itself has been looked into.
    read: bool = False
    #: The file itself, all of it and verified, has other metadata than is stated: nobody can be served what is stated.
    refuted: bool = False

    @property
    def expected(self) -> Digest | None:
        """The digest that the metadata is offered with."""
        return None if self.listed is None else metadata_digest(self.listed.file, self.listed.metadata)


class Sidecars:
    """The metadata of the files of all indexes.  *recorder* is told what is worth counting."""

    log = Logger()

    def __init__(
        self,
        files: FileCache,
        ledger: Ledger,
        offload: IOffload,
        clock: Clock,
        reactor: IReactorTime,
        recorder: IRecorder,
    ) -> None:
        self._files = files
        self._ledger = ledger
        self._offload = offload
        self._clock = clock
        self._reactor = reactor
        self._recorder = recorder
        self._searches: Flights[tuple[bytes, str]] = Flights()
        self._good: BoundedTable[str, bool] = BoundedTable(_LOOKED_INTO, lambda good: 1)

    @property
    def under_way(self) -> Flights[tuple[bytes, str]]:
        """What is being looked for."""
        return self._searches

    def close(self) -> None:
        """Stop what is under way."""
        self._searches.close()

    async def stored(self, index: str, project: str, asked: str, filename: str) -> IBytesSource | None:
        """The metadata of *filename* if it is in the store.

        What no page vouched for is looked into once: an earlier version of the proxy kept whatever upstream sent.
        """
        name = metadata_name(asked, filename)
        entry = (await self._ledger.of(index, project)).get(name)
        if entry is None or entry.sha256 == NO_BYTES:
            return None
        source = await self._files.stored(entry.sha256)
        if source is None or entry.stated or self._good.get(entry.sha256):
            return source
        try:
            good = await self._offload.run(is_metadata_of, project, await self._offload.run(_all_of, source))
        except BaseException:
            source.close()
            raise
        if good:
            self._good.put(entry.sha256, True)
            return source
        source.close()
        self.log.warn(
            "what is stored as {name} of {project} is no metadata of it and is fetched again", name=name, project=project
        )
        await self._ledger.remove(index, project, (name,))
        return None

    async def of(self, holder: ListedFiles, project: str, asked: str, filename: str) -> IBytesSource:
        """The metadata of *filename*, whose URL on *holder* has the digest segment *asked*.

        Raises NotFound when there is none, UpstreamFailed when it cannot be had now.
        """
        key = _Key(holder.name, project, asked, filename)
        with waiting.get():
            data, sha256 = await self._searches.join(key, lambda: self._find(key, holder))
        stored = None if len(data) <= FEW_BYTES else await self._files.stored(sha256)
        return stored if stored is not None else anonymous(data, sha256)

    # -- the search --------------------------------------------------------------------------------------------------------

    async def _find(self, key: _Key, holder: ListedFiles) -> tuple[bytes, str]:
        search = _Search(key, holder, await self._remembered(key, holder))
        found = await self._from_here(search)
        if found is None:
            found = await self._from_upstream(search)
        if found is not None:
            return found
        self.log.warn(
            "{filename} of {project} is not offered with metadata again: {why}",
            filename=key.filename,
            project=key.project,
            why="; ".join(search.rejected),
        )
        self._recorder.record(search.key.notice(Incident.WITHOUT_METADATA))
        await self._remember(search, NO_BYTES, 0)
        raise NotFound(f"{key.filename} has no metadata: {'; '.join(search.rejected)}")

    async def _remembered(self, key: _Key, holder: ListedFiles) -> Listed | None:
        try:
            return await self._within(_PAGE_WITHIN, key, holder.remembered(key.project, key.asked, key.filename))
        except ProxyError:
            return None  # what is kept of the page is damaged

    async def _from_here(self, search: _Search) -> tuple[bytes, str] | None:
        """The metadata without asking upstream.  Raises NotFound when it is known that there is none."""
        key, listed = search.key, search.listed
        if listed is not None:
            self._check(key, listed)
        elif not is_wheel(key.filename):
            return None  # the page has to say first that there is any
        expected = search.expected
        metadata = expected.hex if expected is not None and expected.algorithm == "sha256" else None
        file = await search.holder.committed(key.project, key.asked, key.filename, listed)
        if metadata is not None and await self._files.is_private(metadata):
            metadata = None  # nobody has shown yet that this index has them
        candidates = ([] if metadata is None else [(metadata, None)]) + ([] if file is None else [file])
        source = await self._files.first_stored(candidates)
        if source is None:
            return None
        if source.sha256 != metadata:
            return await self._read_out(search, source)
        try:
            return await self._kept(search, await self._offload.run(_all_of, source))
        finally:
            source.close()

    async def _from_upstream(self, search: _Search) -> tuple[bytes, str] | None:
        key, holder = search.key, search.holder
        if search.listed is None:
            search.listed = await holder.listed(key.project, key.asked, key.filename)
            self._check(key, search.listed)
        listed = search.listed
        failed: UpstreamFailed | None = None
        if listed.file.core_metadata:
            try:
                data = await self._within(_SIDECAR_WITHIN, key, holder.sidecar(key.project, listed, search.expected))
                # Where a digest is stated, it has been checked.
                if search.expected is not None or await self._fits(search, data, "upstream's own metadata"):
                    return await self._kept(search, data)
            except NotHere:
                raise
            except (NotFound, DigestMismatch) as error:
                search.rejected.append(str(error))
            except UpstreamFailed as error:
                failed = error
                search.rejected.append(str(error))
        found = None if search.read else await self._out_of_upstreams_file(search)
        if found is None and failed is not None and not search.refuted:
            raise failed
        return found

    async def _out_of_upstreams_file(self, search: _Search) -> tuple[bytes, str] | None:
        key, holder = search.key, search.holder
        assert search.listed is not None
        if not is_wheel(key.filename) and not is_sdist(key.filename):
            return None
        missing = holder.missing(key.project, key.asked, search.listed)
        if is_wheel(key.filename):
            try:
                data = await self._within(_RANGES_WITHIN, key, self._by_ranges(missing, key))
                if await self._fits(search, data, "what ranges of it have as METADATA"):
                    return await self._kept(search, data)
            except Unreadable as error:
                search.rejected.append(str(error))  # nobody vouches for ranges: the download is held against its digest
            except ProxyError:
                pass  # ranges do not work there, or nothing does: the download will tell
        return await self._read_out(search, await missing.open())

    async def _read_out(self, search: _Search, source: IBytesSource) -> tuple[bytes, str] | None:
        """The metadata in the file *source*, which is closed."""
        filename = search.key.filename
        search.read = True
        read = read_metadata if is_wheel(filename) else read_pkg_info
        try:
            await until_whole(source, filename)
            data = await self._offload.run(read, OpenFile(source.fileno(), source.extent()), filename)
        except Unreadable as error:
            search.rejected.append(str(error))
            return None
        finally:
            source.close()
        if not await self._fits(search, data, "the metadata in it"):
            search.refuted = True
            return None
        if search.expected is None and not is_wheel(filename) and not await self._offload.run(is_reliable, data):
            search.rejected.append("its PKG-INFO leaves fields to the build (PEP 643)")
            return None
        self._recorder.record(search.key.notice(Incident.METADATA_READ))
        return await self._kept(search, data)

    async def _by_ranges(self, wheel: IFileHandle, key: _Key) -> bytes:
        """The METADATA of a wheel.  Raises Unreadable."""
        size = await wheel.find_size()
        if size is None:
            raise UpstreamFailed(key.filename, [Attempted("upstream", "does not say how long it is", 0.0)])
        parts = SparseFile(size)
        start, stop = max(0, size - _TAIL), size
        for _ in range(_MOST_RANGES):
            parts.add(start, await _part(wheel, start, stop))
            try:
                data: bytes = await self._offload.run(read_metadata, parts, key.filename)
            except Absent as absent:
                start, stop = absent.start, min(size, max(absent.stop, absent.start + _AT_LEAST))
            else:
                self._recorder.record(key.notice(Incident.METADATA_READ))
                return data
        raise Unreadable(f"{_MOST_RANGES} pieces of it were not enough to find any")

    # -- what is found -----------------------------------------------------------------------------------------------------

    def _check(self, key: _Key, listed: Listed) -> None:
        """Raise NotFound where *listed* leaves nothing to be sought."""
        if listed.metadata is not None and listed.metadata.sha256 == NO_BYTES:
            raise NotFound(f"{key.filename} has no metadata that can be read")
        if not listed.file.core_metadata and not is_wheel(key.filename):
            raise NotFound(f"{key.filename} is no wheel: there is no metadata of it")

    async def _fits(self, search: _Search, data: bytes, what: str) -> bool:
        """Whether *data* is what may be served; why not goes into the search."""
        expected = search.expected
        if expected is not None:
            if await matching(data, expected, self._offload):
                return True
            search.rejected.append(f"{what} has not the {expected.algorithm} that the page states")
            return False
        if await self._offload.run(is_metadata_of, search.key.project, data):
            return True
        search.rejected.append(f"{what} is no metadata of {search.key.project}")
        return False

    async def _kept(self, search: _Search, data: bytes) -> tuple[bytes, str]:
        try:
            sha256 = await self._files.keep(data)
        except StorageFailed as error:
            self.log.error("the metadata of {name} is served and not kept: {error}", name=search.key.filename, error=error)
            sha256 = await self._offload.run(body_digest, data)
        await self._remember(search, sha256, len(data))
        self._good.put(sha256, True)
        return data, sha256

    async def _remember(self, search: _Search, sha256: str, size: int) -> None:
        key, listed = search.key, search.listed
        stated = {} if listed is None else stated_metadata(listed.file)
        expected = search.expected
        if sha256 != NO_BYTES and (expected is None or stated != {expected.algorithm: expected.hex}):
            stated = {}  # it is not by the page's word that these bytes are right
        entry = LedgerEntry(sha256, size, stated, "" if listed is None else bare(listed.file.url), self._clock())
        await self._ledger.put(key.index, key.project, metadata_name(key.asked, key.filename), entry)

    async def _within(self, seconds: float, key: _Key, work: Routine[T]) -> T:
        """What *work* returns, if it takes no longer than this.  Raises UpstreamFailed."""
        running: Deferred[T] = Deferred.fromCoroutine(work)
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            running.cancel()

        deadline = self._reactor.callLater(seconds, give_up)
        try:
            return await running
        except CancelledError:
            if not late:
                raise
            name = metadata_name(key.asked, key.filename)
            late_answer = Attempted("upstream", f"no whole answer within {duration(seconds)}", seconds)
            raise UpstreamFailed(name, [late_answer]) from None
        finally:
            if deadline.active():
                deadline.cancel()


async def _part(wheel: IFileHandle, start: int, stop: int) -> bytes:
    reader = await wheel.open_range(start, stop)
    chunks = []
    try:
        while chunk := await reader.read():
            chunks.append(chunk)
    finally:
        reader.close()
    data = b"".join(chunks)
    if len(data) != stop - start:
        raise UpstreamFailed("a range", [Attempted("upstream", f"sent {len(data):,} of {stop - start:,} bytes", 0.0)])
    return data


async def until_whole(source: IBytesSource, filename: str) -> None:
    """Wait until all of *source* is on disk."""
    while not source.ended():
        if source.from_memory(source.extent(), 1):
            raise StorageFailed(f"there is no room to store {filename}, make room on its file system")
        await _change(source)


def _change(source: IBytesSource) -> Awaitable[None]:
    changed: Deferred[None] = Deferred()
    source.on_change(lambda: changed.callback(None))
    return changed


def _all_of(source: IBytesSource) -> bytes:
    """The bytes of a stored file.  Blocks."""
    return os.pread(source.fileno(), source.extent(), 0)

"""Files of every index: read from the store, or from a download that all clients share while it arrives.

A download is a flight of its own, so the client that began it may disconnect.  Later clients share its spool as long as it can
be read from byte 0.  The caller records a committed file in the ledger; it is notified through *committed*.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from typing import TypeVar

from msgspec import Struct, field
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.cache.private_bytes import PrivateBytes
from proxy.cache.room import Room
from proxy.core.completeness import check
from proxy.core.events import Incident, Notice
from proxy.errors import FULL, Attempted, DigestMismatch, Overloaded, ProxyError, StorageFailed, UpstreamFailed, is_of_the_disk
from proxy.interfaces import IBytesSource, IFileStore, IOffload, IPartialFile, IRecorder, IUpstreams
from proxy.mechanism.flight import uninterrupted
from proxy.mechanism.flight import wanted as anybody_waits
from proxy.mechanism.spool.nowhere import Nowhere
from proxy.mechanism.spool.spooling import Spool
from proxy.mechanism.spool.steps import Later
from proxy.mechanism.spool.writer import UNKNOWN_SIZE, no_room
from proxy.mechanism.waiters import Waiters
from proxy.mechanism.waiting import UNCOUNTED, waiting
from proxy.model import FileFacts, Wanted
from proxy.statistics.recorders import UNRECORDED

T = TypeVar("T")

#: Told once, right before a download is committed: what was wanted, its sha256 and its size.
Committed = Callable[[Wanted, str, int], Awaitable[None]]


class _Download(Struct):
    """One download under way, from before its partial file is open."""

    wanted: Wanted
    upstreams: IUpstreams
    opened: Waiters[None] = field(default_factory=Waiters)
    spool: Spool | None = None
    #: Ends when nothing is left to be done; never cancelled.
    run: Deferred[None] | None = None
    fetching: Deferred[None] | None = None
    stopped: bool = False

    def is_wanted(self) -> bool:
        """Whether anybody waits for it or reads it."""
        return len(self.opened) > 0 or (self.spool is not None and self.spool.is_wanted())

    def stop(self) -> None:
        """Fetch no further; what has arrived is seen to."""
        self.stopped = True
        if self.fetching is not None:
            self.fetching.cancel()


class FileCache:
    """All files of one data directory.

    *recorder* is told what is worth counting, *used* of each use of a stored file, by its sha256.  *later* times the patience
    with slow clients on a full disk.  *private* knows what is not for all indexes.
    """

    log = Logger()

    def __init__(
        self,
        store: IFileStore,
        offload: IOffload,
        recorder: IRecorder = UNRECORDED,
        used: Callable[[str], None] = lambda sha256: None,
        room: Room | None = None,
        later: Later | None = None,
        private: PrivateBytes | None = None,
    ) -> None:
        self._private = private
        self._store = store
        self._offload = offload
        self._recorder = recorder
        self._used = used
        self._room = room
        self._later = later
        self._downloads: dict[str, _Download] = {}

    @property
    def downloads(self) -> int:
        """Files that are being downloaded."""
        return len(self._downloads)

    def under_way(self) -> list[tuple[Wanted, int, int | None]]:
        """What is being downloaded, how many bytes of it have arrived, and its size, ``None`` while that is not known."""
        return [
            (each.wanted, 0, each.wanted.size)
            if each.spool is None
            else (each.wanted, each.spool.offset, each.spool.total or each.wanted.size)
            for each in self._downloads.values()
        ]

    async def stored(self, sha256: str, size: int | None = None) -> IBytesSource | None:
        """A committed file (of *size* bytes, if given), open for reading; ``None`` if it is not there, or damaged.

        One that is being downloaded is not there, without a look: many ask for it just then.
        """
        return await self.first_stored([(sha256, size)])

    async def first_stored(self, candidates: Iterable[tuple[str, int | None]]) -> IBytesSource | None:
        """As :meth:`stored`, the first that is there of several."""
        wanted = [each for each in candidates if not self._arriving(each[0])]
        source: IBytesSource | None = await self._store.open_first(wanted) if wanted else None
        if source is not None and source.sha256 is not None:
            self._used(source.sha256)
        return source

    async def shared(self, sha256: str) -> IBytesSource | None:
        """As :meth:`stored`, for an index that never had these bytes, whose page states them: not if they are for others."""
        return None if await self.is_private(sha256) else await self.stored(sha256)

    async def is_private(self, sha256: str) -> bool:
        """Whether these bytes are not for an index that never had them."""
        return self._private is not None and await self._private.hold(sha256)

    def keep_private(self, sha256: str) -> None:
        """Told of bytes that are about to be stored for a hosted index."""
        if self._private is not None:
            self._private.add(sha256)

    def _arriving(self, sha256: str) -> bool:
        spool = self._joinable(f"sha256-{sha256}")
        return spool is not None and spool.sha256 is None

    async def keep(self, data: bytes) -> str:
        """Commit *data*, a small file that was made here, unless the disk takes none; its sha256.  Raises StorageFailed."""
        sha256 = hashlib.sha256(data).hexdigest()

        async def commit() -> None:
            partial = await self._store.begin(f"made-{sha256}", resume=False)
            await self._offload.run(_commit, partial, data, sha256)

        try:
            await uninterrupted(self._with_room(len(data), commit))
        except OSError as error:
            if not is_of_the_disk(error):
                raise StorageFailed(f"cannot store {len(data):,} bytes: {error.strerror} ({error.filename})") from error
        else:
            self._committed(sha256, len(data))
        return sha256

    def arriving(self, wanted: Wanted) -> Spool | None:
        """The spool of *wanted* if its download is under way and can still be joined."""
        return self._joinable(identity(wanted))

    def _joinable(self, key: str) -> Spool | None:
        download = self._downloads.get(key)
        if download is None or download.spool is None or not download.spool.joinable:
            return None
        return download.spool

    async def download(self, wanted: Wanted, upstreams: IUpstreams, committed: Committed) -> IBytesSource:
        """A reader of *wanted*, fetched from *upstreams* unless its download is under way already.

        It comes as soon as there is something to send, of a small file once it is verified.  Raises what
        :meth:`IUpstreams.fetch` raises up to that point; a failure after that is met by the reader.
        """
        key = identity(wanted)
        download = self._downloads.get(key)
        if download is None or (download.spool is not None and not download.spool.joinable):
            download = self._start(key, wanted, upstreams, committed)
        if download.spool is None:
            await download.opened.wait()
        spool = download.spool
        assert spool is not None
        await spool.begun()
        # On a full disk the window may have moved on already.
        return spool.reader() if spool.joinable else await self.download(wanted, upstreams, committed)

    def done_with(self, upstreams: Sequence[IUpstreams]) -> Deferred[None]:
        """Wait until no download from any of *upstreams* is under way."""
        downloads = [each.run for each in self._downloads.values() if each.upstreams in upstreams]
        ends = [_end_of(run) for run in downloads if run is not None]
        return DeferredList(ends, consumeErrors=True).addCallback(lambda results: None)

    def close(self) -> Deferred[None]:
        """Cancel every download; what has arrived stays for the next start."""
        downloads = list(self._downloads.values())
        ended = DeferredList([each.run for each in downloads if each.run is not None], consumeErrors=True)
        for each in downloads:
            each.stop()
        return ended.addCallback(lambda results: None)

    def _start(self, key: str, wanted: Wanted, upstreams: IUpstreams, committed: Committed) -> _Download:
        download = self._downloads[key] = _Download(wanted, upstreams)
        context = copy_context()
        context.run(anybody_waits.set, download.is_wanted)
        context.run(waiting.set, UNCOUNTED)
        download.run = context.run(Deferred.fromCoroutine, self._run(key, download, wanted, upstreams, committed))
        download.run.addErrback(
            lambda failure: self.log.failure("what is left of {name} cannot be removed", failure, name=wanted.name)
        )
        return download

    async def _run(self, key: str, download: _Download, wanted: Wanted, upstreams: IUpstreams, committed: Committed) -> None:
        try:
            spool = await self._open_spool(key, download, wanted, committed)
        except Exception as error:  # noqa: BLE001  # every asker is told, whatever it was
            self._forget(key, download)
            download.opened.wake(Failure(_as_proxy_error(error, wanted)))
            return
        try:
            download.fetching = Deferred.fromCoroutine(self._fetch(wanted, spool, upstreams))
            if download.stopped:
                download.fetching.cancel()
            await download.fetching
            if spool.kept and spool.sha256 is not None:
                self._committed(spool.sha256, spool.total or 0)
        except Exception as error:  # noqa: BLE001  # every reader is told, whatever it was
            if isinstance(error, DigestMismatch):
                self._recorder.record(Notice(Incident.WRONG_BYTES, wanted.index, wanted.project, wanted.name))
            await spool.fail(Failure(_as_proxy_error(error, wanted)))
        finally:
            spool.close()
            self._forget(key, download)

    async def _fetch(self, wanted: Wanted, spool: Spool, upstreams: IUpstreams) -> None:
        if spool.offset and spool.offset == spool.total:
            # An earlier run had all of it, and did not come to the end.
            spool.begin(FileFacts(spool.total))
            await spool.finish()
        else:
            await upstreams.fetch(wanted, spool)

    async def _open_spool(self, key: str, download: _Download, wanted: Wanted, committed: Committed) -> Spool:
        partial = await self._begin(key, wanted)
        try:
            return await self._recovered(partial, download, wanted, committed)
        except BaseException:
            partial.close()
            raise

    async def _recovered(self, partial: IPartialFile, download: _Download, wanted: Wanted, committed: Committed) -> Spool:

        async def before_commit(sha256: str, size: int) -> None:
            try:
                await committed(wanted, sha256, size)
            except ProxyError as error:
                self.log.error(
                    "{name} is stored, but not that its name belongs to these bytes: {error}", name=wanted.name, error=error
                )

        spool = Spool(
            wanted.name,
            partial,
            wanted.digest,
            self._offload,
            before_commit,
            size=wanted.size,
            check=functools.partial(check, wanted.filename),
            make_room=no_room if self._room is None else self._room.make_room,
            abandoned=download.stop,
            later=self._later,
        )
        await spool.recover()
        download.spool = spool
        download.opened.wake(None)
        return spool

    async def _begin(self, key: str, wanted: Wanted) -> IPartialFile:
        """The partial file for *wanted*: one that keeps nothing when the disk is such that none can be made."""
        try:
            return await self._with_room(
                wanted.size or UNKNOWN_SIZE, lambda: self._store.begin(key, resume=wanted.digest is not None)
            )
        except OSError as error:
            if not is_of_the_disk(error):
                raise StorageFailed(f"cannot store {wanted.name}: {error.strerror} ({error.filename})") from error
            return Nowhere(error)

    async def _with_room(self, needed: int, attempt: Callable[[], Awaitable[T]]) -> T:
        """What *attempt* returns, which is tried again when the disk is full and room for *needed* bytes could be made."""
        try:
            return await attempt()
        except OSError as error:
            if error.errno not in FULL or self._room is None or not await self._room.make_room(needed):
                raise
        return await attempt()

    def _committed(self, sha256: str, size: int) -> None:
        if self._room is not None:
            self._room.committed(sha256, size)

    def _forget(self, key: str, download: _Download) -> None:
        if self._downloads.get(key) is download:
            del self._downloads[key]


def _end_of(run: Deferred[None]) -> Deferred[None]:
    """Fires when *run* has ended, whatever came of it; cancelling it changes nothing about *run*."""
    ended: Deferred[None] = Deferred()

    def told(outcome: T) -> T:
        ended.callback(None)
        return outcome

    run.addBoth(told)
    return ended


def _commit(partial: IPartialFile, data: bytes, sha256: str) -> None:
    try:
        partial.write(data)
        partial.commit(sha256)
    except OSError:
        partial.discard()
        raise
    finally:
        partial.close()


def identity(wanted: Wanted) -> str:
    """What two askers must agree on to share one download (path-safe): the digest, or the place of the file on its index."""
    if wanted.digest is not None:
        return str(wanted.digest)
    place = "\0".join((wanted.index, wanted.project, wanted.name, wanted.url))
    return "at." + hashlib.sha256(place.encode()).hexdigest()


def _as_proxy_error(error: Exception, wanted: Wanted) -> Exception:
    """What a reader of a failed download is told."""
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, CancelledError):
        return Overloaded(f"the download of {wanted.name} was stopped: ask again")
    if isinstance(error, OSError):
        return StorageFailed(f"cannot store {wanted.name}: {error.strerror}")
    return UpstreamFailed(wanted.name, [Attempted(wanted.upstream, str(error) or type(error).__name__, 0.0)])

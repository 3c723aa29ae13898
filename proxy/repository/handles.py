"""Files as the web floor gets them: stored, or to be had from upstream, with what is known of them before a byte is read."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from proxy.cache.files import Committed, FileCache, identity
from proxy.core.bounded import BoundedTable
from proxy.core.cache_status import CacheStatus
from proxy.core.views import Moment
from proxy.errors import Attempted, UpstreamFailed
from proxy.interfaces import IBodyReader, IBytesSource, IFileHandle, IUpstreams
from proxy.mechanism.flight import Flights
from proxy.mechanism.waiting import waiting
from proxy.model import FileFacts, Wanted
from proxy.settings import MIB

#: What may be remembered of files that are not stored, and whose page states no size; an entry's text comes on top (bytes).
_FACTS, _FACTS_WEIGHT = 4 * MIB, 400


@implementer(IFileHandle)
class StoredFile:
    """A file in the store, open already.  *made*: it had to be made for this request.

    *current* gives the sha256 of the bytes that would be found now, ``None`` when it takes waiting to know.
    """

    stored = True
    in_progress = False

    def __init__(
        self, source: IBytesSource, etag: str | None, seen: Moment, current: Callable[[], str | None], *, made: bool = False
    ) -> None:
        self.etag = etag
        self.seen = seen
        self.size = source.size
        self.status = CacheStatus(False, "miss", stored=True) if made else CacheStatus(True)
        self._sha256 = source.sha256
        self._source: IBytesSource | None = source
        self._current = current

    async def find_size(self) -> int | None:
        return self.size

    async def open(self) -> IBytesSource:
        source, self._source = self._source, None
        assert source is not None
        return source

    def growing(self) -> IBytesSource | None:
        return None

    async def open_range(self, start: int, stop: int) -> IBodyReader:
        raise AssertionError("a stored file has no need of ranges of upstream")

    def is_current(self) -> bool:
        return self._sha256 is not None and self._current() == self._sha256

    def is_unchanged(self) -> bool:
        return self.is_current()

    def close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()


class RemoteFiles:
    """The files of one index that are not stored: what *upstreams* say of them, their parts, and their downloads."""

    def __init__(self, files: FileCache, upstreams: IUpstreams, committed: Committed) -> None:
        self._files = files
        self._upstreams = upstreams
        self._committed = committed
        self._facts: BoundedTable[str, FileFacts] = BoundedTable(
            _FACTS, lambda facts: _FACTS_WEIGHT + len(facts.etag or "") + len(facts.last_modified or "")
        )
        self._asking: Flights[FileFacts] = Flights()

    async def download(self, wanted: Wanted) -> IBytesSource:
        """A reader of *wanted*, once upstream's headers are in.  Raises as :meth:`IUpstreams.fetch`."""
        with waiting.get():
            return await self._files.download(wanted, self._upstreams, self._committed)

    def in_progress(self, wanted: Wanted) -> bool:
        """Whether a download of *wanted* is under way."""
        return self._files.arriving(wanted) is not None

    def growing(self, wanted: Wanted) -> IBytesSource | None:
        """A reader of the download of *wanted* that is under way, or ``None``."""
        spool = self._files.arriving(wanted)
        return None if spool is None else spool.reader()

    async def size(self, wanted: Wanted) -> int | None:
        """The size of *wanted*: its page's, else upstream's.  Raises NotFound, UpstreamFailed."""
        if wanted.size is not None:
            return wanted.size
        name = identity(wanted)
        known = self._facts.get(name)
        if known is None:
            with waiting.get():
                known = await self._asking.join(name, lambda: self._ask(name, wanted))
        return known.size

    async def _ask(self, name: str, wanted: Wanted) -> FileFacts:
        facts = await self._upstreams.facts(wanted)
        if wanted.digest is not None:
            self._facts.put(name, facts)
        return facts

    async def open_range(self, wanted: Wanted, start: int, stop: int) -> IBodyReader:
        """Bytes *start* to *stop* of *wanted*.  Raises as :meth:`IUpstreams.open_range`."""
        size = await self.size(wanted)
        with waiting.get():
            reader = await self._upstreams.open_range(wanted, start, stop)
        # Where the page does not vouch for the size, each range has to.
        if reader.facts.size != size and (reader.facts.size is not None or wanted.size is None):
            reader.close()
            self._facts.discard(identity(wanted))
            said = "an unknown number of" if reader.facts.size is None else f"{reader.facts.size:,}"
            reason = f"sent a range of {said} bytes where it had said that there are {size}"
            raise UpstreamFailed(wanted.name, [Attempted(wanted.upstream, reason, 0.0)])
        return reader


@implementer(IFileHandle)
class RemoteFile:
    """A file that upstream has, and that may be on its way.

    *unchanged* tells whether it is still listed as it was, and nothing is stored under its name.
    """

    stored = False

    def __init__(
        self,
        etag: str | None,
        seen: Moment,
        wanted: Wanted,
        remote: RemoteFiles,
        unchanged: Callable[[], bool] = lambda: False,
    ) -> None:
        self.etag = etag
        self.seen = seen
        self._wanted = wanted
        self._remote = remote
        self._unchanged = unchanged

    @property
    def size(self) -> int | None:
        return self._wanted.size

    @property
    def in_progress(self) -> bool:
        return self._remote.in_progress(self._wanted)

    @property
    def status(self) -> CacheStatus:
        return CacheStatus(False, "miss", collapsed=self.in_progress, stored=True)

    async def find_size(self) -> int | None:
        return await self._remote.size(self._wanted)

    async def open(self) -> IBytesSource:
        return await self._remote.download(self._wanted)

    def growing(self) -> IBytesSource | None:
        return self._remote.growing(self._wanted)

    async def open_range(self, start: int, stop: int) -> IBodyReader:
        return await self._remote.open_range(self._wanted, start, stop)

    def is_current(self) -> bool:
        return False

    def is_unchanged(self) -> bool:
        return self._unchanged()

    def close(self) -> None:
        """There is nothing to give back."""

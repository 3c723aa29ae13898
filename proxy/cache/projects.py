"""The list of all projects of an index: fetched to disk as it comes, kept as lines, rendered to files that are sent as such."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from msgspec.structs import replace
from twisted.logger import Logger

from proxy.cache.listing import ShownList, lines_behind, lines_file
from proxy.cache.pages import PageCache, renewed
from proxy.cache.records import HeadedRecords
from proxy.cache.refreshed import OlderThanKept, Refreshed, Terms
from proxy.core.cache_status import CacheStatus
from proxy.core.events import OF_LISTS, Incident, Notice
from proxy.core.succession import Candidate, Doubts, doubt
from proxy.errors import NotFound, StorageFailed
from proxy.interfaces import IBytesSource, IOffload, IProjectsView, IUpstreams
from proxy.mechanism.flight import Flights, closing_after, uninterrupted
from proxy.model import Condition, Head, PageMissing, PageUnchanged
from proxy.policy.policy import Policy
from proxy.settings import MIB
from proxy.simple.malformed import Malformed
from proxy.simple.projects import copy_lines
from proxy.storage.lists import ListFiles

#: There is one list.
_KEY = "all"
#: What is written to disk, and compressed, at a time; and the longest list (bytes).
_PIECE = 1 * MIB
_LONGEST = 256 * MIB
#: For how long a list that was made out of what is kept here is called fresh (seconds).
_OWN_TTL = 60
#: What the lines were called by versions that wrote them without a digest, or after them.
_EARLIER_LINES = ".lines"


async def kept_list(records: HeadedRecords, lists: ListFiles) -> IBytesSource | None:
    """The lines of the list that is kept in *records* and *lists*, whatever its age and whoever may see it, or ``None``.

    Asks no upstream.  The caller closes them.
    """
    head = await records.head(_KEY)
    return None if head is None or not head.found else await lists.open(lines_file(head.digest))


class ProjectList:
    """The projects of *index* that *policy* lets be seen.  Where upstream has no list, those whose *pages* are kept."""

    log = Logger()
    incidents = OF_LISTS

    def __init__(
        self,
        index: str,
        upstreams: IUpstreams,
        pages: PageCache,
        records: HeadedRecords,
        lists: ListFiles,
        offload: IOffload,
        policy: Policy,
        terms: Terms,
    ) -> None:
        self._index = index
        self._upstreams = upstreams
        self._pages = pages
        self._records = records
        self._lists = lists
        self._offload = offload
        self._reactor = terms.reactor
        self._doubts = Doubts()
        self._refreshed = Refreshed(self, upstreams, terms)
        self._shown = ShownList(index, policy, lists, offload, terms.clock, lambda: self._refreshed.forget(_KEY))

    @property
    def under_way(self) -> Flights[Head]:
        """The list, while upstream is asked for it."""
        return self._refreshed.under_way

    def close(self) -> None:
        """Stop what is under way."""
        self._refreshed.close()
        self._shown.close()
        self._lists.close()

    async def get(self, *, no_cache: bool = False) -> IProjectsView:
        """The list.  Raises UpstreamFailed when there is none yet and upstream does not answer.

        An offline index lists what it has: of what upstream once listed, most is not there.
        """
        if self._upstreams.condition() is Condition.OFFLINE:
            return await self._own()
        try:
            served = await self._refreshed.get(_KEY, no_cache=no_cache)
        except NotFound:
            return await self._own()
        head = served.head
        return await self._shown.view(head.digest, served.status, head.serial)

    async def _own(self) -> IProjectsView:
        """The list of what is kept here."""
        status = CacheStatus(True, ttl=_OWN_TTL, detail="known-projects")
        return await self._shown.of_names(await self._pages.known(), status)

    # -- what Refreshed asks -----------------------------------------------------------------------------------------------

    def missing(self, key: str) -> NotFound:
        return NotFound(f"no upstream of index {self._index} has a list of projects")

    def notice(self, incident: Incident, key: str) -> Notice:
        return Notice(incident, self._index)

    async def load(self, key: str) -> Head | None:
        head = await self._records.head(key)
        if head is None or not head.found:
            return None
        if await self._has(head.digest):
            return head
        # It has no validators and is soon stale, so that one which is right takes its place when upstream answers.
        earlier = replace(head, digest=f"earlier-{head.digest}", etag=None, last_modified=None, max_age=0)
        if await self._has(earlier.digest) or await self._take_over(head.digest, earlier.digest):
            return earlier
        return None

    async def _has(self, digest: str) -> bool:
        lines = await self._lists.open(lines_file(digest))
        if lines is not None:
            lines.close()
        return lines is not None

    async def _take_over(self, digest: str, name: str) -> bool:
        """Keep the list *digest* of an earlier version, which may have noted no digest of its lines, as the list *name*.

        Returns whether there is such a list and each of its lines can be read.
        """
        lines = await self._lists.open_earlier(f"{digest}{_EARLIER_LINES}")
        if lines is None:
            return False
        descriptor = lines.fileno()
        copying = self._lists.write(lines_file(name), lambda file: _copy(descriptor, file))
        try:
            await closing_after(copying, lines)
        except (Malformed, OSError) as error:
            self.log.warn("the list of projects that an earlier version kept cannot be used: {error}", error=error)
            return False
        return True

    async def ask(self, key: str, known: Head | None, adopt: Callable[[Head], None], *, forced: bool = False) -> None:
        validators = known.validators if known is not None and known.found and not forced else None
        reply = await self._upstreams.projects(validators, self._receive)
        match reply:
            case PageUnchanged():
                assert known is not None
                head = renewed(known, reply)
            case PageMissing():
                head = Head(False, reply.upstream, reply.url, reply.checked_at)
            case _:
                head = reply.record.head
                doubted = doubt(known, head, Candidate())
                if self._doubts.stands(key, doubted, head.upstream, self._reactor.seconds(), forced=forced):
                    raise OlderThanKept
                await self._lists.keep_only(head.digest)
        try:
            if head.found:
                await self._records.renew(key, head)
            else:
                await self._records.discontinue(key, known)
        except StorageFailed as error:
            self.log.error("the list of projects is served but its record is not kept: {error}", error=error)
        adopt(head)

    async def _receive(self, content_type: str, read: Callable[[], Awaitable[bytes]]) -> tuple[str, int | None]:
        """Take in a list.  Raises Malformed, StorageFailed."""
        try:
            body = await self._lists.temporary()
            try:
                digest = await self._to_disk(body, read)
                serial = await self._lists.write(lines_file(digest), lambda file: _lines_out_of(body, content_type, file))
            finally:
                await uninterrupted(self._offload.run(body.close))  # it waits for a thread that writes
        except OSError as error:
            raise StorageFailed(f"cannot store the list of projects: {error.strerror}") from error
        return digest, serial

    async def _to_disk(self, body: BinaryIO, read: Callable[[], Awaitable[bytes]]) -> str:
        digest = hashlib.sha256()
        size = 0
        pieces: list[bytes] = []

        def write(data: bytes) -> None:
            digest.update(data)
            body.write(data)

        held = 0
        while piece := await read():
            pieces.append(piece)
            size += len(piece)
            held += len(piece)
            if size > _LONGEST:
                raise Malformed(f"it has more than {_LONGEST:,} bytes")
            if held >= _PIECE:
                await self._offload.run(write, b"".join(pieces))
                pieces.clear()
                held = 0
        await self._offload.run(write, b"".join(pieces))
        await self._offload.run(body.seek, 0)
        return digest.hexdigest()


def _lines_out_of(body: BinaryIO, content_type: str, out: BinaryIO) -> int | None:
    body.seek(0)
    from proxy.simple.project_list import write_lines  # loaded by the first list, in its thread

    return write_lines(body, content_type, out.write)


def _copy(descriptor: int, out: BinaryIO) -> None:
    with lines_behind(descriptor) as lines:
        copy_lines(lines, out.write)

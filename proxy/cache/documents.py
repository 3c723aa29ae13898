"""JSON documents beside the pages of an index, kept and refreshed as pages are: the legacy API, and provenance (PEP 740)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from proxy.cache.pages import renewed
from proxy.cache.records import HeadedRecords
from proxy.cache.refreshed import OlderThanKept, Refreshed, Terms
from proxy.core.events import OF_DOCUMENTS, Incident, Notice
from proxy.core.succession import Candidate, Doubts, doubt
from proxy.errors import NotFound, Overloaded, ProxyError
from proxy.interfaces import IUpstreams
from proxy.model import DocumentFound, DocumentReply, Head, PageMissing, PageUnchanged, Record, Validators
from proxy.simple.links import shown_in


class DocumentCache:
    """What *ask* brings from *upstreams* by key, kept in *records* and refreshed on *terms*."""

    log = Logger()
    incidents = OF_DOCUMENTS

    def __init__(
        self,
        upstreams: IUpstreams,
        ask: Callable[[str, Validators | None], Awaitable[DocumentReply]],
        records: HeadedRecords,
        terms: Terms,
    ) -> None:
        self._ask = ask
        self._records = records
        self._reactor = terms.reactor
        self._doubts = Doubts()
        self._refreshed = Refreshed(self, upstreams, terms)
        self.under_way = self._refreshed.under_way
        self.close = self._refreshed.close
        self.get = self._refreshed.get

    async def body(self, key: str, head: Head) -> bytes:
        """The body that *head* is the head of.  Raises as `get` when it is gone and has to be fetched anew."""
        for _ in range(2):
            body = await self._records.body(key, head)
            if body is not None:
                return body
            self._refreshed.forget(key)
            await self._records.forget(key)
            head = (await self.get(key)).head
        raise Overloaded(f"the document {shown_in(key)} cannot be stored: is the disk full?")

    async def forget(self, prefix: str) -> None:
        """Drop every document whose key begins with *prefix*."""
        for key in await self._records.found():
            if key.startswith(prefix):
                self._refreshed.forget(key)
                await self._records.forget(key)

    # -- what Refreshed asks -----------------------------------------------------------------------------------------------

    def missing(self, key: str) -> NotFound:
        return NotFound(f"{shown_in(key)}: upstream answered 404")

    def notice(self, incident: Incident, key: str) -> Notice:
        return Notice(incident, self._records.index)

    async def load(self, key: str) -> Head | None:
        return await self._records.head(key)

    async def ask(self, key: str, known: Head | None, adopt: Callable[[Head], None], *, forced: bool = False) -> None:
        reply = await self._ask(key, known.validators if known is not None and known.found and not forced else None)
        match reply:
            case PageUnchanged():
                assert known is not None
                record = Record(renewed(known, reply), b"")
            case PageMissing():
                record = Record(Head(False, reply.upstream, reply.url, reply.checked_at), b"")
            case DocumentFound(record=record):
                doubted = doubt(known, record.head, Candidate())
                if self._doubts.stands(key, doubted, record.head.upstream, self._reactor.seconds(), forced=forced):
                    raise OlderThanKept
        try:
            match reply:
                case PageUnchanged():
                    await self._records.renew(key, record.head)
                case PageMissing():
                    await self._records.discontinue(key, known)
                case DocumentFound():
                    await self._records.keep(key, record, known)
        except ProxyError as error:
            self.log.error("the document {key} cannot be kept: {error}", key=shown_in(key), error=error)
        adopt(record.head)

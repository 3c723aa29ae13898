"""Where other upstreams than the one whose page is served have a file: looked up on their own pages, and remembered a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from proxy.core.bounded import BoundedTable
from proxy.interfaces import IOffload
from proxy.model import File, PageFound, Wanted
from proxy.settings import MIB
from proxy.simple.links import beside
from proxy.simple.parse import weight
from proxy.upstream.http.attempt import Manner
from proxy.upstream.http.failures import Failed, Fault, Missing
from proxy.upstream.index.files import FilePlace
from proxy.upstream.index.pages import ask_page, page_url
from proxy.upstream.pool.upstream import Upstream

#: Seconds a page serves to find files by, and what all pages that are remembered may take (bytes).
_REMEMBERED_FOR = 300.0
_MEMORY, _ENTRY = 64 * MIB, 500


class _Listed(Struct, frozen=True):
    """One upstream's page: its files by name."""

    url: str
    files: Mapping[str, File]
    until: float
    weight: int


class Listing:
    """The pages of several upstreams.  *distrust* is told of one that lists other bytes under a name."""

    def __init__(self, reactor: Any, offload: IOffload, distrust: Callable[[Upstream, Wanted, str], None]) -> None:
        self._reactor = reactor
        self._offload = offload
        self._distrust = distrust
        self._known: BoundedTable[tuple[str, str], _Listed] = BoundedTable(_MEMORY, lambda listed: _ENTRY + listed.weight)

    async def place(self, client: Upstream, wanted: Wanted, manner: Manner) -> FilePlace:
        """Where *client*'s upstream lists the bytes of *wanted*, whose digest is known.

        The digest binds, whoever stated it first: a page that gives another one is distrusted; where a page gives none, the
        bytes themselves will tell.  Raises Missing when the upstream does not have it, Failed when it does not say.
        """
        assert wanted.digest is not None
        listed = await self._page(client, wanted.project, manner)
        file = listed.files.get(wanted.filename)
        if file is None:
            raise Missing(f"does not list {wanted.filename}", listed.url)
        stated = file.hashes
        if wanted.companion:
            if not file.core_metadata:
                raise Missing(f"does not offer {wanted.name}", listed.url)
            stated = {} if file.core_metadata is True else file.core_metadata
        value = stated.get(wanted.digest.algorithm)
        if value is not None and value.lower() != wanted.digest.hex:
            self._distrust(client, wanted, "lists other bytes for")
            raise Failed(f"lists {wanted.name} with another {wanted.digest.algorithm}", fault=Fault.NO_EVIDENCE)
        return FilePlace(beside(file.url, wanted.companion), listed.url)

    async def _page(self, client: Upstream, project: str, manner: Manner) -> _Listed:
        key = client.name, project
        now = self._reactor.seconds()
        known = self._known.get(key)
        if known is not None and known.until > now:
            return known
        reply = await client.answer(
            page_url(client.settings, project),
            manner,
            lambda attempt: ask_page(attempt, client.settings, client.dialect, project, None, self._offload, client.wall()),
        )
        files = {file.filename: file for file in reply.page.files} if isinstance(reply, PageFound) else {}
        url = reply.record.head.url if isinstance(reply, PageFound) else client.settings.url
        weighs = weight(reply.page, reply.record.body) if isinstance(reply, PageFound) else 0
        listed = _Listed(url, files, now + _REMEMBERED_FOR, weighs)
        self._known.put(key, listed)
        return listed

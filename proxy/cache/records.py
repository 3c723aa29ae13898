"""Records of pages and documents in the record store: the head under one key, the body under another that bears its digest.

A renewal (304) rewrites the head alone.  A new page writes its body and then the head, then removes the old body: a crash in
between leaves the old record whole and at worst an orphaned body, which :meth:`HeadedRecords.forget` removes with the rest.
"""

from __future__ import annotations

import re

import msgspec

from proxy.interfaces import IOffload, IRecordStore
from proxy.model import Head, Record, body_digest

#: The first part of every key: another layout gets another one and never meets these.
PAGES = "page1"
DOCUMENTS = "document1"
PROJECTS = "projects1"

#: Where it is written down that :func:`remove_missing` has been here, and where it was when it left what had been pages.
_REMOVED, _REMOVED_EARLIER = "missing-removed-2", "missing-removed"
#: Keys of bodies, which may be large.
_BODY = re.compile(r"[^/]+/[^/]+/.+/[0-9a-f]{64}", re.DOTALL)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Head)


def page_of(key: str) -> str | None:
    """The project whose page has its head under *key*; ``None`` for every other key."""
    parts = key.split("/")
    return parts[2] if len(parts) == 3 and parts[0] == PAGES else None


class HeadedRecords:
    """The records of one *kind* (:data:`PAGES`, …) of one *index*, by what is called *project* here whatever it is."""

    def __init__(self, kind: str, index: str, records: IRecordStore, offload: IOffload) -> None:
        self.index = index
        self._folder = f"{kind}/{index}"
        self._records = records
        self._offload = offload

    def _key(self, project: str) -> str:
        return f"{self._folder}/{project}"

    def _body_key(self, project: str, digest: str) -> str:
        return f"{self._key(project)}/{digest}"

    async def head(self, project: str) -> Head | None:
        """What is remembered of *project*; ``None`` when nothing is, or it is damaged: it is then asked for anew."""
        data = await self._records.get(self._key(project))
        if data is None:
            return None
        try:
            return _decoder.decode(data)
        except msgspec.MsgspecError:
            return None

    async def body(self, project: str, head: Head) -> bytes | None:
        """The body that belongs to *head*, checked against its digest; ``None`` when it is gone or damaged."""
        body = await self._records.get(self._body_key(project, head.digest))
        if body is None or await self._offload.run(body_digest, body) != head.digest:
            return None
        return body

    async def keep(self, project: str, record: Record, before: Head | None) -> None:
        """Remember *record* in place of the one with head *before*."""
        replaced = before is None or before.digest != record.head.digest
        body = {self._body_key(project, record.head.digest): record.body} if replaced else {}
        await self._records.set_all({**body, self._key(project): _encoder.encode(record.head)})
        if before is not None and before.found and replaced:
            await self._records.delete(self._body_key(project, before.digest))

    async def discontinue(self, project: str, before: Head | None) -> None:
        """Upstream has nothing any more: forget what it had *before*.

        That it has nothing is not written down: memory has it for as long as it holds, and after a restart upstream is asked.
        """
        if before is not None and before.found:
            await self.forget(project)

    async def renew(self, project: str, head: Head) -> None:
        """Remember the new *head* of a body that is there already."""
        await self._records.set(self._key(project), _encoder.encode(head))

    async def found(self) -> list[str]:
        """Under which names something has a body here, sorted."""
        keys = (key.removeprefix(f"{self._folder}/") for key in await self._records.keys(f"{self._folder}/"))
        return sorted({name for key in keys if (name := key.rpartition("/")[0])})

    async def forget(self, project: str) -> bool:
        """Remove the record of *project* and all bodies it ever left; true if there was one."""
        there = await self._records.delete(self._key(project))
        for key in await self._records.keys(self._body_key(project, "")):
            await self._records.delete(key)
        return there


async def remove_missing(records: IRecordStore) -> None:
    """Remove what earlier versions wrote down of things that upstream does not have.  Does so once for a data directory."""
    if await records.get(_REMOVED) is not None:
        return
    for kind in (PAGES, DOCUMENTS, PROJECTS):
        for key in await records.keys(f"{kind}/"):
            if not _BODY.fullmatch(key) and _is_of_missing(await records.get(key)):
                await records.delete(key)
    await records.delete(_REMOVED_EARLIER)
    await records.set(_REMOVED, b"")


def _is_of_missing(data: bytes | None) -> bool:
    try:
        return data is not None and not _decoder.decode(data).found
    except msgspec.MsgspecError:
        return False

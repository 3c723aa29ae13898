"""Getting back what was lost: bytes from upstream, as for a client who asks; names from the pages that are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from proxy.administration.parts import IndexParts, Proxied, Working, proxied
from proxy.administration.stock import Named
from proxy.cache.ledger import Ledger
from proxy.errors import NotFound, ProxyError, StorageFailed
from proxy.interfaces import IFileStore
from proxy.model import File, LedgerEntry, strongest
from proxy.names import METADATA, UNSTATED, metadata_name
from proxy.repository.metadata import until_whole
from proxy.repository.offered import segment
from proxy.simple.links import bare, beside


async def refetch(indexes: Mapping[str, IndexParts], store: IFileStore, lost: Named) -> None:
    """Have the bytes of *lost* stored again.  Raises ProxyError when they cannot be had."""
    index = indexes.get(lost.index)
    if index is None:
        raise NotFound(f"the index {lost.index} is not configured any more")
    if index.proxied is not None and await index.proxied.reserved(lost.project):
        raise NotFound(f"{lost.project} belongs to a hosted index in a group with {lost.index}: no upstream is told of it")
    asked, _, name = lost.name.rpartition("/")
    asked = asked or str(strongest(lost.entry.stated) or UNSTATED)
    source = await (await index.everything.file(lost.project, asked, name)).open()
    try:
        await until_whole(source, name)
    finally:
        source.close()
    stored = await store.open(lost.entry.sha256)
    if stored is None:
        why = (await store.unreadable([lost.entry.sha256])).get(lost.entry.sha256)
        if why is not None:
            raise StorageFailed(
                f"the file that is there cannot be read ({why}) or replaced: check the owner and mode of its folder"
            )
        raise NotFound(f"upstream has other bytes of that name now; purge {name} to accept them")
    stored.close()


async def named_by_pages(
    indexes: Mapping[str, IndexParts], ledger: Ledger, working: Working, unnamed: Mapping[str, int]
) -> dict[str, list[Named]]:
    """Give the bytes *unnamed* (sha256 -> size) the names that pages which are kept state for them; which these are."""
    found: dict[str, list[Named]] = {}
    for name, index in proxied(indexes).items():
        for project in await index.pages.known():
            for each in await _named(working, name, index, project, unnamed):
                await ledger.add(each.index, each.project, each.name, each.entry)
                found.setdefault(each.entry.sha256, []).append(each)
    return found


async def _named(working: Working, name: str, index: Proxied, project: str, unnamed: Mapping[str, int]) -> list[Named]:
    head = await index.pages.remembered(project)
    if head is None or not head.found:
        return []
    try:
        page = await index.pages.parsed(project, head)
    except ProxyError:
        return []  # damaged, and not to be had again: it tells nothing
    now = working.clock()
    stated = await working.work.run(_stated, page.files, unnamed)
    return [
        Named(name, project, called, LedgerEntry(sha256, unnamed[sha256], {"sha256": sha256}, url, now))
        for called, sha256, url in stated
    ]


def _stated(files: Collection[File], unnamed: Collection[str]) -> list[tuple[str, str, str]]:
    """(name to record, sha256, URL) of the files and their metadata that are among *unnamed*."""
    found = []
    for file in files:
        if (sha256 := file.hashes.get("sha256", "")) in unnamed:
            found.append((file.filename, sha256, bare(file.url)))
        metadata = file.core_metadata
        if metadata and metadata is not True and (sha256 := metadata.get("sha256", "")) in unnamed:
            found.append((metadata_name(segment(file), file.filename), sha256, beside(bare(file.url), METADATA)))
    return found

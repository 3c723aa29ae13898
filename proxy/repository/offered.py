"""How what may be seen of an upstream page is offered: with which digests, metadata and sizes.

What may be seen is decided before (:mod:`proxy.repository.gate`).  Whatever is decided here holds for the page, the file and
its companions alike, because all three ask the same functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from proxy.model import NO_BYTES, Digest, File, LedgerEntry, Page, strongest
from proxy.names import UNSTATED, is_wheel, metadata_name, version_of
from proxy.simple.links import bare, without_secrets


def segment(file: File) -> str:
    """The digest segment of *file*'s URL: ``<algorithm>-<hex>``, or :data:`UNSTATED`."""
    sha256 = file.hashes.get("sha256")
    if sha256 is not None:
        return f"sha256-{sha256}"  # the strongest there is
    digest = file.digest
    return UNSTATED if digest is None else str(digest)


def entry_holds(entry: LedgerEntry, asked: str) -> bool:
    """Whether the URL segment *asked* names the bytes that *entry* holds."""
    if asked == UNSTATED:
        return True
    algorithm, _, value = asked.partition("-")
    return value == (entry.sha256 if algorithm == "sha256" else entry.stated.get(algorithm))


def changed(file: File, entry: LedgerEntry) -> Digest | None:
    """The digest that *file*'s page states now, when it contradicts *entry*; ``None`` when all is well."""
    digest = file.digest
    if digest is None or entry_holds(entry, str(digest)):
        return None
    if digest.algorithm != "sha256" and digest.algorithm not in entry.stated:
        return None
    return digest


class Offer(Struct, frozen=True):
    """A page as clients may see it, and which of its files state another digest than the ledger records."""

    page: Page
    changes: tuple[tuple[File, LedgerEntry, Digest], ...] = ()


def offered(page: Page, entries: Mapping[str, LedgerEntry], there: Collection[str] | None = None) -> Offer:
    """*page*, without what is hidden, as clients get it.  Takes milliseconds for thousands of files: for a worker thread.

    A file whose digest changed upstream is offered with the digest that the ledger records: builds that succeeded continue to
    succeed, and the new bytes are refused by name.  A file whose digest cannot be one is not offered, unless its bytes were
    verified when its page stated another.  Wheels are offered with metadata whether upstream has it or not (PEP 658).  Where
    all sizes are known by now, a page of version 1.0 becomes one of 1.1 (PEP 700).
    On an offline index, files are offered whose bytes are *there* (their sha256, of those that :func:`may_be_there` names).
    No URL on the page bears user information or a query.
    """
    changes = tuple(
        (file, entry, digest)
        for file in (page.files if entries else ())
        if (entry := entries.get(file.filename)) is not None and (digest := changed(file, entry)) is not None
    )
    files = tuple(listed(page, entries)) if page.unverifiable else page.files
    if there is not None:
        files = tuple(_from_store(file, entries, there) for file in files if bytes_of(file, entries) in there)
    files = tuple(
        [
            # Most go as they are, as long as nothing is recorded of any.
            file
            if not entries
            and not file.extra
            and file.provenance is None
            and (file.core_metadata or not is_wheel(file.filename))
            else _offered(file, entries)
            for file in files
        ]
    )
    status, extra, meta_extra = map(without_secrets, (page.status, page.extra, page.meta_extra))
    return Offer(_upgraded(replace(page, files=files, status=status, extra=extra, meta_extra=meta_extra)), changes)


def may_be_there(page: Page, entries: Mapping[str, LedgerEntry]) -> frozenset[str]:
    """The sha256 of all that is served under names on *page* (files and their metadata), as far as ledger and page tell."""
    known = (each for file in listed(page, entries) for each in (bytes_of(file, entries), metadata_of(file, entries)))
    return frozenset(each for each in known if each is not None)


def find(page: Page, filename: str, entries: Mapping[str, LedgerEntry]) -> File | None:
    """The file that is offered as *filename* on *page*, with the digest that the ledger records."""
    file = page.by_name.get(filename)
    if file is None and page.unverifiable:
        file = next((each for each in listed(page, entries) if each.filename == filename), None)
    return None if file is None else as_recorded(file, entries.get(filename))


def listed(page: Page, entries: Mapping[str, LedgerEntry]) -> Iterator[File]:
    """The files on *page* that can be offered."""
    yield from page.files
    if page.unverifiable:
        verifiable = {file.filename for file in page.files}
        for file in page.unverifiable:
            entry = entries.get(file.filename)
            if entry is not None and entry.stated and file.filename not in verifiable:
                yield _committed(file, entry)


def bytes_of(file: File, entries: Mapping[str, LedgerEntry]) -> str | None:
    """The sha256 of the bytes that *file* is served with; ``None`` when only its download can tell."""
    entry = entries.get(file.filename)
    if entry is not None and (entry_holds(entry, segment(file)) or changed(file, entry) is not None):
        return entry.sha256
    return _sha256(file.digest)


def metadata_of(file: File, entries: Mapping[str, LedgerEntry]) -> str | None:
    """The sha256 of the metadata that is served beside *file*; ``None`` when there is none, or none yet."""
    file = as_recorded(file, entries.get(file.filename))
    entry = metadata_entry(file, entries)
    if entry is not None:
        return None if entry.sha256 == NO_BYTES else entry.sha256
    return _sha256(metadata_digest(file, entry))


def stated_metadata(file: File) -> dict[str, str]:
    """What upstream's page states of the metadata of *file*, as it is noted in the ledger: its strongest digest, if any."""
    digest = strongest(file.core_metadata) if isinstance(file.core_metadata, Mapping) else None
    return {} if digest is None else {digest.algorithm: digest.hex}


def metadata_entry(file: File, entries: Mapping[str, LedgerEntry]) -> LedgerEntry | None:
    """The entry of the metadata of *file*.  That there is none holds only as long as upstream's page states the same of it."""
    entry = entries.get(metadata_name(segment(file), file.filename)) if entries else None
    return None if entry is None or (entry.sha256 == NO_BYTES and entry.stated != stated_metadata(file)) else entry


def metadata_digest(file: File, entry: LedgerEntry | None) -> Digest | None:
    """The digest that the metadata of *file* is offered with, where there is any; *entry* is that of the metadata.

    What was once served stays, whatever upstream's page says of it later.
    """
    digest = strongest(file.core_metadata) if isinstance(file.core_metadata, Mapping) else None
    if entry is None or entry.sha256 == NO_BYTES or (digest is not None and entry_holds(entry, str(digest))):
        return digest
    return Digest("sha256", entry.sha256)


def _sha256(digest: Digest | None) -> str | None:
    return digest.hex if digest is not None and digest.algorithm == "sha256" else None


def _from_store(file: File, entries: Mapping[str, LedgerEntry], there: Collection[str]) -> File:
    """*file* without what may not be there: provenance, and metadata (a wheel's is read out of it when it is asked for)."""
    return replace(file, provenance=None, core_metadata=file.core_metadata if metadata_of(file, entries) in there else None)


def _offered(file: File, entries: Mapping[str, LedgerEntry]) -> File:
    if file.extra or file.provenance is not None:
        file = _without_secrets(file)
    entry = entries.get(file.filename)
    if entry is not None:
        file = as_recorded(file, entry)
        if file.size is None and file.digest is None:
            file = replace(file, size=entry.size)  # it has no digest: these are its bytes
    known = metadata_entry(file, entries)
    if known is None:
        return replace(file, core_metadata=True) if is_wheel(file.filename) and not file.core_metadata else file
    if known.sha256 == NO_BYTES:
        return replace(file, core_metadata=False)
    digest = metadata_digest(file, known)
    assert digest is not None
    offered_as = {digest.algorithm: digest.hex}
    return file if stated_metadata(file) == offered_as else replace(file, core_metadata=offered_as)


def _without_secrets(file: File) -> File:
    provenance = file.provenance and bare(file.provenance)
    if not file.extra and provenance == file.provenance:
        return file
    return replace(file, provenance=provenance, extra=without_secrets(file.extra))


def _upgraded(page: Page) -> Page:
    if page.versions is not None or not page.files or any(file.size is None for file in page.files):
        return page
    versions = {version for file in page.files if (version := version_of(file.filename)) is not None}
    return replace(page, api_version=max(page.api_version, (1, 1)), versions=tuple(map(str, sorted(versions))))


def as_recorded(file: File, entry: LedgerEntry | None) -> File:
    """*file* with the bytes that *entry* holds when its page states others by now; with their size where it states none."""
    if entry is None:
        return file
    if changed(file, entry) is not None:
        return _committed(file, entry)
    known = file.size is None and file.digest is not None and entry_holds(entry, str(file.digest))
    return replace(file, size=entry.size) if known else file


def _committed(file: File, entry: LedgerEntry) -> File:
    """*file* with the bytes that *entry* holds."""
    return replace(file, hashes={**entry.stated, "sha256": entry.sha256}, size=entry.size, core_metadata=None)

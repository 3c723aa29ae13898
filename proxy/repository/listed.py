"""Files as the pages of a proxy index list them: under which digest, at which upstream, and with what beside them."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from proxy.cache.entries import Entries
from proxy.core.events import Incident, Notice
from proxy.core.views import Moment
from proxy.errors import Attempted, DigestChanged, NotFound, UpstreamFailed
from proxy.interfaces import IFileHandle, IOffload, IRecorder
from proxy.model import Digest, File, Head, LedgerEntry, Wanted
from proxy.names import METADATA, kind_of, version_of
from proxy.repository.gate import Gate
from proxy.repository.gathered import Gathered
from proxy.repository.handles import RemoteFile, RemoteFiles
from proxy.repository.offered import entry_holds, find, metadata_entry, segment
from proxy.repository.sources import Sources
from proxy.settings import MIB
from proxy.simple.links import bare, beside

#: The largest metadata that is taken from upstream (bytes).
_LARGEST_METADATA = 16 * MIB
#: The companion that few indexes have any more, and this one has not (PEP 503: ``data-gpg-sig``).
_SIGNATURE = ".asc"


class Listed(Struct, frozen=True):
    """A file that may be seen as the page of ``upstream`` lists it, with its recorded bytes; ``seen`` says until when.

    ``metadata`` is the ledger entry of its metadata, if there is one that goes with what the page states; ``page`` is the
    digest of the page.
    """

    file: File
    upstream: str
    page: str
    metadata: LedgerEntry | None
    seen: Moment

    def is_called(self, asked: str) -> bool:
        """Whether *asked* is the digest segment of its URL."""
        return segment(self.file) == asked


class ListedFiles:
    """The files that the pages of *sources* list, as far as *gate* lets them be seen."""

    def __init__(
        self,
        sources: Sources,
        gate: Gate,
        remote: RemoteFiles,
        offload: IOffload,
        recorder: IRecorder,
    ) -> None:
        self.name = sources.name
        self._upstreams = sources.upstreams
        self._pages = sources.pages
        self._ledger = sources.ledger
        self._files = sources.files
        self._gate = gate
        self._remote = remote
        self._offload = offload
        self._recorder = recorder

    async def remembered(self, project: str, asked: str, filename: str) -> Listed | None:
        """What the page that is kept says of the file, whatever its age; ``None`` when that is nothing.

        Raises NotFound when the file is hidden.
        """
        head = await self._pages.remembered(project)
        if head is None or not head.found:
            return None
        listed = await self._on_page(project, head, filename)
        return listed if listed is not None and listed.is_called(asked) else None

    async def listed(self, project: str, asked: str, filename: str) -> Listed:
        """The file that the page lists under *filename* with the digest *asked*.

        A page that is at hand is believed, whatever its age: digests vouch for bytes.  One that lacks the file is refreshed.
        """
        known = await self.remembered(project, asked, filename)
        if known is not None:
            return known
        entries = await self._ledger.of(self.name, project)
        listed: Listed | None = None
        for no_cache in (False, True):
            served = await self._gate.get(project, no_cache=no_cache)
            listed = await self._on_page(project, served.head, filename)
            if listed is not None and listed.is_called(asked):
                return listed
            if listed is None and filename.endswith(_SIGNATURE):
                raise NotFound(f"{filename}: signatures are not served here; no page announces any")
        if listed is None:
            page = await self._pages.parsed(project, served.head)
            if any(each.filename == filename for each in page.unverifiable):
                raise NotFound(f"{filename} is not served: its digest on upstream's page of {project} cannot be one")
            if served.status.unconfirmed:
                # What is new since then may well be there: an outage is no 404.
                reason = f"its page of {project} lists no such file and cannot be asked for again now"
                raise UpstreamFailed(filename, [Attempted(served.head.upstream, reason, 0.0)])
            raise NotFound(f"{filename} is not on the page of {project}")
        if filename in entries:
            self._recorder.record(Notice(Incident.CHANGED_DIGEST, self.name, project, filename))
            raise DigestChanged(
                f"{filename} was committed as sha256-{entries[filename].sha256} and is not served as {asked}: "
                "purge the file from the proxy to accept other bytes"
            )
        raise NotFound(f"{filename} has the digest {segment(listed.file)} on the page of {project}, not {asked}")

    async def committed(self, project: str, asked: str, filename: str, listed: Listed | None) -> tuple[str, int | None] | None:
        """The sha256 under which the file is in the store, if it is there, and its size, if that is known."""
        entry = entry_for(await self._ledger.of(self.name, project), asked, filename)
        if entry is not None:
            return entry.sha256, entry.size
        sha256 = None if listed is None else listed.file.hashes.get("sha256")
        return None if sha256 is None or await self._files.is_private(sha256) else (sha256, None)

    async def sidecar(self, project: str, listed: Listed, expected: Digest | None) -> bytes:
        """Upstream's own metadata of the file.  Raises as :meth:`IUpstreams.fetch`."""
        file = listed.file
        url = beside(file.url, METADATA)
        wanted = Wanted(self.name, project, file.filename, url, listed.upstream, expected, None, METADATA)
        gathered = Gathered(wanted.name, expected, _LARGEST_METADATA, self._offload)
        await self._upstreams.fetch(wanted, gathered)
        return gathered.data

    def missing(self, project: str, asked: str, listed: Listed) -> IFileHandle:
        """The file, if it is not in the store."""
        return RemoteFile(etag_of(asked), listed.seen, self.wanted(project, listed), self._remote)

    def wanted(self, project: str, listed: Listed) -> Wanted:
        """What to ask of upstream for the file."""
        file = listed.file
        return Wanted(self.name, project, file.filename, file.url, listed.upstream, file.digest, file.size or None, listed=file)

    async def _on_page(self, project: str, head: Head, filename: str) -> Listed | None:
        """The file as the page of *head* lists it.  Raises NotFound when it is hidden, whatever its digest."""
        entries = await self._ledger.of(self.name, project)
        file = find(await self._pages.parsed(project, head), filename, entries)
        if file is None:
            return None
        seen = self._gate.require_listed(project, head, file, entries)
        return Listed(file, head.upstream, head.digest, metadata_entry(file, entries), seen)


def entry_for(entries: Entries, asked: str, filename: str) -> LedgerEntry | None:
    """The ledger entry for what a file URL asks for, if it holds those bytes."""
    entry = entries.get(filename)
    return entry if entry is not None and entry_holds(entry, asked) else None


def etag_of(asked: str, sha256: str | None = None) -> str | None:
    """A strong validator, the same before and after the file is in the store; *sha256* is that of a stored file."""
    if asked.partition("-")[2]:
        return f'"{asked}"'
    return None if sha256 is None else f'"{sha256}"'


def first_entry(wanted: Wanted, sha256: str, size: int, now: float) -> LedgerEntry:
    """What is to be known for ever of *wanted*, which is committed *now* with these bytes."""
    stated = {wanted.digest.algorithm: wanted.digest.hex} if wanted.digest is not None else {}
    version, file = version_of(wanted.filename), wanted.listed
    entry = LedgerEntry(
        sha256,
        size,
        stated,
        bare(wanted.url),
        now,
        version=None if version is None else str(version),
        kind=kind_of(wanted.filename),
    )
    if file is None:
        return entry
    return replace(entry, upload_time=file.upload_time, requires_python=file.requires_python, yanked=file.yanked)

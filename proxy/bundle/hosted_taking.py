"""Files of a hosted index out of a bundle: each is checked as an upload is, and keeps what was noted of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from proxy.bundle.format import Entry, HostedFile, read_hosted_file, read_project_status
from proxy.bundle.reading import BundleReader
from proxy.bundle.targets import HostedTarget
from proxy.core.uploads import Uploaded, UploadForm
from proxy.errors import BadBundle, NotFound, ProxyError, StorageFailed, TooMuch
from proxy.hosted.inspection import distribution_name
from proxy.hosted.receiving import Past
from proxy.mechanism.flight import uninterrupted

#: Who has uploaded a file of which nobody is known to have done so.
_BY = "import"


class HostedTaken(Struct, frozen=True):
    """What became of a file: *new* here or not; *why* it was not taken, if it was not."""

    new: bool = False
    size: int = 0
    why: str | None = None


class HostedTaking(Struct, frozen=True):
    """Puts files of the bundle behind *reader* into *target*; *run* has a function called where the bundle is read."""

    target: HostedTarget
    reader: BundleReader
    run: Callable[..., Any]

    async def file(self, entry: Entry, data: bytes, sha256: str, told: Callable[[int], None]) -> HostedTaken:
        """Take the file that *data*, of *entry*, is about; its bytes, which are named by *sha256*, are the present member.

        *told* hears of each piece.  Raises BadBundle, and what ends an import: StorageFailed, TooMuch.
        """
        noted = read_hosted_file(entry, data)
        name, note = noted.filename, noted.note
        if note.sha256 != sha256:
            raise BadBundle(f"its {entry} is followed by another file: it was not made by pypiproxy export")
        receiving = self.target.receiving
        known = await receiving.catalogue.of(entry.project)
        there = None if known is None else known.notes.get(name)
        if there is not None and there.sha256 == sha256:
            if note.yanked and note.yanked != there.yanked:
                await self.target.editing.yank(entry.project, lambda each: each == name, note.yanked)
            return HostedTaken()
        try:
            return await self._added(entry.project, noted, told)
        except (BadBundle, StorageFailed, TooMuch):
            raise
        except ProxyError as error:
            return HostedTaken(why=f"{name}: {error}")

    async def _added(self, project: str, noted: HostedFile, told: Callable[[int], None]) -> HostedTaken:
        receiving, note, called = self.target.receiving, noted.note, distribution_name(noted.filename)
        await receiving.require_free(note.size)
        arrival = await receiving.intake.begin(note.size)
        try:
            chunks = self.reader.chunks()
            while (chunk := await self.run(next, chunks, None)) is not None:
                await arrival.write(chunk)
                told(len(chunk))
            form = UploadForm(noted.filename, project, project, str(called.version), {"sha256": note.sha256})
            past = Past(note.upload_time, note.yanked, note.attestations, note.others)
            size = arrival.size
            added = await uninterrupted(receiving.add(arrival, form, note.uploader or _BY, past))
        finally:
            await arrival.end()
        return HostedTaken(added is Uploaded.NEW, size)

    async def status(self, entry: Entry, data: bytes) -> None:
        """Let the project of *entry* have the status in *data*.  Raises BadBundle, StorageFailed."""
        status = read_project_status(entry, data)
        known = await self.target.receiving.catalogue.of(entry.project)
        if known is not None and known.status != status:
            try:
                await self.target.editing.mark(entry.project, status)
            except NotFound:  # all of its files were deleted meanwhile
                return

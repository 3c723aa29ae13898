"""Writing a bundle, member by member.  All of it blocks: for a worker thread, or a process with nothing else to do."""

from __future__ import annotations

import io
from typing import BinaryIO

from proxy.bundle.format import MANIFEST, End, Entry, HostedFile, Kind, Manifest, Section, encode
from proxy.bundle.members import Hashing, MemberWriter
from proxy.hosted.notes import ProjectStatus


class BundleWriter:
    """Writes to *out*, which is not closed."""

    def __init__(self, out: BinaryIO, manifest: Manifest) -> None:
        self._members = MemberWriter(out, manifest.created)
        self._pages = self._files = 0
        self._members.add(MANIFEST, io.BytesIO(data := encode(manifest)), len(data))

    def claims(self, data: bytes) -> None:
        """The JSON of claims."""
        self._members.add_bytes(Kind.CLAIMS.value, data)

    def section(self, section: Section) -> None:
        """What follows belongs to the index of *section*."""
        self._members.add_bytes(Kind.SECTION.value, encode(section))

    def hosted(self, project: str, file: HostedFile, descriptor: int) -> bool:
        """A file of a hosted index, whose bytes are behind *descriptor*; whether they have the digest that is noted."""
        self._members.add_bytes(f"{Kind.HOSTED.value}/{project}", encode(file))
        return self.file(file.note.sha256, descriptor, file.note.size)

    def status(self, project: str, status: ProjectStatus) -> None:
        """The status of a hosted project."""
        self._members.add_bytes(f"{Kind.STATUS.value}/{project}", encode(status))

    def head(self, project: str, data: bytes, body: bytes) -> None:
        """A page: the JSON of its head, and its body."""
        self._members.add_bytes(f"{Kind.HEAD.value}/{project}", data)
        self._members.add_bytes(f"{Kind.PAGE.value}/{project}", body)
        self._pages += 1

    def entries(self, project: str, data: bytes) -> None:
        """The JSON of the ledger entries of *project*."""
        self._members.add_bytes(f"{Kind.PINS.value}/{project}", data)

    def file(self, sha256: str, descriptor: int, size: int) -> bool:
        """The file behind *descriptor*; whether it has the digest it is named by."""
        reader = Hashing(descriptor)
        self._members.add(str(Entry(Kind.FILE, "", sha256)), reader, size)
        self._files += 1
        return reader.digest.hexdigest() == sha256

    def end(self) -> None:
        """All is said: nothing may follow."""
        self._members.add_bytes(Kind.END.value, encode(End(self._pages, self._files)))
        self._members.close()

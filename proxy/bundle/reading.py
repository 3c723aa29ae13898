"""Reading a bundle, member by member.  All of it blocks: for a worker thread, or a process with nothing else to do.

Only names of the format are looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from proxy.bundle.format import MANIFEST, Entry, Manifest, entry_of, read_manifest
from proxy.bundle.members import MemberReader
from proxy.errors import BadBundle


class BundleReader:
    """Reads from *source*, from its beginning to its end.

    Every method raises BadBundle for what is no bundle, or a broken one.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._members = MemberReader(source, "pypiproxy export", "bundle")
        if self._members.name != MANIFEST:
            raise BadBundle("it is no bundle: expected a file that pypiproxy export made")
        self.manifest: Manifest = read_manifest(self._members.whole())

    def next(self) -> Entry:
        """The next member, which may then be read, or not."""
        return entry_of(self._members.advance())

    def read(self, entry: Entry) -> bytes | None:
        """All of *entry*, the present member, which is no file; ``None`` when it has not the digest it is named by."""
        data = self._members.whole()
        return data if hashlib.sha256(data).hexdigest() == entry.sha256 else None

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the present member, whatever its digest, in chunks of at most 1 MiB."""
        return self._members.chunks()

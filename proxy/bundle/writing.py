"""Writing a bundle, member by member.  All of it blocks: for a worker thread, or a process with nothing else to do."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import BinaryIO

import zstandard

from proxy.bundle.format import MANIFEST, End, Entry, Kind, Manifest, encode
from proxy.settings import MIB


class BundleWriter:
    """Writes to *out*, which is not closed."""

    def __init__(self, out: BinaryIO, manifest: Manifest) -> None:
        self._made = int(manifest.created)
        self._zstd = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(out, closefd=False)
        self._tar = tarfile.open(fileobj=self._zstd, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115  # `end` closes it
        self._pages = self._files = 0
        self._add(MANIFEST, io.BytesIO(data := encode(manifest)), len(data))

    def head(self, project: str, data: bytes, body: bytes) -> None:
        """A page: the JSON of its head, and its body."""
        self._add_bytes(Kind.HEAD, project, data)
        self._add_bytes(Kind.PAGE, project, body)
        self._pages += 1

    def entries(self, project: str, data: bytes) -> None:
        """The JSON of the ledger entries of *project*."""
        self._add_bytes(Kind.PINS, project, data)

    def file(self, sha256: str, descriptor: int, size: int) -> bool:
        """The file behind *descriptor*; whether it has the digest it is named by."""
        reader = _Hashing(descriptor)
        self._add(str(Entry(Kind.FILE, "", sha256)), reader, size)
        self._files += 1
        return reader.digest.hexdigest() == sha256

    def end(self) -> None:
        """All is said: nothing may follow."""
        self._add_bytes(Kind.END, "", encode(End(self._pages, self._files)))
        self._tar.close()
        self._zstd.close()

    def _add_bytes(self, kind: Kind, project: str, data: bytes) -> None:
        self._add(str(Entry(kind, project, hashlib.sha256(data).hexdigest())), io.BytesIO(data), len(data))

    def _add(self, name: str, source: io.BytesIO | _Hashing, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime = size, self._made
        self._tar.addfile(member, source)  # type: ignore[arg-type]  # it reads and does nothing else
        self._tar.members.clear()  # type: ignore[attr-defined]  # undocumented: tarfile remembers all it wrote


class _Hashing:
    """Reads a file from its beginning, whatever others do with the descriptor, and hashes what it reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, min(size, MIB), self._position)
        self._position += len(data)
        self.digest.update(data)
        return data

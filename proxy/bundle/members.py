"""Archives of verified members: a tar archive in one zstd frame, written and read in one go.  All of it blocks.

Nothing is ever extracted to a path, and nothing but plain files is looked at.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

import zstandard

from proxy.errors import BadBundle
from proxy.settings import MIB
from proxy.upstream.index.pages import LARGEST


class MemberReader:
    """Reads from *source*, from its beginning to its end.

    Every method raises BadBundle for what is no archive, or a broken one; *maker* is the command that should have made it,
    and *kind* what that calls it.
    """

    def __init__(self, source: BinaryIO, maker: str, kind: str) -> None:
        self._maker = maker
        self._kind = kind
        self._zstd = zstandard.ZstdDecompressor().stream_reader(source, closefd=False)
        with _broken_means_bad():
            self._tar = tarfile.open(fileobj=self._zstd, mode="r|")  # noqa: SIM115  # closing it does nothing: *source* is the caller's
        self._member: tarfile.TarInfo
        self.advance()

    @property
    def name(self) -> str:
        """The name of the present member."""
        return self._member.name

    @property
    def modified(self) -> float:
        """When the present member was last modified (seconds since the epoch)."""
        return float(self._member.mtime)

    def advance(self) -> str:
        """Go to the next member, which may then be read, or not; its name."""
        with _broken_means_bad():
            member = self._tar.next()
        self._tar.members.clear()  # type: ignore[attr-defined]  # undocumented: tarfile remembers all it saw
        if member is None:
            raise _cut_off()
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise BadBundle(f"its member {member.name[:200]!r} is no plain file: it was not made by {self._maker}")
        self._member = member
        return member.name

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the present member, whatever its digest, in chunks of at most 1 MiB."""
        content = self._content()
        while True:
            with _broken_means_bad():
                chunk = content.read(MIB)
            if not chunk:
                return
            yield chunk

    def whole(self, largest: int = LARGEST) -> bytes:
        """All bytes of the present member, at most *largest*: by default those of the largest page that is ever kept."""
        if self._member.size > largest:
            raise BadBundle(
                f"its member {self._member.name[:200]!r} has {self._member.size:,} bytes, more than any {self._kind} has there"
            )
        return b"".join(self.chunks())

    def _content(self) -> IO[bytes]:
        content = self._tar.extractfile(self._member)
        assert content is not None
        return content


class MemberWriter:
    """Writes to *out*, which is not closed.  *made* is when its members were made (seconds since the epoch)."""

    def __init__(self, out: BinaryIO, made: float) -> None:
        self._made = int(made)
        self._zstd = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(out, closefd=False)
        self._tar = tarfile.open(fileobj=self._zstd, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115  # `close` closes it

    def add(self, name: str, source: io.BytesIO | Hashing, size: int, modified: float | None = None) -> None:
        """Write a member *name* of *size* bytes of *source*."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime = size, self._made if modified is None else modified
        self._tar.addfile(member, source)  # type: ignore[arg-type]  # it reads and does nothing else
        self._tar.members.clear()  # type: ignore[attr-defined]  # undocumented: tarfile remembers all it wrote

    def add_bytes(self, folder: str, data: bytes) -> None:
        """Write a member with *data* that is named by its digest, in *folder*."""
        self.add(f"{folder}/{hashlib.sha256(data).hexdigest()}", io.BytesIO(data), len(data))

    def close(self) -> None:
        """Write what ends an archive."""
        self._tar.close()
        self._zstd.close()


class Hashing:
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


def _cut_off() -> BadBundle:
    return BadBundle("it ends too early: it was cut off on its way, copy it again")


@contextmanager
def _broken_means_bad() -> Iterator[None]:
    """Turn what the libraries say of broken input into BadBundle."""
    try:
        yield
    except zstandard.ZstdError as error:
        raise BadBundle(f"it is damaged, or not compressed with zstd ({error}): copy it again") from error
    except (tarfile.ReadError, EOFError) as error:
        if str(error) in ("unexpected end of data", "empty file", "truncated header"):
            raise _cut_off() from error
        raise BadBundle(f"it is damaged, or no tar archive ({error}): copy it again") from error
    except OSError as error:
        raise BadBundle(f"it cannot be read on: {error.strerror or error}") from error
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise BadBundle(f"it is damaged ({error}): copy it again") from error

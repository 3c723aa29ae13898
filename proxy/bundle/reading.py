"""Reading a bundle, member by member.  All of it blocks: for a worker thread, or a process with nothing else to do.

Nothing is ever extracted to a path, and nothing but plain files with the names of the format is looked at.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

import zstandard

from proxy.bundle.format import MANIFEST, Entry, Manifest, entry_of, read_manifest
from proxy.errors import BadBundle
from proxy.settings import MIB
from proxy.upstream.index.pages import LARGEST


class BundleReader:
    """Reads from *source*, from its beginning to its end.

    Every method raises BadBundle for what is no bundle, or a broken one.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._zstd = zstandard.ZstdDecompressor().stream_reader(source, closefd=False)
        with _broken_means_bad():
            self._tar = tarfile.open(fileobj=self._zstd, mode="r|")  # noqa: SIM115  # closing it does nothing: *source* is the caller's
        self._member = self._advance()
        if self._member.name != MANIFEST:
            raise BadBundle("it is no bundle: expected a file that pypiproxy export made")
        self.manifest: Manifest = read_manifest(self._read())

    def next(self) -> Entry:
        """The next member, which may then be read, or not."""
        self._member = self._advance()
        return entry_of(self._member.name)

    def read(self, entry: Entry) -> bytes | None:
        """All of *entry*, the present member, which is no file; ``None`` when it has not the digest it is named by."""
        data = self._read()
        return data if hashlib.sha256(data).hexdigest() == entry.sha256 else None

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the present member, whatever its digest, in chunks of at most 1 MiB."""
        content = self._content()
        while True:
            with _broken_means_bad():
                chunk = content.read(MIB)
            if not chunk:
                return
            yield chunk

    def _advance(self) -> tarfile.TarInfo:
        with _broken_means_bad():
            member = self._tar.next()
        self._tar.members.clear()  # type: ignore[attr-defined]  # undocumented: tarfile remembers all it saw
        if member is None:
            raise _cut_off()
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise BadBundle(f"its member {member.name[:200]!r} is no plain file: it was not made by pypiproxy export")
        return member

    def _read(self) -> bytes:
        if self._member.size > LARGEST:  # the largest page that is ever kept
            raise BadBundle(
                f"its member {self._member.name[:200]!r} has {self._member.size:,} bytes, more than any bundle has there"
            )
        return b"".join(self.chunks())

    def _content(self) -> IO[bytes]:
        content = self._tar.extractfile(self._member)
        assert content is not None
        return content


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

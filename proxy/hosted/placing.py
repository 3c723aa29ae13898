"""Files that appear whole in a directory that others work in: written under a hidden name, then given their own."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

#: The names of files that are being written here begin so.
_TEMPORARY = ".pypiproxy-"
#: What a file system without hard links says.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Placing:
    """Hidden names of this run, and what is done with them.  All blocks."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._run = secrets.token_hex(4)

    def temporary(self, folder: Path) -> Path:
        """A name in *folder* that nobody has."""
        return folder / f"{_TEMPORARY}{self._run}-{next(self._numbers)}"

    def write(self, path: Path, data: bytes) -> None:
        """Have *data* at *path*, whole or not at all.  Raises OSError."""
        temporary = self.temporary(path.parent)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            unlink(temporary)
            raise
        sync_folder(path.parent)

    def make(self, folder: Path) -> None:
        """Make *folder* where it is missing.  Raises OSError."""
        if not folder.is_dir():
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            sync_folder(folder.parent)

    def sweep(self, folder: Path) -> None:
        """Remove what earlier runs left in *folder*."""
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY) and not entry.name.startswith(f"{_TEMPORARY}{self._run}-"):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        unlink(Path(entry.path))


def appear(temporary: Path, path: Path, *, instead: bool) -> None:
    """Give the file *temporary* the name *path*: from this moment on it exists.

    Unless it is put there *instead* of another one, that one stays: raises FileExistsError.  Raises OSError.
    """
    if instead:
        os.rename(temporary, path)
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(temporary, path)  # there was none a moment ago, and nothing here puts another one there
        return
    unlink(temporary)


def unlink(path: Path) -> None:
    """Remove the file at *path*, if there is one and that can be done."""
    with suppress(OSError):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Have the entries of *folder* on the disk, where its file system knows of such a thing.  Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What of a data directory this process may not use, because it belongs to another user or has no permissions.

Only directories, databases and what is arriving are looked at, some hundred entries: a stored file that cannot be read is found
when it is used.  Everything here blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from proxy.storage.marker import MARKER

#: The directories whose entries are used, each of them.
_FOLDERS = ("files", "lists", "partial", "records", "ledger", "ledger-copy", "lock")
#: How many entries of a directory are looked at: twice the shards of ``files/``.
_MOST = 512
#: Asks for the user that counts when a file is opened, where the system can be asked that.
_EFFECTIVE = os.access in os.supports_effective_ids


def unusable(root: Path) -> list[str]:
    """The paths below *root*, relative to it and sorted, that this process may not use.

    A directory that has to be searched, read and written; a file that has to be read and written.  Where the whole data
    directory cannot be written, as on a file system that is mounted read-only, reading is enough.
    """
    writing = os.W_OK if _allowed(root, os.W_OK) else 0
    return sorted(os.path.relpath(path, root) for path in _refused(root, os.R_OK | writing))


def _refused(root: Path, mode: int) -> Iterator[Path]:
    if os.path.lexists(root / MARKER) and not _allowed(root / MARKER, os.R_OK):
        yield root / MARKER
    for name in _FOLDERS:
        folder = root / name
        if not folder.is_dir():
            continue
        if not _allowed(folder, mode | os.X_OK):
            yield folder
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in islice(entries, _MOST):
                    if not _allowed(entry.path, mode | os.X_OK if entry.is_dir() else mode):
                        yield Path(entry.path)
        except OSError:
            yield folder


def _allowed(path: str | Path, mode: int) -> bool:
    """Whether this process may use *path* so, or nothing is there any more."""
    if _EFFECTIVE:
        return os.access(path, mode, effective_ids=True) or not os.path.lexists(path)
    return os.access(path, mode) or not os.path.lexists(path)

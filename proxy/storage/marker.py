"""The marker of a data directory: a file that says which instance it belongs to, and the format of what is in it.

Format 0 is of versions before the ledger: their marker is the name alone.  Format 1 has the ledger in ``ledger/``, and ``lock``
is a directory: versions of format 0 cannot lock it, and so do not start.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from proxy.storage.whole import open_regular

#: The file, and what a name in it looks like.
MARKER = "instance"
#: Beside it, the directory with the file that is locked by whoever works on the data directory (:mod:`proxy.host.datadir`).
LOCK = "lock"
_LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{_LONGEST_NAME}}}")
#: The present format, which the marker states in its second line.
FORMAT = 1
_FORMAT = re.compile(r"format ([0-9]{1,9})\n", re.ASCII)


class Marker(Struct, frozen=True):
    """What the marker of a data directory says: the name of the instance, and the format of what is in the directory."""

    name: str
    format: int


def read_marker(root: Path) -> Marker | None:
    """The marker of the data directory *root*; ``None`` when there is none, it is no file, or it was not written to its end."""
    file = open_regular(root / MARKER)
    if file is None:
        return None
    try:
        data = os.pread(file.fileno(), 2 * _LONGEST_NAME, 0)
    except OSError:
        return None
    finally:
        file.close()
    name, end, rest = data.decode("ascii", "replace").partition("\n")
    if not end or _NAME.fullmatch(name) is None:
        return None
    stated = _FORMAT.fullmatch(rest)
    if rest and stated is None:
        return None
    return Marker(name, 0 if stated is None else int(stated.group(1)))


def write_marker(root: Path, marker: Marker) -> None:
    """Write *marker*: all of it, or none.  Raises OSError."""
    written = root / f"{MARKER}.new"
    try:
        written.write_text(f"{marker.name}\nformat {marker.format}\n", "ascii")
        written.rename(root / MARKER)
    except OSError:
        with suppress(OSError):
            written.unlink()
        raise


def new_name() -> str:
    """A name for a data directory that has none."""
    return secrets.token_hex(6)

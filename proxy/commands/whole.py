"""Files that commands write: there whole, or as they were before."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from proxy.commands.speaking import fail
from proxy.storage.syncing import sync


def check_replaceable(output: Path, force: bool) -> None:
    """Exit with status 1 and a message if *output* exists and is not to be replaced (*force*).  ``-`` is standard output."""
    if not force and str(output) != "-" and os.path.lexists(output):
        fail(f"{output}: it exists; name another file, or replace it with --force")


@contextmanager
def whole_file(output: Path) -> Iterator[BinaryIO]:
    """The file *output*, for its owner alone; ``-`` is standard output.  Raises OSError."""
    if str(output) == "-":
        yield sys.stdout.buffer
        return
    unfinished = output.with_name(f"{output.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(output)
        sync(output.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise

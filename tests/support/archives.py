"""Archives of ours, unpacked."""

from __future__ import annotations

import tarfile
from pathlib import Path


def extract(archive: tarfile.TarFile, place: Path) -> None:
    """Put all of *archive* into *place*.  The first releases of Python 3.11, of which Debian has one, know no filter."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(place, filter="data")
    else:
        archive.extractall(place)

"""How files are replaced while others read them."""

from __future__ import annotations

from pathlib import Path


def replace(path: Path, data: bytes | str) -> None:
    """Put a file with *data* at *path* in one step."""
    new = path.with_name("new")
    new.write_bytes(data if isinstance(data, bytes) else data.encode())
    new.replace(path)

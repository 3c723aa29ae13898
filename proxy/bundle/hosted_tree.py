"""The directories of hosted indexes in a backup: JSON files as they are, and which stored bytes each distribution has.

Only those below the data directory are in it: others are for whoever takes care of where they are.  Everything here blocks.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from proxy.errors import BadBundle
from proxy.hosted.notes import LARGEST_NOTE, NOTE, read_note
from proxy.names import is_distribution

#: Where they are in the data directory.
HOSTED = "hosted"
#: What one part has at most, roughly (bytes; distributions count as their names).
_TOGETHER = 4 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_STATUS = ".project.json"
#: Index, project and file.
_DEEPEST = 3


class HostedPart(msgspec.Struct, frozen=True):
    """Some of it, by the path below the directory: JSON files, and distributions (sha256, time in nanoseconds)."""

    texts: dict[str, bytes]
    files: dict[str, tuple[str, int]]


encode_hosted = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(HostedPart)


def read_hosted(data: bytes) -> HostedPart:
    """Raises BadBundle, for paths that lead elsewhere too."""
    try:
        part = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BadBundle(f"its files of hosted indexes cannot be understood ({error}): copy it again") from error
    for path in (*part.texts, *part.files):
        pieces = path.split("/")
        if not 1 < len(pieces) <= _DEEPEST or any(each in ("", ".", "..") or "\0" in each for each in pieces):
            raise BadBundle(f"it has a hosted file named {path[:200]!r}: it was not made by pypiproxy backup")
    if any(_SHA256.fullmatch(sha256) is None for sha256, _ in part.files.values()):
        raise BadBundle("a hosted file has no digest: it was not made by pypiproxy backup")
    return part


def parts_of(root: Path, *, with_files: bool) -> Iterator[HostedPart]:
    """All that is below *root*, with its distributions if *with_files*.  Raises OSError."""
    texts: dict[str, bytes] = {}
    files: dict[str, tuple[str, int]] = {}
    weight = 0
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            place = str(path.relative_to(root))
            if not path.is_file() or not 1 < len(path.relative_to(root).parts) <= _DEEPEST:
                continue
            if _is_text(name):
                texts[place] = path.read_bytes()
                weight += len(texts[place])
            elif with_files and is_distribution(name) and not name.startswith("."):
                files[place] = _digest_of(path), path.stat().st_mtime_ns
                weight += len(place)
            if weight >= _TOGETHER:
                yield HostedPart(texts, files)
                texts, files, weight = {}, {}, 0
    if texts or files:
        yield HostedPart(texts, files)


def put_texts(root: Path, part: HostedPart) -> None:
    """Write the JSON files of *part* below *root*.  Raises OSError."""
    for place, data in part.texts.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def put_file(root: Path, place: str, stored: Path, mtime_ns: int) -> None:
    """Copy the file *stored* to *place* below *root*.  Raises OSError."""
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(stored, path)
    path.chmod(0o644)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def _is_text(name: str) -> bool:
    if name.endswith(_STATUS):
        return name.startswith(".")
    return name.endswith(NOTE) and is_distribution(name.removesuffix(NOTE)) and not name.startswith(".")


def _digest_of(path: Path) -> str:
    """The sha256 of the file at *path*: as noted beside it where the note is of the same file, else of its bytes."""
    facts = path.stat()
    try:
        with open(path.with_name(path.name + NOTE), "rb") as file:
            note = read_note(file.read(LARGEST_NOTE))
        if (note.size, note.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
            return note.sha256
    except (OSError, ValueError):
        pass  # then it is read
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

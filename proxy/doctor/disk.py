"""The file system of the data directory: its kind, free space and free inodes.  Blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from proxy.core.amounts import size
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.hosted.mounts import file_system_kind
from proxy.settings import MIB, ServerSettings

_SUBJECT = "disk"
#: A disk with less free space is full; and what is little (bytes, and parts of the whole).
_FULL = MIB
_LITTLE, _LITTLE_PART = 1024 * MIB, 0.05
#: Where less than this part is free, a cache without a limit fills the disk soon.
_UNBOUNDED_PART = 0.2
#: Kinds whose locks and maps do not work as those of a local one, and kinds that are lost.
_REMOTE = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|gcsfuse|rclone|goofys)|vboxsf")
_VOLATILE = frozenset({"tmpfs", "ramfs"})
_OF_A_CONTAINER = frozenset({"overlay", "aufs"})


class FileSystem(Struct, frozen=True):
    """What the kernel says of one file system; sizes in bytes.  ``inodes``: all of them, 0 where they are not counted."""

    kind: str
    read_only: bool
    total: int
    free: int
    inodes: int
    free_inodes: int


def file_system_of(path: Path) -> FileSystem:
    """The file system that *path*, or what is nearest above it, is on.  Raises OSError."""
    nearest = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    figures = os.statvfs(nearest)
    return FileSystem(
        file_system_kind(nearest) or "unknown",
        bool(figures.f_flag & os.ST_RDONLY),
        figures.f_blocks * figures.f_frsize,
        figures.f_bavail * figures.f_frsize,
        figures.f_files,
        figures.f_favail,
    )


def disk_findings(server: ServerSettings, found: FileSystem) -> Iterator[Diagnosis]:
    """What *found* means for a proxy with the settings of *server*."""
    yield from _on_kind(server.data_dir, found)
    yield from _on_space(server, found)
    yield from _on_inodes(server.data_dir, found)


def _on_kind(data_dir: Path, found: FileSystem) -> Iterator[Diagnosis]:
    kind = found.kind
    if found.read_only:
        advice = "mount it for writing (mount -o remount,rw), after a look at why it is not: dmesg"
        yield fault(_SUBJECT, "kind", f"the file system of {data_dir} is mounted read-only", advice)
    elif _REMOTE.fullmatch(kind):
        advice = "move the data directory to a local disk; directories of hosted indexes may be on a shared one (index.path)"
        yield warning(
            _SUBJECT, "kind", f"{data_dir} is on another machine ({kind}): locks and databases may fail there", advice
        )
    elif kind in _VOLATILE:
        advice = "move the data directory to a disk, unless it may be lost"
        yield warning(_SUBJECT, "kind", f"{data_dir} is in memory ({kind}) and lost at the next restart of the machine", advice)
    elif kind in _OF_A_CONTAINER:
        advice = "mount a volume there (docs/container.md)"
        yield warning(
            _SUBJECT, "kind", f"{data_dir} is a part of the container ({kind}) and lost when that is replaced", advice
        )
    else:
        yield fine(_SUBJECT, "kind", f"{data_dir} is on a file system of the kind {kind}")


def _on_space(server: ServerSettings, found: FileSystem) -> Iterator[Diagnosis]:
    words = f"{size(found.free)} of {size(found.total)} are free"
    room = "free some, set server.max_size or server.min_free so that unused files are evicted, or use a larger disk"
    if found.free < _FULL:
        yield fault(_SUBJECT, "space", f"{words}: nothing can be stored", room)
    elif found.free < min(_LITTLE, found.total * _LITTLE_PART):
        yield warning(_SUBJECT, "space", words, room)
    else:
        yield fine(_SUBJECT, "space", words)
    limit, least = server.max_size, server.min_free
    if limit is not None and limit > found.total and least is None:
        advice = f"set it to less than {size(found.total)}, or set server.min_free"
        seen = f"server.max_size = {size(limit)} is more than the whole file system: it fills before anything is evicted"
        yield warning(_SUBJECT, "limits", seen, advice)
    elif limit is None and least is None and found.free < found.total * _UNBOUNDED_PART:
        seen = "neither server.max_size nor server.min_free is set: the cache grows until the disk is full"
        yield warning(_SUBJECT, "limits", seen, "set server.min_free, for example to 10% of the disk (docs/disk.md)")


def _on_inodes(data_dir: Path, found: FileSystem) -> Iterator[Diagnosis]:
    if not found.inodes:
        return
    words = f"{found.free_inodes:,} of {found.inodes:,} inodes are free"
    advice = f"remove small files (du --inodes -d 2 {data_dir.parent}), or make a file system with more inodes"
    if found.free_inodes == 0:
        yield fault(_SUBJECT, "inodes", f"{words}: no file can be made", advice)
    elif found.free_inodes < found.inodes * _LITTLE_PART:
        yield warning(_SUBJECT, "inodes", words, advice)
    else:
        yield fine(_SUBJECT, "inodes", words)

"""Whether a directory is on a file system whose changes the kernel tells of: others may write to a shared one."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: File systems that other machines, or other processes than this kernel's, change behind its back.
_SHARED = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|virtiofs|ceph|glusterfs|lustre|afs|gpfs|ocfs2|gfs2|fuse(\..*)?|fuseblk|vboxsf|drvfs"
)


def is_told_of_changes(folder: Path) -> bool:
    """Whether the kernel tells of every change in *folder* (inotify).  Blocks."""
    kind = file_system_kind(folder)
    return kind is not None and _SHARED.fullmatch(kind) is None


def file_system_kind(folder: Path) -> str | None:
    """The kind of the file system that *folder* is on, as ``/proc/self/mountinfo`` calls it (proc(5)); ``None``: not known."""
    try:
        place = os.stat(folder).st_dev
        device = f"{os.major(place)}:{os.minor(place)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split(" ", 3)[2] == device:
                    return rest.split(" ", 1)[0]
    except (OSError, IndexError):
        pass
    return None

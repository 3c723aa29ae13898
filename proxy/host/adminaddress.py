"""The address of the admin interface: a Unix socket in the data directory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "admin.sock"
#: The longest path that the kernel takes as the address of a Unix socket (bytes, on Linux).
LONGEST = 107


@contextmanager
def address(data_dir: Path) -> Iterator[str]:
    """A name of the socket in *data_dir* that ``bind`` and ``connect`` take, good while the context lasts.

    A path that is too long for them is given by way of an open directory.  Raises OSError.
    """
    path = os.fspath(data_dir / NAME)
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def connect(data_dir: Path) -> socket.socket:
    """A connection to the proxy that runs on *data_dir*.

    Raises FileNotFoundError or ConnectionRefusedError when none does, and other OSErrors.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(data_dir) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection

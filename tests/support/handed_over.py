"""Hands a program over to the process that has imported everything (``tests.support.preloaded``), as seen from a shell.

``python -S -I handed_over.py DESCRIPTOR CODE ARGUMENT…``: the program has this one's streams, environment and directory; this
one passes signals on and ends as the program does.  It imports as little as can be, as it is run for every command.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys

_STATUS = struct.Struct("i")


def _main() -> None:
    descriptor, code, *arguments = sys.argv[1:]
    reading, writing = os.pipe()
    asked = {"arguments": [sys.executable, "-c", code, *arguments], "env": dict(os.environ), "place": os.getcwd()}
    socket.send_fds(socket.socket(fileno=int(descriptor)), [json.dumps(asked).encode()], [0, 1, 2, writing])
    os.close(writing)
    (process,) = _STATUS.unpack(os.read(reading, _STATUS.size))
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, lambda number, _: os.kill(process, number))
    (ended,) = _STATUS.unpack(os.read(reading, _STATUS.size))
    status = os.waitstatus_to_exitcode(ended)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    _main()

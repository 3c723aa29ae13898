"""Hands a program over to the process that has imported everything (``tests.support.preloaded``), as seen from a shell.

``python -S -I handed_over.py DESCRIPTOR CODE ARGUMENT…``: the program has this one's streams, environment and directory; this
one passes signals on and ends as the program does.  It is run for every command, so it imports only what is compiled into the
interpreter or its library: ``socket``, ``json`` and ``signal`` are Python above that, and take as long as all else.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # it has no stub
import _socket
import _struct
import os
import sys
from _json import encode_basestring_ascii as written

_STATUS = "i"


def _main() -> None:
    descriptor, code, *arguments = sys.argv[1:]
    reading, writing = os.pipe()
    program = ",".join(map(written, (sys.executable, "-c", code, *arguments)))
    env = ",".join(f"{written(name)}:{written(value)}" for name, value in os.environ.items())
    asked = f'{{"arguments":[{program}],"env":{{{env}}},"place":{written(os.getcwd())}}}'
    rights = _socket.SOL_SOCKET, _socket.SCM_RIGHTS, _struct.pack("4i", 0, 1, 2, writing)
    _socket.socket(fileno=int(descriptor)).sendmsg([asked.encode("ascii")], [rights])
    os.close(writing)
    (process,) = _struct.unpack(_STATUS, os.read(reading, 4))
    for each in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGUSR1):
        _signal.signal(each, lambda number, _: os.kill(process, number))
    (ended,) = _struct.unpack(_STATUS, os.read(reading, 4))
    status = os.waitstatus_to_exitcode(ended)
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    _main()

"""Processes of the proxy and its commands that begin with everything imported: to import it takes longer than most of them run.

Theory of operation.  One process imports what the proxy and the commands need, but no reactor, and then forks once for each
program that it is asked for.  What is asked comes as a datagram on a socket, with the descriptors that become the standard
input, output and error of the program, and one to which its number is written, and its status when it has ended.  The program
finds itself as if it had been started: with its own arguments, environment, working directory and signals, and nothing else
open.

``python -m tests.support.preloaded DESCRIPTOR`` is that process.
"""

from __future__ import annotations

import atexit
import codecs
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

#: What an interpreter is given to run a command of pypiproxy, and twistd.
COMMAND = ("-c", "from proxy.cli import main; main()")
NAMED_COMMAND = ("-c", "from proxy.cli import main; main(prog_name='pypiproxy')")
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")
#: Programs of the tests that build a service of their own, as modules of this package.
_OWN = tuple(("-m", f"tests.support.{name}") for name in ("migrating", "open_uploads", "promoting", "uploading"))
#: A client, which is imported when it is asked for first.
TWINE = ("-m", "twine")

_STATUS = struct.Struct("i")
#: CLONE_NEWUSER and CLONE_NEWNS of unshare(2), MS_REC and MS_PRIVATE of mount(2).
_NEW_USERS, _NEW_MOUNTS, _ALL_PRIVATE = 0x10000000, 0x00020000, 0x4000 | 0x40000
#: Bytes that a program's arguments and environment may have.
_LARGEST = 1 << 18
#: Modules that only a running proxy imports, or that it imports when something needs them.
_LATER = (
    "proxy.composition.dashboard",
    "proxy.composition.group",
    "proxy.composition.hosted",
    "proxy.composition.operations",
    "proxy.commands.performing",
    "proxy.service",
    "proxy.simple.legacy",
    "proxy.simple.parse",
    "proxy.simple.project_list",
    "proxy.statistics.exposition",
    "proxy.tap",
    "proxy.web.browsing",
    "proxy.web.faults",
    "proxy.web.links",
    "proxy.web.local_stats",
    "proxy.web.upload_form",
    "twisted.internet.epollreactor",
    "twisted.scripts.twistd",
)


def preload() -> None:
    """Import what the proxy and the commands need, but not the reactor: all who are forked would share its descriptors."""
    from proxy.cli import COMMANDS

    for command in COMMANDS.values():
        import_module(command.place.partition(":")[0])
    from proxy.composition.preloading import MODULES

    for module in (*_LATER, *MODULES):
        import_module(module)
    codecs.lookup("ascii")  # a user without rights may not be able to read the library
    assert "twisted.internet.reactor" not in sys.modules
    # Nothing of it is garbage, and what the collector does not touch is not copied.
    gc.collect()
    gc.freeze()


class Leaving:
    """How a program that was forked ends: with its exit status, once all has been done that is to be done at exit.

    What the interpreter does after that, to take everything apart that was imported, takes longer than most programs.  It is
    left to do so where it has something to say: an exception, or output that nobody reads.
    """

    def __init__(self) -> None:
        self._status: int | None = None
        atexit.register(self._leave)  # before all others: what is registered first is called last

    def run(self, program: Callable[[], object]) -> None:
        """Run *program*; raises what it raises."""
        try:
            program()
        except SystemExit as ended:
            if isinstance(ended.code, str):
                sys.stderr.write(f"{ended.code}\n")
            self._status = 1 if isinstance(ended.code, str) else (ended.code or 0) & 0xFF
            raise SystemExit(self._status) from None
        self._status = 0

    def _leave(self) -> None:
        if self._status is None:
            return
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._status)


class Preloaded:
    """The process that forks.  It is started when it is needed first, and ends with whoever has this."""

    def __init__(self) -> None:
        # Now, as a test that left a descriptor behind would fail.
        self._socket, self._other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None

    def knows(self, arguments: Sequence[str], env: Mapping[str, str], path: str) -> bool:
        """Whether a program is one that it can be, with *path* as what the interpreter finds modules in."""
        return (
            arguments[0] == sys.executable
            and tuple(arguments[1:3]) in (COMMAND, NAMED_COMMAND, TWISTD, TWINE, *_OWN)
            and env.get("PYTHONPATH", path) == path
        )

    def fork(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        place: Path,
        descriptors: Sequence[int],
        disk: tuple[str, int] | None = None,
    ) -> None:
        """Run *arguments* in *place*.

        *descriptors* are its standard input, output and error, and one for what `told` reads.  *disk* is a directory, and how
        many bytes there are on the file system that it has there to itself.
        """
        if self._process is None:
            self._start()
        asked = {"arguments": [*arguments], "env": dict(env), "place": str(place), "disk": disk}
        socket.send_fds(self._socket, [json.dumps(asked).encode()], [*descriptors])

    @property
    def descriptor(self) -> int:
        """Where programs are asked for; a process that has it can do so too (``tests.support.handed_over``)."""
        if self._process is None:
            self._start()
        return self._socket.fileno()

    def _start(self) -> None:
        from tests.support.process import ROOT, environment

        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.preloaded", str(self._other.fileno())],
            stdin=subprocess.DEVNULL,
            env=environment(Path(os.devnull), PYTHONPATH=str(ROOT)),
            cwd=ROOT,
            pass_fds=[self._other.fileno()],
        )
        self._other.close()


def told(descriptor: int) -> int:
    """What was written about a program: its number, and then the wait status with which it ended.  Waits for it."""
    answer = os.read(descriptor, _STATUS.size)
    assert answer, "the process that forks has ended: what it wrote to standard error says why"
    return int(_STATUS.unpack(answer)[0])


def status(written: bytes) -> int:
    """The wait status that was written when a program had ended."""
    return int(_STATUS.unpack(written)[0])


def _become(asked: Mapping[str, object], descriptors: Sequence[int]) -> str:
    """In the child: be the program that was asked for; its code, or the name of its module."""
    arguments, env = asked["arguments"], asked["env"]
    assert isinstance(arguments, list)
    assert isinstance(env, dict)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Shells have these ignored by tests that they run beside something, or with nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    match asked.get("disk"):
        case [str(folder), int(size)]:
            _mount(folder, size)
    os.chdir(str(asked["place"]))
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    sys.path[0] = ""
    sys.argv = [str(arguments[1]), *arguments[3:]]
    return str(arguments[2])


def _mount(folder: str, size: int) -> None:
    """Give this process a file system of *size* bytes at *folder*, which nobody else sees, and the rights of root on it.

    As ``unshare --map-root-user --mount`` and ``mount -t tmpfs`` do, which would be followed by a new interpreter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _called(libc.unshare(_NEW_USERS | _NEW_MOUNTS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text, "ascii")
    _called(libc.mount(b"none", b"/", None, _ALL_PRIVATE, None))
    _called(libc.mount(b"none", folder.encode(), b"tmpfs", 0, f"size={size},mode=0700".encode()))


def _called(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _forked(control: socket.socket) -> str:
    """Fork whatever is asked for until nobody asks any more; what to run, in the child (see `_become`)."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, _LARGEST, 4)
            if not message:
                return ""
            asked = json.loads(message)
            if tuple(asked["arguments"][1:3]) == TWINE:
                import_module("twine.commands.upload")
            process = os.fork()
            if process == 0:
                return _become(asked, descriptors)
            running[process] = descriptors[3]
            for each in descriptors[:3]:
                os.close(each)
            _tell(descriptors[3], process)


def _reap(running: dict[int, int]) -> None:
    """Tell who waits about each child that has ended."""
    while running:
        process, ended = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        descriptor = running.pop(process)
        _tell(descriptor, ended)
        os.close(descriptor)


def _tell(descriptor: int, what: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(descriptor, _STATUS.pack(what))


def _main() -> None:
    leaving = Leaving()
    preload()
    code = _forked(socket.socket(fileno=int(sys.argv[1])))
    if code == COMMAND[1]:
        from proxy.cli import main

        leaving.run(main)
    elif code == NAMED_COMMAND[1]:
        from proxy.cli import main

        leaving.run(lambda: main(prog_name="pypiproxy"))
    elif code == TWISTD[1]:
        from twisted.scripts.twistd import run

        leaving.run(run)
    elif code:
        leaving.run(lambda: runpy.run_module(code, run_name="__main__", alter_sys=True))


if __name__ == "__main__":
    _main()

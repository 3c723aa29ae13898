"""Real processes: commands that are run to their end, and the proxy under ``twistd``, started, stopped, killed and restarted.

Nothing of this machine's own configuration reaches them: see `environment`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct
from twisted.internet import reactor as default_reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.support.hosts import written
from tests.support.preloaded import NAMED_COMMAND, TWISTD, Preloaded, status, told

reactor: Any = default_reactor

ROOT = Path(__file__).parent.parent.parent
_TWISTD_WITH_HOSTS = ("-m", "tests.support.hosts")
_OWN_MOUNTS = (shutil.which("unshare") or "unshare", "--map-root-user", "--mount")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment without settings of pip, uv, proxies, Python or the user: *more*, and *home* as the user's directory."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


@cache
def can_mount() -> bool:
    """Whether a process may have file systems of its own here (containers often forbid it)."""
    try:
        return subprocess.run([*_OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


class Python(Struct, frozen=True):
    """A Python interpreter, and the ``PYTHONPATH`` with which it finds the proxy and what that needs."""

    program: str
    path: str


THIS_PYTHON = Python(sys.executable, str(ROOT))


class Ended(Struct, frozen=True):
    """How a command ended: its exit status (negative: the signal) and all it wrote, standard error included."""

    status: int
    output: str


#: Forks the proxy and its commands; one process per test process is enough.
PRELOADED = Preloaded()
#: A variable that names the descriptor at which a shell's commands find the process that has imported everything.
_HANDED_OVER = "PRELOADED"
_DESCRIPTOR = 19


def for_shells(env: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """*env* for a shell, and its command ``pypiproxy``, to which arguments may be added."""
    script = Path(__file__).with_name("handed_over.py")
    command = f'PYTHONPATH={ROOT} exec {sys.executable} -S -I {script} {_DESCRIPTOR} "{NAMED_COMMAND[1]}"'
    return {**env, _HANDED_OVER: str(_DESCRIPTOR)}, command


class _Reading(FileDescriptor):
    """The end of a pipe on which a process is heard, under *number*."""

    def __init__(self, forked: _Forked, number: int, descriptor: int) -> None:
        super().__init__(reactor)
        os.set_blocking(descriptor, False)
        self._forked = forked
        self._number = number
        self._descriptor = descriptor
        self.startReading()

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> Exception | None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return None
        if not data:
            return CONNECTION_DONE
        self._forked.heard(self._number, data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when the other end is closed."""
        super().connectionLost(reason)
        os.close(self._descriptor)
        self._descriptor = -1
        self._forked.silent()


class _Forked:
    """The transport of a process that is forked from one that has imported the proxy: as that of ``spawnProcess``."""

    def __init__(
        self,
        protocol: ProcessProtocol,
        arguments: Sequence[str],
        env: Mapping[str, str],
        place: Path,
        disk: tuple[str, int] | None,
    ) -> None:
        self._protocol = protocol
        self._status = b""
        pipes = [os.pipe() for _ in range(4)]
        (theirs, self._input), *heard = pipes
        given = [theirs, *(writing for _, writing in heard)]
        PRELOADED.fork(arguments, env, place, given, disk)
        for each in given:
            os.close(each)
        self.pid = told(heard[-1][0])
        self._heard = len(heard)
        protocol.makeConnection(self)
        for number, (reading, _) in enumerate(heard, 1):
            _Reading(self, number, reading)

    def heard(self, number: int, data: bytes) -> None:
        """Called with what a pipe delivers; the third one has its status."""
        if number == 3:
            self._status += data
        else:
            self._protocol.childDataReceived(number, data)

    def silent(self) -> None:
        """Called when the other end of a pipe is closed: when all are, it has ended, and so have those that it started."""
        self._heard -= 1
        if self._heard:
            return
        self.closeStdin()
        ended = status(self._status)
        code = os.waitstatus_to_exitcode(ended)
        reason: ProcessDone | ProcessTerminated = ProcessDone(ended)
        if code:
            reason = ProcessTerminated(code if code > 0 else None, -code if code < 0 else None, ended)
        self._protocol.processEnded(Failure(reason))

    def write(self, data: bytes) -> None:
        """Write a little to its standard input."""
        os.write(self._input, data)

    def closeStdin(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1


def _mounting(disk: tuple[str, int] | None) -> list[str]:
    """The command before the command that gives it a file system."""
    if disk is None:
        return []
    folder, size = disk
    return [*_OWN_MOUNTS, "sh", "-c", f'mount -t tmpfs -o size={size},mode=0700 none "$0" && exec "$@"', folder]


class Running(ProcessProtocol):
    """A process, what it has written so far, and how to wait for either."""

    transport: Any

    def __init__(self) -> None:
        self.output = ""
        self.ended: Ended | None = None
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def spawn(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        place: Path,
        *,
        fresh: bool = False,
        disk: tuple[str, int] | None = None,
    ) -> Running:
        """Start *arguments* with the working directory *place*.

        The proxy and its commands are forked from a process that has imported them already, unless it is to be a *fresh* one.
        *disk* is a directory at which the process has a file system of its own, and how many bytes there are on it.
        """
        if not fresh and PRELOADED.knows(arguments, env, str(ROOT)):
            _Forked(self, arguments, env, place, disk)
        else:
            streams: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
            if _HANDED_OVER in env:
                streams[int(env[_HANDED_OVER])] = PRELOADED.descriptor
            arguments = [*_mounting(disk), *arguments]
            reactor.spawnProcess(self, arguments[0], arguments, env=dict(env), path=str(place), childFDs=streams)
        return self

    @property
    def pid(self) -> int:
        return int(self.transport.pid)

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode("utf-8", "replace")
        self._look()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        status: Any = reason.value
        self.ended = Ended(-status.signal if status.signal is not None else status.exitCode, self.output)
        self._look()

    def _look(self) -> None:
        for entry in [each for each in self._waiting if each[0]()]:
            self._waiting.remove(entry)
            entry[1].callback(None)

    async def until(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait until *condition* holds; it is looked at when the process writes or ends.  Raises TimeoutError."""
        if condition():
            return
        waiting: Deferred[None] = Deferred()
        entry = (condition, waiting)
        self._waiting.append(entry)
        waiting.addTimeout(timeout, reactor)
        try:
            await waiting
        except DeferredTimeout:
            self._waiting.remove(entry)
            raise TimeoutError(f"not within {timeout} s; the process wrote:\n{self.output}") from None

    async def end(self, timeout: float = 120.0) -> Ended:
        """How it ended.  Killed, and TimeoutError, when it goes on for longer than *timeout* seconds."""
        try:
            await self.until(lambda: self.ended is not None, timeout)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.until(lambda: self.ended is not None, 60.0)
            raise
        assert self.ended is not None
        return self.ended

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.ended is None:
            os.kill(self.pid, number)


async def run(arguments: Sequence[str], env: Mapping[str, str], place: Path, timeout: float = 120.0) -> Ended:
    """Run a command to its end."""
    return await Running().spawn(arguments, env, place).end(timeout)


class ProxyProcess:
    """``twistd -n pypiproxy`` on a free port of 127.0.0.1, with its data below *place*.

    *upstreams* are URLs, the preferred one first.  *config* is the text of a configuration file; upstreams may be left to it.
    After a restart the port is the same, so that what clients know of the proxy stays true.  With *disk*, its data directory is
    a file system of its own with room for that many bytes, gone with the process; `can_mount` says whether that can be.
    *hosts* are addresses by name that it resolves (see ``tests.support.hosts``).  *python* runs it, by default this one.  A
    *fresh* one has imported for itself all that it has: its memory is that of a proxy.
    """

    def __init__(
        self,
        place: Path,
        *upstreams: str,
        config: str | None = None,
        options: Sequence[str] = (),
        disk: int | None = None,
        hosts: Mapping[str, Sequence[str]] | None = None,
        python: Python = THIS_PYTHON,
        fresh: bool = False,
    ) -> None:
        self.place = place
        self._fresh = fresh
        self.data_dir = place / "data"
        self._disk = disk
        started = TWISTD if hosts is None else (*_TWISTD_WITH_HOSTS, *written(hosts), "--")
        self._twistd = (python.program, *started)
        self._path = python.path
        #: A command that starts the proxy in place of itself.
        self.before: Sequence[str] = ()
        #: Options of twistd itself.
        self.twistd_options: Sequence[str] = ()
        self._port = 0
        self._arguments = ["--data-dir", str(self.data_dir), *options]
        for each in upstreams:
            self._arguments += ["--upstream", each]
        if config is not None:
            self._arguments += ["--config", str(place / "pypiproxy.toml")]
            self.configure(config)
        #: What earlier runs wrote, and the present one.
        self._earlier = ""
        self.process: Running | None = None

    @property
    def base(self) -> str:
        """``http://host:port``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """The default index."""
        return f"{self.base}/simple/"

    @property
    def log(self) -> str:
        """All that was ever written."""
        return self._earlier + (self.process.output if self.process else "")

    @property
    def rss(self) -> int:
        """Resident memory of the running process, bytes."""
        return self._status("VmRSS")

    @property
    def peak_rss(self) -> int:
        """The most resident memory the running process ever had, bytes."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        assert self.process is not None
        found = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text("ascii"))
        assert found is not None
        return int(found[1]) * 1024

    def configure(self, config: str) -> None:
        """Write the configuration file that the next start reads; there must have been one from the beginning."""
        self.place.mkdir(exist_ok=True)
        (self.place / "pypiproxy.toml").write_text(config, "utf-8")

    def start(self) -> None:
        """Start the process; `started` waits until it serves."""
        self.place.mkdir(exist_ok=True)
        listen = ["--listen", f"tcp:{self._port}:interface=127.0.0.1"]
        twistd = [*self.before, *self._twistd, "-n", "--pidfile=", *self.twistd_options]
        disk = None
        if self._disk is not None:
            self.data_dir.mkdir(mode=0o700, exist_ok=True)
            disk = str(self.data_dir), self._disk
        self.process = Running().spawn(
            [*twistd, "pypiproxy", *listen, *self._arguments],
            environment(self.place, PYTHONPATH=self._path),
            self.place,
            fresh=self._fresh,
            disk=disk,
        )

    @property
    def files(self) -> list[str]:
        """The sha256 of each file that the running process has stored, sorted."""
        assert self.process is not None
        tree = Path(f"/proc/{self.process.pid}/root{self.data_dir}/files")  # as the process sees it
        return sorted(path.name for path in tree.rglob("*") if path.is_file())

    async def started(self) -> ProxyProcess:
        """Start it if need be, and wait until it serves."""
        if self.process is None:
            self.start()
        process = self.process
        assert process is not None
        await process.until(lambda: process.ended is not None or self._serving() is not None, 120.0)
        serving = self._serving()
        assert serving is not None, f"the proxy did not start:\n{process.output}"
        self._port = int(serving[1])
        return self

    def _serving(self) -> re.Match[str] | None:
        assert self.process is not None
        return re.search(r"serving on http://127\.0\.0\.1:(\d+)/", self.process.output)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> int:
        """SIGKILL; the exit status."""
        return await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.signal(number)
        ended = await self.process.end()
        self._earlier += self.process.output
        self.process = None
        return ended.status

    async def restart(self) -> ProxyProcess:
        """Stop and start again."""
        await self.stop()
        return await self.started()

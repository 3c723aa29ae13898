"""A child process on a core of its own: started, looked at (memory, processor time), stopped by its process id."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Seconds a server may take to start and to stop.
PATIENCE = 120.0

_TICKS = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int]:
    """The core for the load and the upstream, and the one for the server; the same one where there is only one."""
    mine = sorted(os.sched_getaffinity(0) | ORIGINAL)
    return mine[0], mine[1 % len(mine)]


#: What this process was allowed to run on before it was pinned itself.
ORIGINAL = frozenset(os.sched_getaffinity(0))


class Pinned:
    """A process that runs on one *core* and writes what it says to the file *log*."""

    def __init__(
        self, arguments: Sequence[str], core: int, log: Path, place: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._command = arguments[0]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=place,
                env=env,
                # Before exec, so that what it forks right away is pinned too.
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def said(self) -> str:
        """All it has written."""
        return self._log.read_text("utf-8", "replace")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds.  Raises RuntimeError when the process ends first, or after :data:`PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self._command} did not start:\n{self.said()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not obey."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # -- what it costs ------------------------------------------------------------------------------------------------------

    def family(self) -> list[int]:
        """Its process id and those of its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [self.pid, *map(int, children.split())]

    def memory(self) -> int:
        """Resident bytes now, children included."""
        return sum(_status(pid, "VmRSS") for pid in self.family())

    def peak(self) -> int:
        """The most resident bytes since :meth:`forget_peak`, children included."""
        return sum(_status(pid, "VmHWM") for pid in self.family())

    def forget_peak(self) -> None:
        """Begin a new peak (``5`` in ``clear_refs``, see proc(5))."""
        for pid in self.family():
            Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")

    def processor(self) -> float:
        """Seconds of processor time so far, in user and kernel mode, children included."""
        return sum(_ticks(pid) for pid in self.family()) / _TICKS


def _status(pid: int, key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    return int(found[1]) * 1024 if found else 0


def _ticks(pid: int) -> int:
    after_name = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])

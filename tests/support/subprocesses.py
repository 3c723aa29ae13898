"""The proxy and its commands as `subprocess` has processes, for tests that turn no reactor: forked, where that can be.

A program that ``tests.support.preloaded`` does not know is started as usual.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support.preloaded import told
from tests.support.process import PRELOADED, ROOT


def run(arguments: Sequence[str], env: Mapping[str, str], place: Path) -> subprocess.CompletedProcess[str]:
    """How *arguments* ended that were run in *place*, and what they wrote."""
    if not PRELOADED.knows(arguments, env, str(ROOT)):
        return subprocess.run(arguments, cwd=place, env=env, capture_output=True, text=True, timeout=60, check=False)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with Forked(arguments, env, place, out.fileno(), err.fileno()) as process:
            status = process.wait(60)
        for each in (out, err):
            each.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


def start(arguments: Sequence[str], env: Mapping[str, str], place: Path) -> Forked | subprocess.Popen[str]:
    """*arguments*, running in *place*; ``stdout`` is what they write, to standard error also."""
    if not PRELOADED.knows(arguments, env, str(ROOT)):
        return subprocess.Popen(
            arguments, cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )
    reading, writing = os.pipe()
    try:
        return Forked(arguments, env, place, writing, writing, os.fdopen(reading))
    finally:
        os.close(writing)


class Forked:
    """A process that was forked, with what `subprocess.Popen` has.

    *out* and *err* are what it writes to, *stdout* is what it has written.
    """

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], place: Path, out: int, err: int, stdout: IO[str] | None = None
    ) -> None:
        self._arguments = arguments
        self.stdout = stdout
        self._told, telling = os.pipe()
        with open(os.devnull, "rb") as nothing:
            PRELOADED.fork(arguments, env, place, [nothing.fileno(), out, err, telling])
        os.close(telling)
        self.pid = told(self._told)
        self._status: int | None = None

    def wait(self, timeout: float) -> int:
        """The exit status (negative: the signal).  Raises `subprocess.TimeoutExpired` after *timeout* seconds."""
        if self._status is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired([*self._arguments], timeout)
            self._status = os.waitstatus_to_exitcode(told(self._told))
        return self._status

    def _has_ended(self, timeout: float) -> bool:
        return self._status is not None or bool(select.select([self._told], [], [], timeout)[0])

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if not self._has_ended(0):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None) -> None:
        """Wait for it, as `subprocess.Popen` does; kill it first if there was an error."""
        if error is not None:
            self.kill()
        if self.stdout is not None:
            self.stdout.close()
        self.wait(60)
        os.close(self._told)

"""Runs of ``pypiproxy`` as processes of their own, forked from one that has imported the commands: many in the time of a few.

``python -m tests.support.forked`` reads runs from standard input, one line of JSON per run, and writes how each ended to
standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import asdict

from tests.support.preloaded import Leaving, preload

#: Seconds after which a run is ended.
_LONGEST = 60
#: A user without rights.
_NOBODY = 65534


class Run(Struct, frozen=True):
    """One command line.  *closed*: nobody reads its standard output; *nobody*: it is run by a user without rights."""

    arguments: list[str]
    closed: bool = False
    nobody: bool = False


class Outcome(Struct, frozen=True):
    """How a run ended: its exit status (a signal's number with a minus), and what it printed."""

    status: int
    stdout: str
    stderr: str


class Forking:
    """The process that forks.  It is started once: importing everything takes longer than a run."""

    def __init__(self, home: Path) -> None:
        # It imports the reactor, which the process that forks must not have.
        from tests.support.process import ROOT, environment

        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(home, PYTHONPATH=str(ROOT)),
            cwd=ROOT,
        )

    def outcome(self, run: Run, home: Path) -> Outcome:
        """How *run* ends, in the directory *home*."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**asdict(run), "home": str(home)}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended: what it wrote to standard error says why"
        return Outcome(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _outcome(run: Run, home: str) -> Outcome | None:
    """How *run* ended; ``None`` in the child, which has the command's arguments and streams then."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.chdir(home)
            _become(run, out, err)
            return None
        _, waited = os.waitpid(child, 0)
        return Outcome(os.waitstatus_to_exitcode(waited), _text(out), _text(err))


def _become(run: Run, out: BinaryIO, err: BinaryIO) -> None:
    signal.alarm(_LONGEST)
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(writer if run.closed else out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.argv = ["pypiproxy", *run.arguments]
    if run.nobody and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _main() -> None:
    from proxy.cli import main

    leaving = Leaving()
    preload()
    for line in sys.stdin:
        asked = json.loads(line)
        outcome = _outcome(Run(asked["arguments"], asked["closed"], asked["nobody"]), asked["home"])
        if outcome is None:
            leaving.run(main)
        else:
            sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main()

"""The ``pypiproxy`` command as operators run it: a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.support.preloaded import COMMAND
from tests.support.process import THIS_PYTHON, Ended, Python, Running, environment


class Operator(Struct, frozen=True):
    """Runs commands on *data_dir*, from the directory *home*, with *options* after each command's name.

    *before* is a command that runs them in place of itself, *python* the interpreter, by default this one.
    """

    home: Path
    data_dir: Path
    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    python: Python = THIS_PYTHON

    def start(self, command: str, *arguments: str) -> Running:
        """A command that runs."""
        program = [*self.before, self.python.program, *COMMAND]
        line = [*program, command, "--data-dir", str(self.data_dir), *self.options, *arguments]
        return Running().spawn(line, environment(self.home, PYTHONPATH=self.python.path), self.home)

    async def run(self, command: str, *arguments: str) -> Ended:
        """A command to its end; its standard error stands among its output."""
        return await self.start(command, *arguments).end()

    async def without_directory(self, command: str, *arguments: str) -> Ended:
        """As :meth:`run`, for a command that works on no data directory."""
        line = [*self.before, self.python.program, *COMMAND, command, *arguments]
        return await Running().spawn(line, environment(self.home, PYTHONPATH=self.python.path), self.home).end()

    async def lines(self, command: str, *arguments: str) -> list[Any]:
        """The values that a command prints with ``--json``; it must have succeeded."""
        ended = await self.run(command, "--json", *arguments)
        assert ended.status == 0, ended
        return [json.loads(line) for line in ended.output.splitlines()]

    async def json(self, command: str, *arguments: str) -> Any:
        """The one value that a command prints with ``--json``."""
        (value,) = await self.lines(command, *arguments)
        return value

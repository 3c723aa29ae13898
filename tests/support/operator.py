"""The ``pypiproxy`` command as operators run it: a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.support.process import ROOT, Ended, environment, run

_COMMAND = (sys.executable, "-c", "from proxy.cli import main; main()")


@frozen
class Operator:
    """Runs commands on *data_dir*, from the directory *home*, with *options* after each command's name."""

    home: Path
    data_dir: Path
    options: tuple[str, ...] = ()

    async def run(self, command: str, *arguments: str, timeout: float = 60.0) -> Ended:
        """A command to its end; its standard error stands behind its output."""
        line = [*_COMMAND, command, "--data-dir", str(self.data_dir), *self.options, *arguments]
        return await run(line, environment(self.home, PYTHONPATH=str(ROOT)), self.home, timeout)

    async def lines(self, command: str, *arguments: str) -> list[Any]:
        """The values that a command prints with ``--json``; it must have succeeded."""
        ended = await self.run(command, "--json", *arguments)
        assert ended.status == 0, ended
        return [json.loads(line) for line in ended.output.splitlines()]

    async def json(self, command: str, *arguments: str) -> Any:
        """The one value that a command prints with ``--json``."""
        (value,) = await self.lines(command, *arguments)
        return value

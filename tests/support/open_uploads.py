"""A process that serves a hosted index to which everybody may upload, for tests that kill it, or give it a small disk.

``python -m tests.support.open_uploads DATA`` writes ``serving PORT`` once it does, and goes on until SIGTERM.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from proxy.service import build
from proxy.settings import ServerSettings, Settings
from tests.hosting import hosted
from tests.inprocess import LOOPBACK
from tests.support.counter import Doorkeeper
from tests.support.process import ROOT, Running, environment

reactor: Any = default_reactor
INDEX = "internal"


class UploadsProcess:
    """The process, with its data in *data*; with *disk*, on a file system of its own with room for that many bytes."""

    def __init__(self, place: Path, disk: int | None = None) -> None:
        self.data = place / "data"
        self.data.mkdir(mode=0o700, exist_ok=True)
        command = [sys.executable, "-m", "tests.support.open_uploads", str(self.data)]
        mounted = None if disk is None else (str(self.data), disk)
        self.process = Running().spawn(command, environment(place, PYTHONPATH=str(ROOT)), place, disk=mounted)
        self.port = 0

    async def started(self) -> UploadsProcess:
        await self.process.until(lambda: self.process.ended is not None or self._serving() is not None, 60.0)
        serving = self._serving()
        assert serving is not None, self.process.output
        self.port = int(serving[1])
        return self

    def _serving(self) -> re.Match[str] | None:
        return re.search(r"^serving (\d+)$", self.process.output, re.MULTILINE)

    def status(self, key: str) -> int:
        """A figure of the process in bytes: ``VmRSS``, ``VmHWM``."""
        found = re.search(rf"{key}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text("ascii"))
        assert found is not None
        return int(found[1]) * 1024

    @property
    def left(self) -> list[str]:
        """What is in the directories of files, as the process sees it, while it runs."""
        root = Path(f"/proc/{self.process.pid}/root{self.data}")
        return sorted(
            str(path.relative_to(root))
            for folder in ("hosted", "partial")
            for path in (root / folder).rglob("*")
            if path.is_file()
        )

    async def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Everything that it wrote."""
        self.process.signal(number)
        return (await self.process.end()).output


def main() -> None:
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    server = ServerSettings(data_dir=Path(sys.argv[1]), listen=(LOOPBACK,), drain_time=1.0)
    service = build(Settings(server=server, upstreams=(), indexes=(hosted(INDEX),)), reactor, rights=Doorkeeper())
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    def serving() -> None:
        (port,) = service.listenings[0].ports
        sys.stdout.write(f"serving {port.getHost().port}\n")  # type: ignore[attr-defined]  # a TCP port's address has one
        sys.stdout.flush()

    reactor.callWhenRunning(serving)
    reactor.run()


if __name__ == "__main__":
    main()

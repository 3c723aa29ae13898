"""The upstream of a run: the suite's fake upstream in a process of its own, with the projects that the scenarios ask for."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

from msgspec import Struct

from bench.process import Pinned

ROOT = Path(__file__).resolve().parent.parent

#: Pages: project and number of files.  About 530 bytes of JSON a file.
SMALL_PAGE = ("few", 35)
BIG_PAGE = ("thousand", 5_000)
HUGE_PAGE = ("huge", 40_000)
#: Small pages of which each is asked for once.
COLD_PAGES = tuple((f"cold-{number}", 35) for number in range(600))
#: Names on the list of all projects, while a scenario asks for that.
ALL_PROJECTS = 800_000
#: Releases of each project that the resolving scenarios meet.
RELEASES = 40
#: Files on each page that the stampede meets.
INSTALL_PAGE = 300

#: Bytes a second that the upstream sends on each connection.
RATE = 200_000_000


class Sized(Struct, frozen=True):
    """A file of noise on a page of its own."""

    project: str
    size: int

    @property
    def filename(self) -> str:
        return f"{self.project}-1.0-py3-none-any.whl"


SMALL_FILE = Sized("small", 10_000)
BIG_FILE = Sized("big", 100_000_000)


class Upstream:
    """The process.  ``base`` is its ``scheme://host:port``."""

    def __init__(self, core: int, place: Path) -> None:
        pages = [f"--page={project}={files}" for project, files in (SMALL_PAGE, BIG_PAGE, HUGE_PAGE, *COLD_PAGES)]
        files = [f"--file={each.project}/{each.filename}={each.size}" for each in (SMALL_FILE, BIG_FILE)]
        self._process = Pinned(
            [
                *(sys.executable, "-m", "tests.support.fake_upstream", "--standalone", f"--rate={RATE}"),
                *(f"--landscape={RELEASES}", f"--install={INSTALL_PAGE}", *pages, *files),
            ],
            core,
            place / "upstream.log",
            place,
            {**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._process.until(lambda: self._process.said().endswith("}\n"))
        self.base = f"http://127.0.0.1:{json.loads(self._process.said().splitlines()[-1])['port']}"

    def stop(self) -> None:
        self._process.stop()

    def forget(self) -> None:
        """Forget what was asked so far."""
        _get(f"{self.base}/-/reset")

    def delay(self, seconds: float) -> None:
        """Wait that long before each answer from now on."""
        _get(f"{self.base}/-/heal")
        if seconds:
            _get(f"{self.base}/-/fault?delay={seconds}")

    def rate(self, per_second: int | None) -> None:
        """Send that many bytes a second on each connection from now on; ``None``: as at first."""
        _get(f"{self.base}/-/rate?bytes={per_second or RATE}")

    def list_names(self, projects: int) -> None:
        """List that many made-up names as all projects from now on; 0: those that are there."""
        _get(f"{self.base}/-/names?projects={projects}")

    def asked(self) -> int:
        """Requests since :meth:`forget`."""
        return int(json.loads(_get(f"{self.base}/-/asked"))["requests"])


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:
        return bytes(response.read())

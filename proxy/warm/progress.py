"""What is seen while it runs: a bar on a terminal, one line a file elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from proxy.core.amounts import size
from proxy.warm.report import Outcome


class Quiet:
    """Nothing is seen."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def doing(self, what: str) -> None:
        """Say what goes on."""

    def expect(self, files: int, count: int) -> None:
        """More *files* are to come, of *count* bytes in all as far as that is known."""

    def told(self, count: int) -> None:
        """So many more bytes came (fewer, when some did not count)."""

    def done(self, outcome: Outcome) -> None:
        """One file is done."""


class Lines(Quiet):
    """One line a file."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def doing(self, what: str) -> None:
        self._say(what)

    def done(self, outcome: Outcome) -> None:
        known = f" {size(outcome.size)}" if outcome.size is not None else ""
        self._say(f"{outcome.state} {outcome.filename}{known}{': ' + outcome.why if outcome.why else ''}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bar(Lines):
    """A bar: files, bytes, rate and time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("resolving", total=None)
        self._expected = self._finished = self._size = 0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def doing(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def expect(self, files: int, count: int) -> None:
        self._expected += files
        self._size += count
        self._show()
        self._progress.update(self._task, total=self._size)

    def told(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def done(self, outcome: Outcome) -> None:
        self._finished += 1
        self._show()
        if outcome.state == "failed":
            super().done(outcome)
        elif outcome.state == "there" and outcome.size:
            self._progress.advance(self._task, outcome.size)

    def _show(self) -> None:
        self._progress.update(self._task, description=f"{self._finished}/{self._expected} files")

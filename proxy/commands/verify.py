"""``pypiproxy verify``: read every stored file and compare it with its digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note, quiet
from proxy.config import quantities
from proxy.core.amounts import counted, size

#: Seconds between two lines of progress.
_LINE_EVERY = 10.0


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Bytes per second, as people write it."""
    try:
        rate = None if value is None else quantities.bytes_in(value.removesuffix("/s"))
    except ValueError:
        rate = 0
    if rate == 0:
        raise click.BadParameter(f"{value!r} is no rate; expected bytes per second, such as 50MB/s")
    return rate


@click.command()
@click.option("--repair", is_flag=True, help="Fetch damaged and missing files again; relink orphaned files.")
@click.option("--rate", callback=_rate, metavar="BYTES/s", help="Read at most this much per second, such as 50MB/s.")
@options
def verify(place: ProxyPlace, repair: bool, rate: int | None) -> None:
    """Read every stored file and compare it with its digest.

    Damaged files are moved to quarantine/ in the data directory and fetched again when a client asks for them.
    Missing files are recorded in the ledger and not stored.  Orphaned files are stored and not recorded in the ledger.

    Exit status: 1 if a file is damaged or missing and not repaired, or cannot be read.
    """
    problem = say if place.as_json else _tell
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet() or not console.is_terminal) as bar:
        progress = _Bar(bar) if console.is_terminal else ProgressLines(time.monotonic)
        tally = place.ask("verify", _reporter(progress, problem), repair=repair, rate=rate)
    if place.as_json:
        say(tally)
    else:
        _sum_up(tally)
    if tally["left"]:
        raise SystemExit(1)


class _Bar:
    """Progress on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def show(self, checked: Mapping[str, int], of: Mapping[str, int]) -> None:
        self._progress.update(self._task, completed=checked["bytes"], total=of["bytes"])


class ProgressLines:
    """Progress elsewhere: a line on standard error now and then, by *clock* (seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due = clock() + _LINE_EVERY

    def show(self, checked: Mapping[str, int], of: Mapping[str, int]) -> None:
        """Print how far it is, unless that was printed a moment ago."""
        if (now := self._clock()) >= self._due:
            self._due = now + _LINE_EVERY
            done = f"{checked['files']:,} of {counted(of['files'], 'file')}"
            note(f"checked {done}, {size(checked['bytes'])} of {size(of['bytes'])}", err=True)


def _reporter(progress: _Bar | ProgressLines, problem: Callable[[Any], None]) -> Callable[[Any], None]:
    """What shows the progress, and hands each problem on."""

    def report(said: dict[str, Any]) -> None:
        if "problem" in said:
            problem(said)
        else:
            progress.show(said["checked"], said["of"])

    return report


def _tell(found: dict[str, Any]) -> None:
    names = ", ".join(f"{each['index']}: {each['filename']}" for each in found["names"]) or "a file without a name"
    problem = "orphaned" if found["problem"] == "unnamed" else found["problem"]
    outcome = (
        ("relinked" if problem == "orphaned" else "fetched again")
        if found["repaired"]
        else f"not repaired: {found['error']}"
        if found["error"]
        else None
    )
    told = [f"{problem} {names} ({size(found['size'])}, sha256-{found['sha256']}): {found['what']}", outcome]
    click.echo("; ".join(each for each in told if each))


def _sum_up(tally: dict[str, int]) -> None:
    refused = f", {tally['unreadable']:,} that cannot be read" if tally["unreadable"] else ""
    note(
        f"{counted(tally['files'], 'file')} read, {size(tally['bytes'])}: {tally['damaged']:,} damaged, "
        f"{tally['missing']:,} missing, {tally['unnamed']:,} orphaned{refused}; {tally['repaired']:,} repaired"
    )

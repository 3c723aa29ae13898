"""``pypiproxy verify``: read every stored file again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from proxy.commands.place import ProxyPlace, options, say
from proxy.config import quantities
from proxy.core.amounts import size


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Bytes a second, as people write it."""
    try:
        rate = None if value is None else quantities.bytes_in(value.removesuffix("/s"))
    except ValueError:
        rate = 0
    if rate == 0:
        raise click.BadParameter(f"{value!r} is no rate; expected one such as 50MB/s")
    return rate


@click.command()
@click.option("--repair", is_flag=True, help="Fetch again what is damaged or missing; find the names of what has none.")
@click.option("--rate", callback=_rate, metavar="BYTES/s", help="Read no more than this a second (50MB/s).")
@options
def verify(place: ProxyPlace, repair: bool, rate: int | None) -> None:
    """Read every stored file again and hold it against its digest; hold every known name against what is there.

    Damaged files are moved to the directory quarantine beside the stored ones, and fetched again when somebody asks for them.
    Exits with status 1 when something was damaged or missing and is not repaired, or cannot be read.
    """
    problem = say if place.as_json else _tell
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tally = place.ask("verify", _reporter(progress, problem), repair=repair, rate=rate)
    if place.as_json:
        say(tally)
    else:
        _sum_up(tally)
    if tally["left"]:
        raise SystemExit(1)


def _reporter(progress: Progress, problem: Callable[[Any], None]) -> Callable[[Any], None]:
    """What shows the progress, and hands each problem on."""
    task = progress.add_task("", total=None)

    def report(said: dict[str, Any]) -> None:
        if "problem" in said:
            problem(said)
        else:
            progress.update(task, completed=said["checked"]["bytes"], total=said["of"]["bytes"])

    return report


def _tell(found: dict[str, Any]) -> None:
    called = ", ".join(f"{each['index']}: {each['filename']}" for each in found["names"]) or "without a name"
    outcome = "repaired" if found["repaired"] else f"not repaired: {found['error']}" if found["error"] else None
    told = [f"{found['problem']} {found['sha256']} ({called}, {size(found['size'])}): {found['what']}", outcome]
    click.echo("; ".join(each for each in told if each))


def _sum_up(tally: dict[str, int]) -> None:
    refused = f", {tally['unreadable']:,} that cannot be read" if tally["unreadable"] else ""
    click.echo(
        f"{tally['files']:,} files read, {size(tally['bytes'])}: {tally['damaged']:,} damaged, {tally['missing']:,} missing, "
        f"{tally['unnamed']:,} without a name{refused}; {tally['repaired']:,} repaired"
    )

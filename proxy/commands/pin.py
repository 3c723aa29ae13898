"""``pypiproxy pin``, ``unpin`` and ``pins``: files that never make room for others."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note
from proxy.commands.tables import show
from proxy.core.amounts import counted, moment, size

_COLUMNS = (("index", False), ("project", False), ("file", False), ("size", True), ("last used", False))


#: What is shown for a project that is pinned as such.
_FUTURE = "all files, also future ones"


def _change(place: ProxyPlace, operation: str, done: str, **arguments: Any) -> None:
    changed = place.ask(operation, **arguments)
    if place.as_json:
        say(changed)
        return
    for each in changed:
        name = each["filename"] or f"{each['project']}: {_FUTURE}"
        click.echo(f"{name} ({each['index']})")
    files = sum(1 for each in changed if each["filename"] is not None)
    note(f"{counted(files, 'file')} {done}")


@click.command()
@click.argument("project")
@click.argument("which", required=False, metavar="[VERSION|FILE]")
@click.option("--project", "future", is_flag=True, help="All of PROJECT: also files that are stored later.")
@click.option("--index", help="Only the files of this index.")
@options
def pin(place: ProxyPlace, project: str, which: str | None, future: bool, index: str | None) -> None:
    """Protect what is stored of PROJECT from eviction, with its metadata, whatever max_size and min_free are.

    Files that are stored later are only pinned with --project.
    """
    if future and which is not None:
        raise click.UsageError("--project pins all of PROJECT: leave VERSION or FILE out")
    _change(place, "pin", "pinned", project=project, which=which, index=index, future=future)


@click.command()
@click.argument("project")
@click.argument("which", required=False, metavar="[VERSION|FILE]")
@click.option("--index", help="Only the files of this index.")
@options
def unpin(place: ProxyPlace, project: str, which: str | None, index: str | None) -> None:
    """Let pinned files of PROJECT make room for others again, once they are the ones not used for longest."""
    _change(place, "unpin", "unpinned", project=project, which=which, index=index)


@click.command()
@click.option("--index", help="Only the files of this index.")
@options
def pins(place: ProxyPlace, index: str | None) -> None:
    """List the pinned files."""
    files = place.ask("pins", index=index)
    if place.as_json:
        for file in files:
            say(file)
        return
    rows = [
        [
            file["index"],
            file["project"],
            file["filename"] or _FUTURE,
            "-" if file["filename"] is None else "not stored" if file["size"] is None else size(file["size"]),
            moment(file["used"]),
        ]
        for file in files
    ]
    show(_COLUMNS, rows)

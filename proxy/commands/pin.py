"""``pypiproxy pin``, ``unpin`` and ``pins``: files that never make room for others."""

from __future__ import annotations

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.tables import show
from proxy.core.amounts import moment, size

_COLUMNS = (("index", False), ("project", False), ("file", False), ("size", True), ("last used", False))


def _change(place: ProxyPlace, operation: str, done: str, project: str, which: str | None, index: str | None) -> None:
    files = place.ask(operation, project=project, which=which, index=index)
    if place.as_json:
        say(files)
        return
    for file in files:
        click.echo(f"{file['filename']} ({file['index']})")
    click.echo(f"{len(files)} {'file' if len(files) == 1 else 'files'} {done}")


@click.command()
@click.argument("project")
@click.argument("which", required=False, metavar="[VERSION|FILE]")
@click.option("--index", help="Only the files of this index.")
@options
def pin(place: ProxyPlace, project: str, which: str | None, index: str | None) -> None:
    """Keep what is stored of PROJECT, whatever max_size and min_free say, with its metadata.

    Files that are stored later are not pinned by it.
    """
    _change(place, "pin", "pinned", project, which, index)


@click.command()
@click.argument("project")
@click.argument("which", required=False, metavar="[VERSION|FILE]")
@click.option("--index", help="Only the files of this index.")
@options
def unpin(place: ProxyPlace, project: str, which: str | None, index: str | None) -> None:
    """Let pinned files of PROJECT make room for others again, once they are the ones not used for longest."""
    _change(place, "unpin", "unpinned", project, which, index)


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
            file["filename"],
            "not stored" if file["size"] is None else size(file["size"]),
            moment(file["used"]),
        ]
        for file in files
    ]
    show(_COLUMNS, rows)

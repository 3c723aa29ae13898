"""``pypiproxy pin`` and ``pypiproxy unpin``: which files never make room for others."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.place import Place, options, say


@click.command()
@click.argument("project", required=False)
@click.argument("which", metavar="[VERSION|FILE]", required=False)
@click.option("--index", help="Only on this index.")
@options
def pin(place: Place, project: str | None, which: str | None, index: str | None) -> None:
    """Keep what is stored of PROJECT for ever: all of it, or one VERSION or FILE.  Without PROJECT, list what is pinned."""
    if project is None:
        _tell(place, place.ask("pinned", index=index), "")
    else:
        _tell(place, place.ask("pin", project=project, which=which, index=index), "pinned ")


@click.command()
@click.argument("project")
@click.argument("which", metavar="[VERSION|FILE]", required=False)
@click.option("--index", help="Only on this index.")
@options
def unpin(place: Place, project: str, which: str | None, index: str | None) -> None:
    """Let what was pinned of PROJECT make room for others again."""
    _tell(place, place.ask("unpin", project=project, which=which, index=index), "unpinned ")


def _tell(place: Place, files: list[dict[str, Any]], done: str) -> None:
    for each in files:
        if place.as_json:
            say(each)
        else:
            click.echo(f"{done}{each['index']}: {each['filename']}")

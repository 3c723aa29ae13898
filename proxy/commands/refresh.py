"""``pypiproxy refresh``: have a page asked for anew."""

from __future__ import annotations

import click

from proxy.commands.place import ProxyPlace, options, say


@click.command()
@click.argument("project")
@click.option("--index", help="Only on this index; it is fetched if there is none yet.")
@options
def refresh(place: ProxyPlace, project: str, index: str | None) -> None:
    """Ask upstream for the page of PROJECT now, however fresh the stored one is.

    Exits with status 1 when an upstream failed; the stored page is left as it is then.
    """
    outcomes = place.ask("refresh", project=project, index=index)
    for each in outcomes:
        if place.as_json:
            say(each)
        else:
            click.echo(f"{each['index']}: {each['project']}: {each['error'] or each['outcome']}")
    if any(each["outcome"] == "failed" for each in outcomes):
        raise SystemExit(1)

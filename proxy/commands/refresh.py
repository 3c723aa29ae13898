"""``pypiproxy refresh``: have a page fetched anew."""

from __future__ import annotations

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note

#: Outcomes that are failures, with what to add to them.
_FAILURES = {"missing": "missing: upstream has no such project", "failed": ""}


@click.command()
@click.argument("project")
@click.option("--index", help="Only on this index; the page is fetched if none is cached.")
@options
def refresh(place: ProxyPlace, project: str, index: str | None) -> None:
    """Ask upstream for the page of PROJECT now, however fresh the cached page is.

    Prints "new", "changed", "unchanged", "missing" (upstream has no such project) or the reason of a failure for each index
    that has a page of PROJECT.  After a failure the cached page is kept.

    Exit status: 1 if the project is missing or an upstream failed.
    """
    outcomes = place.ask("refresh", project=project, index=index)
    for each in outcomes:
        outcome = each["outcome"]
        line = f"{each['index']}: {each['project']}: {each['error'] or _FAILURES.get(outcome) or outcome}"
        if place.as_json:
            say(each)
        elif outcome in _FAILURES:
            click.echo(line, err=True)
        else:
            note(line)
    if any(each["outcome"] in _FAILURES for each in outcomes):
        raise SystemExit(1)

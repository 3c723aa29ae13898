"""``pypiproxy claims``: which names of projects belong to hosted indexes."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.lazily import Command, LazyGroup
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note
from proxy.commands.tables import show
from proxy.core.amounts import NONE, counted, moment

COMMANDS = {
    "add": Command("proxy.commands.claims:add_claims", "Let names belong to a hosted index."),
    "list": Command("proxy.commands.claims:list_claims", "List the claims, and what indexes own."),
    "release": Command("proxy.commands.claims:release", "Let names belong to nobody."),
}
_COLUMNS = (("index", False), ("project", False), ("state", False), ("since", False), ("by", False), ("reason", False))


@click.group(cls=LazyGroup, commands=COMMANDS)
def claims() -> None:
    """List the names of projects that belong to hosted indexes, and decide whose they are.

    The first file of a project claims its name: no group that the index is a member of looks it up in a proxy index then.  A
    claim survives the files, and the removal of the index from the configuration.
    """


@click.command("list")
@click.option("--index", help="Only the claims of this index.")
@options
def list_claims(place: ProxyPlace, index: str | None) -> None:
    """List the claims.

    "claimed" names belong to their index, "owned" patterns too (the key owns).  "held" names do not: a proxy index in a group
    is known to serve them as well; decide with claims add, or with the key merge of the group: "merged" names are decided so.
    "abandoned" names were claimed by an index that is not configured any more; no group with a hosted index serves them.
    """
    found = place.ask("claims", index=index)
    if place.as_json:
        for each in found:
            say(each)
        return
    rows = [
        [
            each["index"],
            each["project"],
            each["state"],
            moment(each["since"]),
            each["by"],
            each["why"] or NONE,
        ]
        for each in found
    ]
    show(_COLUMNS, rows)


@click.command("add")
@click.argument("index")
@click.argument("projects", nargs=-1, metavar="[PROJECT]...")
@click.option("--from", "source", metavar="OLD", help="All names that OLD claimed, which is not configured any more.")
@options
def add_claims(place: ProxyPlace, index: str, projects: tuple[str, ...], source: str | None) -> None:
    """Let PROJECTs belong to the hosted INDEX, whoever else serves them, before it has files of them or after.

    Names that are held are claimed from then on: groups serve what INDEX has.  Names of an index that is not configured any
    more are given to INDEX; what OLD held is held for INDEX, unless it is named.
    """
    if not projects and source is None:
        raise click.UsageError("nothing to add; expected names of projects, or --from with the index that claimed them")
    _show(place, place.ask("claim_add", index=index, projects=projects, source=source), "claimed")


@click.command()
@click.argument("index")
@click.argument("projects", nargs=-1, metavar="[PROJECT]...")
@click.option("--all", "everything", is_flag=True, help="All names that INDEX has claimed.")
@options
def release(place: ProxyPlace, index: str, projects: tuple[str, ...], everything: bool) -> None:
    """Let PROJECTs belong to INDEX no more: groups look them up in their proxy indexes from then on, and ask upstream.

    Names that INDEX has files of are held, so that the next file does not claim them again.
    """
    if everything == bool(projects):
        raise click.UsageError("expected names of projects, or --all")
    _show(place, place.ask("claim_release", index=index, projects=projects, everything=everything), "released")


def _show(place: ProxyPlace, changed: list[dict[str, Any]], done: str) -> None:
    if place.as_json:
        for each in changed:
            say(each)
        return
    for each in changed:
        before = f", before: {each['before']}" if each.get("before") else ""
        click.echo(f"{each['project']} ({each['index']}): {each['state']}{before}")
    note(f"{counted(len(changed), 'name')} {done}")

"""``pypiproxy hosted``: commands about the directory of a hosted index."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.lazily import Command, LazyGroup
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.progress import Counting
from proxy.commands.speaking import note
from proxy.commands.tables import show
from proxy.core.amounts import counted

COMMANDS = {
    "check": Command("proxy.commands.hosted:check_hosted", "Report what is wrong in the directory."),
    "import": Command("proxy.commands.moving:import_projects", "Take over projects from another index."),
}
_COLUMNS = (("what", False), ("place", False), ("reason", False))


@click.group(cls=LazyGroup, commands=COMMANDS)
def hosted() -> None:
    """Check the directory of a hosted index, or take projects over from another index."""


@click.command("check")
@click.argument("index")
@click.option("--digests", is_flag=True, help="Read all files and compare them with their digests.")
@options
def check_hosted(place: ProxyPlace, index: str, digests: bool) -> None:
    """Report what is wrong in the directory of the hosted INDEX.

    "refused" files are not served, for the reason given; "waiting" ones are being written.  "changed" files have other bytes
    than their JSON file says (--digests).  "duplicate" files are in two folders of one project.  An "orphan" is a JSON file
    without a file, a "stranger" is no distribution or no folder of a project.  The name of a "held" project waits for a
    decision (pypiproxy claims); groups do not serve its files.

    Exit status: 1 if anything is wrong; a name that is held is not.
    """
    with Counting() as counting:

        def report(said: Any) -> None:
            counting.tell(1, said["checked"]["files"], said["checked"]["bytes"], "index")

        outcome = place.ask("hosted_check", report, index=index, digests=digests)
    found = outcome["found"]
    problems = sum(each["kind"] != "held" for each in found)
    if place.as_json:
        for each in found:
            say(each)
    else:
        if found:
            show(_COLUMNS, [[each["kind"], each["place"], each["why"]] for each in found])
        served = counted(outcome["served"], "file")
        note(f"{outcome['directory']}: {served} served, {counted(problems, 'problem')}")
    if problems:
        raise SystemExit(1)

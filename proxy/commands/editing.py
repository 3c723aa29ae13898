"""``pypiproxy yank``, ``unyank``, ``delete``, ``status`` and ``promote``: what operators change in hosted indexes."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.place import options, say
from proxy.commands.remote import Performs, remotely
from proxy.commands.speaking import note
from proxy.core.amounts import counted, size

_STATUSES = ("active", "archived", "deprecated", "quarantined")
_WHICH = "VERSION|FILE"


@click.command()
@click.argument("index")
@click.argument("project")
@click.argument("which", metavar=_WHICH)
@click.option("--reason", help="Why, in one line: installers show it.")
@options
@remotely
def yank(place: Performs, index: str, project: str, which: str, reason: str | None) -> None:
    """Mark a VERSION or FILE of PROJECT on the hosted INDEX as withdrawn (PEP 592).

    Installers take it only where exactly this version is asked for.  Again with another --reason, the reason is replaced.
    """
    _show(place, place.ask("yank", index=index, project=project, which=which, reason=reason), "yanked")


@click.command()
@click.argument("index")
@click.argument("project")
@click.argument("which", metavar=_WHICH)
@options
@remotely
def unyank(place: Performs, index: str, project: str, which: str) -> None:
    """Offer a VERSION or FILE of PROJECT on the hosted INDEX again that was yanked."""
    _show(place, place.ask("unyank", index=index, project=project, which=which), "unyanked")


@click.command()
@click.argument("index")
@click.argument("project")
@click.argument("which", metavar=f"[{_WHICH}]", required=False)
@click.option("--all", "everything", is_flag=True, help="All files of PROJECT.")
@click.option("--dry-run", is_flag=True, help="Delete nothing: print what would be deleted.")
@options
@remotely
def delete(place: Performs, index: str, project: str, which: str | None, everything: bool, dry_run: bool) -> None:
    """Delete a VERSION or FILE of PROJECT, or all of it, from the directory of the hosted INDEX.

    The name of a deleted file stays reserved: only the same bytes can be uploaded under it again.  The name of the project
    still belongs to INDEX (pypiproxy claims).  To withdraw a release that others depend on, yank it.
    """
    if everything == (which is not None):
        raise click.UsageError("expected a VERSION or a FILE, or --all")
    gone = place.ask("delete", index=index, project=project, which=which, dry=dry_run)
    if place.as_json:
        for each in gone:
            say(each)
        return
    for each in gone:
        click.echo(f"{'would delete' if dry_run else 'deleted'} {each['index']}: {each['filename']} ({size(each['size'])})")
    note("nothing was deleted (--dry-run)" if dry_run else f"{counted(len(gone), 'file')} deleted")


@click.command("status")
@click.argument("index")
@click.argument("project")
@click.argument("new", metavar="[STATUS]", required=False, type=click.Choice(_STATUSES))
@click.option("--reason", help="Why, in one line: clients can show it.")
@options
@remotely
def project_status(place: Performs, index: str, project: str, new: str | None, reason: str | None) -> None:
    """Show the status of PROJECT on the hosted INDEX, or set it to STATUS (PEP 792).

    STATUS is one of active, archived (no new files are taken), quarantined (no files are offered or taken) and deprecated
    (another project replaces it).
    """
    if new is None and reason is not None:
        raise click.UsageError("--reason is given with a STATUS")
    found = place.ask("status", index=index, project=project, status=new, reason=reason)
    if place.as_json:
        say(found)
        return
    why = f": {found['reason']}" if found["reason"] else ""
    click.echo(f"{found['project']} ({found['index']}): {found['status']}{why}")


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.argument("project")
@click.argument("version")
@click.option("--dry-run", is_flag=True, help="Change nothing: print what would be promoted.")
@options
@remotely
def promote(place: Performs, source: str, target: str, project: str, version: str, dry_run: bool) -> None:
    """Copy all files of VERSION of PROJECT from the hosted index FROM to the hosted index TO.

    They become visible in TO at once, or none does.  They keep their upload time, uploader, yank and attestations.  Nothing is
    changed if TO has, or had, another file under one of the names.
    """
    outcome = place.ask("promote", source=source, target=target, project=project, version=version, dry=dry_run)
    if place.as_json:
        say(outcome)
        return
    for each in outcome["there"]:
        note(f"{target}: {each} is there already")
    for each in outcome["new"]:
        click.echo(f"{'would promote' if dry_run else 'promoted'} {each['filename']} ({source} -> {target})")
    if outcome["held"]:
        note(outcome["held"], err=True)
    note("nothing was promoted (--dry-run)" if dry_run else f"{counted(len(outcome['new']), 'file')} promoted")


def _show(place: Performs, changed: list[dict[str, Any]], done: str) -> None:
    if place.as_json:
        for each in changed:
            say(each)
        return
    for each in changed:
        click.echo(f"{each['filename']} ({each['index']})")
    note(f"{counted(len(changed), 'file')} {done}")

"""``pypiproxy purge``: take files, and what is known of them, out of a data directory."""

from __future__ import annotations

from typing import Any

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import fail, note
from proxy.config import quantities
from proxy.core.amounts import counted, size


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A duration as people write it."""
    try:
        return None if value is None else quantities.seconds_in(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no duration; expected one such as 90d, 12h or 1h30m") from None


@click.command()
@click.argument("project", required=False)
@click.argument("which", metavar="[VERSION|FILE]", required=False)
@click.option("--page", is_flag=True, help="Only the stored page of PROJECT: the next client gets a new one.")
@click.option("--unused-for", callback=_seconds, metavar="DURATION", help="Every file that nobody used for so long (90d).")
@click.option("--all", "everything", is_flag=True, help="All of the --index named, which is not configured any more.")
@click.option("--dry-run", is_flag=True, help="Remove nothing: print what would be removed.")
@click.option("--index", help="Only on this index.")
@options
def purge(
    place: ProxyPlace,
    project: str | None,
    which: str | None,
    page: bool,
    unused_for: float | None,
    everything: bool,
    dry_run: bool,
    index: str | None,
) -> None:
    """Remove all of PROJECT, or one VERSION or FILE of it, or what was not used for long, or an index that was removed.

    The digest under which a file was first seen is forgotten with it: what upstream offers under that name now will be
    accepted.  Pinned files stay, and with them the page of their project, unless --page asks for it; unpin them first.
    """
    if everything and (project is not None or unused_for is not None or page or index is None):
        raise click.UsageError("--all is about an index that was removed from the configuration: name it with --index, alone")
    if not everything and (project is None) == (unused_for is None):
        raise click.UsageError("expected either a PROJECT or --unused-for DURATION")
    if page and (which is not None or project is None):
        raise click.UsageError("--page is about the page of a whole PROJECT")
    if everything:
        # The defaults have an index of their own: by them every other one would be taken for removed.
        unnamed = f"; name its configuration with --config, which shows whether the index {index} was removed from it"
        gone = place.ask("purge_index", running=unnamed if place.config is None else None, index=index, dry=dry_run)
    elif unused_for is not None:
        if index is not None:
            raise click.UsageError("--unused-for is about the files of the whole data directory: --index says nothing there")
        gone = place.ask("purge_unused", seconds=unused_for, dry=dry_run)
    else:
        gone = place.ask("purge", project=project, which=which, page_only=page, index=index, dry=dry_run)
    if place.as_json:
        say(gone)
    else:
        _tell(gone)
    problems = [each["error"] for each in gone["left"]]
    if gone["pinned"] and project is not None:
        names = ", ".join(sorted({each["filename"] for each in gone["pinned"]}))
        problems.append(f"pinned and left: {names}; pypiproxy unpin {project} lets them go")
    for each in gone["pages_kept"]:
        what = f"{each['index']}: the page of {each['project']}"
        problems.append(f"kept {what}: without it its pinned files cannot be installed while upstream is down")
    if problems:
        fail("\n".join(problems))


def _tell(gone: dict[str, Any]) -> None:
    done, freed, forgotten = ("removed", "removed from the disk", "are forgotten")
    if gone["dry"]:
        done, freed, forgotten = ("would remove", "would be removed from the disk", "would be forgotten")
    for each in gone["removed"]:
        click.echo(f"{done} {each['index']}: {each['filename']}")
    for each in gone["pages"]:
        click.echo(f"{done} {each['index']}: the page of {each['project']}")
    if gone["removed"] or not gone["pages"]:
        note(f"{counted(gone['files'], 'file')} {freed}, {size(gone['bytes'])}")
    if gone["removed"]:
        names = len(gone["removed"])
        note(
            f"the first-seen digests of {counted(names, 'name')} {forgotten}: "
            "whatever upstream offers under them next is accepted"
        )
    if gone["dry"]:
        note("nothing was removed (--dry-run)")

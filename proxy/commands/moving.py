"""``pypiproxy hosted import``: take projects over from another index or a directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from proxy.commands.logins import Logins, ServerLogin
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note, quiet
from proxy.core.amounts import counted, size
from proxy.warm.progress import Bar, Lines, Quiet
from proxy.warm.report import Outcome

_LOGINS = Logins("--from", "PYPIPROXY_IMPORT_PASSWORD", "PYPIPROXY_IMPORT_TOKEN")  # names of variables


@click.command("import")
@click.argument("index")
@click.argument("projects", nargs=-1, metavar="[PROJECT]...")
@click.option("--from", "source", required=True, metavar="URL|DIRECTORY", help="The simple index, or the directory.")
@click.option("--jobs", type=click.IntRange(1, 32), default=8, show_default=True, help="Files that are fetched at once.")
@click.option("--dry-run", is_flag=True, help="Fetch nothing: print what would be imported.")
@options
def import_projects(place: ProxyPlace, index: str, projects: tuple[str, ...], source: str, jobs: int, dry_run: bool) -> None:
    """Take PROJECTs, or all, over from another index or a directory into the hosted INDEX.

    Files keep the upload time, the yank and the reason that the source states, projects their status.  Each file is verified
    by its digest and checked as an upload is.  A second run goes on where the first ended.  Names that a later member of a
    group serves are listed first; they are held (pypiproxy claims).

    The password of a source comes from the environment variable PYPIPROXY_IMPORT_PASSWORD, from netrc, or, if the URL has a
    user name, from the terminal; a token from PYPIPROXY_IMPORT_TOKEN.

    Exit status: 1 if a file could not be taken.
    """
    url, login = _LOGINS.of(source) if "://" in source else (os.path.abspath(source), ServerLogin())
    console = Console(stderr=True)
    shown: Quiet = Quiet() if quiet() or place.as_json else Bar(console) if console.is_terminal else Lines(console)
    with shown:
        tally = place.ask(
            "hosted_import",
            _reporter(shown, place.as_json),
            index=index,
            source=url,
            projects=projects,
            username=login.username,
            password=login.password,
            token=login.token,
            dry=dry_run,
            jobs=jobs,
        )
    if place.as_json:
        say({"tally": tally})
    else:
        done = "would be imported" if dry_run else f"imported, {size(tally['bytes'])}"
        note(
            f"{counted(tally['projects'], 'project')}: {counted(tally['imported'], 'file')} {done}; "
            f"{tally['there']:,} there already, {tally['failed']:,} not taken"
        )
        if tally["collisions"]:
            note(f"{counted(tally['collisions'], 'name')} held: decide with pypiproxy claims")
    if tally["failed"]:
        raise SystemExit(1)


def _reporter(shown: Quiet, as_json: bool) -> Callable[[Any], None]:
    def report(said: dict[str, Any]) -> None:
        if as_json:
            if "collision" in said or "done" in said:
                say(said)
        elif "collision" in said:
            click.echo(f"held: {said['collision']['project']}: {said['collision']['why']}", err=True)
        elif "done" in said:
            each = said["done"]
            if isinstance(shown, Lines):
                shown.done(Outcome(each["project"], "", each["filename"], each["state"], each["size"], each["why"]))
            elif each["state"] == "failed":
                click.echo(f"failed {each['filename']}: {each['why']}", err=True)
        elif "expected" in said:
            shown.expect(said["expected"]["files"], said["expected"]["bytes"])
        else:
            shown.told(said["arrived"])

    return report

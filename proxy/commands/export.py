"""``pypiproxy export``: write what is kept here into a bundle, to be carried to where no upstream is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from proxy.bundle import exporting
from proxy.bundle.exporting import Selection
from proxy.commands.directory import named, open_directory
from proxy.commands.gathering import write_index
from proxy.commands.installing import Installed, installed_options
from proxy.commands.progress import Counting, interruptible
from proxy.commands.selecting import Selected, select
from proxy.commands.speaking import fail, interrupted, note
from proxy.commands.whole import check_replaceable, whole_file
from proxy.core.amounts import counted
from proxy.errors import ConfigError, ProxyError
from proxy.names import is_project_name, normalize
from proxy.warm.looking import Goal
from proxy.warm.resolving import Wishes

#: Files that are not stored and are named in one line.
_NAMED = 5


@click.command()
@click.argument("projects", metavar="[PROJECT]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every project that files are stored of.")
@click.option("--pinned", is_flag=True, help="All that pypiproxy pin keeps.")
@installed_options
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(readable=False, path_type=Path),
    help="The bundle to write; - is standard output.",
)
@click.option("--force", is_flag=True, help="Replace the bundle if it exists.")
@click.option("--index", help="The index to export [default: the default one].")
@click.option(
    "--data-dir", "-d", type=click.Path(path_type=Path), help="The proxy's data directory [default: the configuration's]."
)
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The proxy's configuration file.")
def export(
    projects: tuple[str, ...],
    everything: bool,
    pinned: bool,
    installed: Installed,
    output: Path,
    force: bool,
    index: str | None,
    data_dir: Path | None,
    config: Path | None,
) -> None:
    """Write the pages of each PROJECT, with its metadata and all its files that are stored, into a bundle.

    Of a hosted index a bundle has the files with what their JSON files say; of a group what each of its members has.

    Files given with -r are resolved among what is stored; no upstream is asked.  Exits with status 1 when something that was
    asked for is not in the bundle; if nothing is stored of it, no bundle is written.
    """
    if bool(projects or installed.files or pinned) == everything:
        raise click.UsageError("name projects, or files with -r, or say --pinned; or else --all")
    for project in projects:
        if not is_project_name(project):
            raise click.UsageError(f"{project!r} is no project name")
    check_replaceable(output, force)
    wanted: Selection = dict.fromkeys(normalize(project) for project in projects)
    place = _Place(output, index, data_dir, config, pinned)
    try:
        selected = _selected(place, installed) if installed.files else Selected({}, [])
        with interruptible():
            status = _write(place, None if everything else exporting.together(wanted, selected.files), selected.problems)
    except KeyboardInterrupt:
        interrupted(f"{output} was not written")
    raise SystemExit(status)


def _selected(place: _Place, installed: Installed) -> Selected:
    """What *installed* comes down to.  Raises KeyboardInterrupt; exits with status 1 and a message when that cannot be told."""
    outcome: list[Selected] = []

    async def work(reactor: Any) -> None:
        try:
            settings, chosen = named(place.config, place.data_dir, place.index)
            wishes = Wishes(extras=installed.extras, groups=installed.groups)
            asked = Goal(files=installed.files, targets=tuple(installed.targets), wishes=wishes)
            outcome.append(await select(reactor, settings, chosen, asked))
        except ConfigError as error:
            fail(str(error))

    try:
        react(lambda reactor: Deferred.fromCoroutine(work(reactor)))
    except SystemExit as ended:  # react always ends so
        if ended.code:
            raise
    if not outcome:
        raise KeyboardInterrupt
    return outcome[0]


class _Place(Struct, frozen=True):
    """The source and the target of an export."""

    output: Path
    index: str | None
    data_dir: Path | None
    config: Path | None
    #: Whether pinned files are exported too.
    pinned: bool


class _NothingStored(Exception):
    """Nothing of what was asked for is stored: the bundle would be empty."""


def _write(place: _Place, wanted: Selection | None, problems: list[str]) -> int:
    """Write the bundle and say what is in it; the exit status."""
    try:
        settings, chosen = named(place.config, place.data_dir, place.index)
        with open_directory(settings, reading=True) as directory, whole_file(place.output) as out, Counting() as counting:

            def tell(so_far: exporting.Exported) -> None:
                counting.tell(so_far.pages, so_far.files, so_far.size)

            exported = write_index(directory, chosen, wanted, place.pinned, out, tell)
            if not (exported.pages or exported.files):
                raise _NothingStored
    except (ConfigError, ProxyError) as error:
        click.echo(str(error), err=True)
        return 1
    except OSError as error:
        click.echo(f"{place.output}: {error.strerror}; nothing was written", err=True)
        return 1
    except _NothingStored:
        pass  # it is told below, after what is the matter with each
    problems = [*problems, *exported.problems]
    for problem in problems:
        click.echo(problem, err=True)
    if exported.absent:
        note(_not_stored(exported.absent), err=True)
    if not (exported.pages or exported.files):
        nothing = f"nothing that was asked for is stored in index {chosen.name}"
        click.echo(f"{place.output}: {nothing}; no bundle was written", err=True)
        return 1
    written = f"{counted(exported.pages, 'page')} and {counted(exported.files, 'file')} with {exported.size:,} bytes"
    if exported.claims:
        written += f" and {counted(exported.claims, 'claim')}"
    left_out = f"; {len(problems):,} left out" if problems else ""
    note(f"{place.output}: {written} of index {chosen.name}{left_out}", err=True)
    return 1 if problems else 0


def _not_stored(names: Sequence[str]) -> str:
    """What to say of files with these *names*, which are recorded and not stored."""
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
    return f"{counted(len(names), 'file')} recorded and not stored (evicted, lost or damaged), not exported: {shown}"

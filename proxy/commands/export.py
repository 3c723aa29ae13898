"""``pypiproxy export``: write what is kept here into a bundle, to be carried to where no upstream is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from proxy.bundle import exporting
from proxy.commands.directory import completed, index_cache
from proxy.errors import ConfigError, ProxyError
from proxy.names import is_project_name, normalize


@click.command()
@click.argument("projects", metavar="[PROJECT]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every project that files are stored of.")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="The bundle to write; - is standard output."
)
@click.option("--index", help="The index to export [default: the default one].")
@click.option(
    "--data-dir", "-d", type=click.Path(path_type=Path), help="The proxy's data directory [default: the configuration's]."
)
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The proxy's configuration file.")
def export(
    projects: tuple[str, ...], everything: bool, output: Path, index: str | None, data_dir: Path | None, config: Path | None
) -> None:
    """Write the pages of each PROJECT, with its metadata and all its files that are stored, into a bundle.

    Exits with status 1 when something that was asked for is not in the bundle.
    """
    if bool(projects) == everything:
        raise click.UsageError("name projects, or say --all")
    for project in projects:
        if not is_project_name(project):
            raise click.UsageError(f"{project!r} is no project name")
    wanted = None if everything else dict.fromkeys(normalize(project) for project in projects)
    try:
        with index_cache(config, data_dir, index) as cache, _written(output) as out:
            exported = completed(exporting.export(cache, wanted, out, time.time))
    except (ConfigError, ProxyError) as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    except OSError as error:
        click.echo(f"{output}: {error.strerror}; nothing was written", err=True)
        raise SystemExit(1) from None
    for problem in exported.problems:
        click.echo(problem, err=True)
    click.echo(
        f"{output}: {exported.pages} pages and {exported.files} files with {exported.size:,} bytes of index {cache.name}",
        err=True,
    )
    raise SystemExit(1 if exported.problems else 0)


@contextmanager
def _written(output: Path) -> Iterator[BinaryIO]:
    """The file *output*, which is there whole or as it was before."""
    if str(output) == "-":
        yield sys.stdout.buffer
        return
    unfinished = output.with_name(f"{output.name}.unfinished")
    try:
        with unfinished.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        unfinished.rename(output)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise

"""``pypiproxy import``: take in what a bundle holds, each thing once it is verified."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from proxy.bundle.importing import Imported, open_bundle
from proxy.commands.directory import index_cache
from proxy.errors import ConfigError, ProxyError
from proxy.mechanism.offload import completed


@click.command("import")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--index", help="The index to import into [default: the default one].")
@click.option(
    "--data-dir", "-d", type=click.Path(path_type=Path), help="The proxy's data directory [default: the configuration's]."
)
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The proxy's configuration file.")
def import_(bundle: Path, index: str | None, data_dir: Path | None, config: Path | None) -> None:
    """Take in the pages, metadata and files of BUNDLE (- is standard input).

    What is there already is passed over, and an older page never replaces a newer one: a bundle may be imported again, after an
    interruption too.  Exits with status 1 when something was not taken.
    """
    try:
        with _opened(bundle) as source, index_cache(config, data_dir, index, new=True) as cache:
            importing = completed(open_bundle(source, cache))
            try:
                imported = completed(importing.run())
            except (ProxyError, KeyboardInterrupt):
                _tell(bundle, importing.imported, "so far ")
                raise
            _tell(bundle, imported)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    except ProxyError as error:
        click.echo(f"{bundle}: {error}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        click.echo("interrupted: import it again to go on", err=True)
        raise SystemExit(130) from None
    raise SystemExit(1 if imported.problems else 0)


@contextmanager
def _opened(bundle: Path) -> Iterator[BinaryIO]:
    """Raises ConfigError."""
    if str(bundle) == "-":
        yield sys.stdin.buffer
        return
    try:
        source = bundle.open("rb")
    except OSError as error:
        raise ConfigError(f"{bundle}: {error.strerror}; expected a bundle that pypiproxy export made") from error
    with source:
        yield source


def _tell(bundle: Path, imported: Imported, when: str = "") -> None:
    for problem in imported.problems:
        click.echo(f"{bundle}: {problem}", err=True)
    click.echo(
        f"{bundle}: {when}{imported.pages} pages and {imported.files} files with {imported.size:,} bytes taken into index "
        f"{imported.index}; {imported.pages_there} pages and {imported.files_there} files were there",
        err=True,
    )

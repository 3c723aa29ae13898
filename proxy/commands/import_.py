"""``pypiproxy import``: take in what a bundle holds, each thing once it is verified.

A proxy that runs on the data directory does it: it is handed the open file, so that it need not be allowed to read the bundle.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from proxy import config as configuration
from proxy.bundle.importing import Imported, open_bundle
from proxy.commands import asking
from proxy.commands.directory import named, open_directory
from proxy.commands.progress import Counting, interruptible
from proxy.commands.speaking import fail, interrupted, note
from proxy.core.amounts import counted
from proxy.errors import ConfigError, ProxyError
from proxy.mechanism.offload import completed
from proxy.settings import Settings


@click.command("import")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--index", help="The index to import into [default: the default one].")
@click.option(
    "--data-dir", "-d", type=click.Path(path_type=Path), help="The proxy's data directory [default: the configuration's]."
)
@click.option("--config", "-c", type=click.Path(path_type=Path), help="The proxy's configuration file.")
def import_(bundle: Path, index: str | None, data_dir: Path | None, config: Path | None) -> None:
    """Take in the pages, metadata and files of BUNDLE (- is standard input), also while a proxy runs on the data directory.

    Files of hosted indexes are checked as uploads are.  What a bundle of a group has goes into the members of the same names.

    What is there already is passed over, and an older page never replaces a newer one: a bundle may be imported again, after an
    interruption too.  Exits with status 1 when something was not taken.
    """
    taking = _Import(bundle, index, data_dir, config)
    try:
        with interruptible(), _opened(bundle) as source, taking.counting:
            done = taking.by_running(source)
            if not done:
                taking.alone(source)
    except ConfigError as error:
        fail(str(error))
    except (ProxyError, asking.OperationFailed) as error:
        taking.tell("so far ")
        fail(f"{bundle}: {error}")
    except KeyboardInterrupt:
        taking.tell("so far ")
        interrupted("import it again to go on")
    taking.tell()
    raise SystemExit(1 if taking.imported is not None and taking.imported.problems else 0)


class _Import:
    """One import, and what came of it as far as that is known."""

    def __init__(self, bundle: Path, index: str | None, data_dir: Path | None, config: Path | None) -> None:
        self._bundle = bundle
        self._index = index
        self._data_dir = data_dir
        self._config = config
        self.imported: Imported | None = None
        self.counting = Counting()

    def by_running(self, source: BinaryIO) -> bool:
        """Have the running proxy take in *source*; false when none runs."""
        settings = configuration.load(self._config, configuration.CommandLine(data_dir=self._data_dir))
        arguments = {"index": self._index}
        try:
            self._hear(asking.ask(settings.server.data_dir, "import", arguments, self._hear, handed=source.fileno()))
        except (asking.NotRunning, io.UnsupportedOperation):  # the latter: standard input that is no file
            return False
        return True

    def alone(self, source: BinaryIO) -> None:
        """Take in *source* here."""
        settings, chosen = named(self._config, self._data_dir, self._index, new=True)
        if chosen.kind != "proxy":
            self._performed(settings, chosen.name, source)
            return
        with open_directory(settings) as directory:
            importing = completed(open_bundle(source, directory.cache(chosen.name), on_the_way=self._hear_of))
            self.imported = importing.imported
            completed(importing.run())

    def _performed(self, settings: Settings, index: str, source: BinaryIO) -> None:
        """Take in *source* as a proxy does: what hosted indexes take is checked as an upload is."""
        from proxy.commands.performing import perform  # it takes a reactor

        arguments = {"index": index, "descriptor": os.dup(source.fileno())}
        self._hear(perform(settings, "import", arguments, self._hear))

    def _hear(self, said: dict[str, Any]) -> None:
        self._hear_of(Imported(**said))

    def _hear_of(self, imported: Imported) -> None:
        self.imported = imported
        pages, files = imported.pages + imported.pages_there, imported.files + imported.files_there
        self.counting.tell(pages, files, imported.read)

    def tell(self, when: str = "") -> None:
        """Say what was taken and what was not, if anything is known of that."""
        imported = self.imported
        if imported is None:
            return
        for problem in imported.problems:
            click.echo(f"{self._bundle}: {problem}", err=True)
        taken = f"{counted(imported.pages, 'page')} and {counted(imported.files, 'file')} with {imported.size:,} bytes"
        if imported.claims:
            taken += f" and {counted(imported.claims, 'claim')}"
        there = f"{counted(imported.pages_there, 'page')} and {counted(imported.files_there, 'file')}"
        note(
            f"{self._bundle}: {when}{taken} taken into index {imported.index}; {there} were there",
            err=True,
        )


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

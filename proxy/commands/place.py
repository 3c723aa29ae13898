"""What every command that works on a data directory has in common: its options, whom it asks, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from proxy import config
from proxy.commands import asking
from proxy.commands.speaking import fail
from proxy.errors import ConfigError, ProxyError
from proxy.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


class ProxyPlace(Struct, frozen=True):
    """A data directory, as the options of a command name it."""

    config: Path | None
    data_dir: Path | None
    #: Whether answers are printed as JSON.
    as_json: bool

    def settings(self, *, new: bool = False) -> Settings:
        """What a proxy started with the same options would use.  Raises ConfigError, also for a missing data directory.

        With *new* that may be missing.
        """
        from proxy.host import datadir  # a running proxy is asked without all that this takes

        settings = config.load(self.config, config.CommandLine(data_dir=self.data_dir))
        if not new:
            datadir.refuse_missing(settings.server.data_dir)
        return settings

    def ask(
        self,
        operation: str,
        report: Callable[[Any], None] = lambda said: None,
        *,
        running: str | None = None,
        handed: int | None = None,
        new: bool = False,
        **arguments: Any,
    ) -> Any:
        """What *operation* answers, from the running proxy or performed here.

        *running*: only the former will do, and this is what to say after the fact that no proxy runs.  *handed* is the
        descriptor of a file for an operation that takes one.  With *new* a data directory is made if there is none.

        Exits with status 1 and a message when it fails.  Raises KeyboardInterrupt.
        """
        try:
            directory = config.data_directory(self.config, self.data_dir)
            if directory is None or not os.path.isdir(directory):  # pathlib's own fails for a name that is too long
                directory = self.settings(new=new).server.data_dir
            try:
                return asking.ask(directory, operation, arguments, report, handed=handed)
            except asking.NotRunning as error:
                if running is not None:
                    raise asking.OperationFailed(f"{error}{running}") from error
            settings = self.settings(new=new)
            from proxy.commands.performing import perform

            if handed is not None:
                arguments["descriptor"] = os.dup(handed)
            return perform(settings, operation, arguments, report)
        except (ConfigError, ProxyError, asking.OperationFailed) as error:
            fail(str(error))


def say(value: Any) -> None:
    """Print *value* as one line of JSON."""
    import msgspec  # tables do without

    click.echo(msgspec.json.encode(value).decode())


def options(command: F) -> F:
    """The options that name a data directory; they come together as the argument *place*."""

    @wraps(command)
    def placed(config: Path | None, data_dir: Path | None, as_json: bool, **rest: Any) -> Any:
        return command(place=ProxyPlace(config, data_dir, as_json), **rest)

    path = click.Path(path_type=Path)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, one value per line."),
        click.option("--data-dir", "-d", type=path, help="The proxy's data directory [default: the configuration's]."),
        click.option("--config", "-c", type=path, help="The proxy's configuration file."),
    ):
        placed = option(placed)
    return placed  # type: ignore[return-value]  # click calls it by names that no type can express

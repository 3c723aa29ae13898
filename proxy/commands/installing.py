"""What commands that look at whole installations have in common: the files that ask for one, and the machines it is for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from proxy.warm.targets import BadTarget, Target, targets

F = TypeVar("F", bound=Callable[..., Any])


class Installed(Struct, frozen=True):
    """An installation, as the options of a command name it."""

    files: tuple[Path, ...]
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    targets: tuple[Target, ...]
    #: Whether a Python or platform was named.
    named: bool


def installed_options(command: F) -> F:
    """The options that name what is installed and where; they come together as the argument *installed*."""

    @wraps(command)
    def asked(
        files: tuple[Path, ...],
        extras: tuple[str, ...],
        groups: tuple[str, ...],
        pythons: tuple[str, ...],
        platforms: tuple[str, ...],
        implementation: str,
        **rest: Any,
    ) -> Any:
        try:
            machines = tuple(targets(pythons, platforms, implementation))
        except BadTarget as error:
            raise click.UsageError(str(error)) from error
        return command(installed=Installed(files, extras, groups, machines, bool(pythons or platforms)), **rest)

    for option in (
        click.option("--implementation", default="cp", show_default=True, help="cp (CPython) or pp (PyPy)."),
        click.option(
            "--platform",
            "platforms",
            multiple=True,
            metavar="TAG",
            help="Platform tag of the target machines, such as manylinux_2_28_x86_64; may be repeated.  [default: this one]",
        ),
        click.option(
            "--python",
            "pythons",
            multiple=True,
            metavar="3.X",
            help="Python version of the target machines; may be repeated.  [default: this one]",
        ),
        click.option("--group", "groups", multiple=True, help="Dependency group of a pyproject.toml; may be repeated."),
        click.option("--extra", "extras", multiple=True, help="Extra of a pyproject.toml; may be repeated."),
        click.option(
            "-r",
            "--requirement",
            "files",
            multiple=True,
            type=click.Path(path_type=Path),
            help="requirements.txt, pyproject.toml or a lock file (uv, poetry, pdm, pipenv, pylock.toml); may be repeated.",
        ),
    ):
        asked = option(asked)
    return asked  # type: ignore[return-value]  # click calls it by names that no type can express

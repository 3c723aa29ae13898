"""Notes and failures of commands, and the option ``--quiet``, which every command has.

A command prints its results on standard output.  Notes are progress, totals and what was done; failures are printed on standard
error.  ``--quiet`` omits notes and the headings of tables, never a result or a failure.
"""

from __future__ import annotations

from typing import NoReturn

import click

_QUIET = "pypiproxy.quiet"


def quiet_option() -> click.Option:
    """The option of every command."""
    return click.Option(
        ["--quiet", "-q"],
        is_flag=True,
        expose_value=False,
        callback=_be_quiet,
        help="Print results and failures only.",
    )


def _be_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_QUIET] = value


def quiet() -> bool:
    """Whether the command that runs was asked to be quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET))


def note(text: str, *, err: bool = False) -> None:
    """Print *text*, which is neither a result nor a failure, on standard output or (*err*) on standard error."""
    if not quiet():
        click.echo(text, err=err)


def interrupted(outcome: str | None = None) -> NoReturn:
    """Print that the command was interrupted, and the *outcome* if it is known, on standard error; exit with status 130."""
    click.echo("interrupted" if outcome is None else f"interrupted: {outcome}", err=True)
    raise SystemExit(130)


def fail(message: str) -> NoReturn:
    """Print *message* on standard error and exit with status 1."""
    click.echo(message, err=True)
    raise SystemExit(1)

"""``pypiproxy version``: the same as ``pypiproxy --version``."""

from __future__ import annotations

import click

import proxy


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"pypiproxy {proxy.__version__}")

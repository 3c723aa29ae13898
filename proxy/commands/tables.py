"""Tables: drawn on a terminal, plain columns when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

#: A column: its heading, and whether it is of numbers.
Column = tuple[str, bool]


def show(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *columns*."""
    if not sys.stdout.isatty():
        _plain([[heading for heading, _ in columns], *rows], [numbers for _, numbers in columns])
        return
    # Half of the time of a command whose output is piped, if it were imported above.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for heading, numbers in columns:
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console.print(table)


def _plain(rows: Sequence[Sequence[str]], numbers: Sequence[bool]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(numbers))]
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numbers, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def say_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names with their values, in two columns."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {value}")

"""Tables: fitted to the width of a terminal, and whole, with one record per line, when piped.

On a terminal, columns without a value are left out, and the widest columns get narrower: names are cut from the left, text is
wrapped between words.  A table that is too wide nevertheless is printed as one block per record.  Piped output loses nothing.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

import click

from proxy.commands.speaking import quiet
from proxy.core.amounts import NONE

#: A column: its heading, and whether it is of numbers.
Column = tuple[str, bool]

_GAP = "  "
#: A cell is not shortened to less than this.
_NARROWEST = 20
_CUT = "…"


def show(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *columns*; without the headings where the command is to be quiet."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in drawn(columns, rows, width, headings=not quiet()):
        click.echo(line)


def drawn(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None, *, headings: bool = True) -> list[str]:
    """The lines of the table, none longer than *width* (``None``: as long as the rows are)."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    if width is None:
        return _aligned(columns, [[cell] for cell in cells], _widths(columns, cells), headings=headings)
    kept = [number for number in range(len(columns)) if not cells or any(row[number] != NONE for row in cells)]
    columns, cells = [columns[number] for number in kept], [[row[number] for number in kept] for row in cells]
    widths = _widths(columns, cells)
    if not _shrink(columns, cells, widths, width):
        return _blocks(columns, cells, width)
    return _aligned(columns, [_folded(row, widths) for row in cells], widths, headings=headings)


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(heading), *(len(row[number]) for row in cells), 0) for number, (heading, _) in enumerate(columns)]


def _shrink(columns: Sequence[Column], cells: Sequence[Sequence[str]], widths: list[int], width: int) -> bool:
    """Make the widest of *widths* smaller until all fit into *width*; whether that is possible."""
    least = [max(_NARROWEST, len(heading)) for heading, _ in columns]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        flexible = [number for number, (_, numbers) in enumerate(columns) if not numbers and widths[number] > least[number]]
        if not flexible:
            return False
        widths[max(flexible, key=lambda number: widths[number])] -= 1
    return True


def _folded(row: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """The lines of one record, each with a cell per column."""
    columns = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, columns), default=1)
    return [[column[number] if number < len(column) else "" for column in columns] for number in range(height)]


def _fold(cell: str, width: int) -> list[str]:
    """*cell* in lines of at most *width*: text between its words, a word that is too long without its beginning."""
    lines = textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [line if len(line) <= width else _CUT + line[len(line) - width + 1 :] for line in lines]


def _aligned(
    columns: Sequence[Column], records: Sequence[Sequence[Sequence[str]]], widths: Sequence[int], *, headings: bool
) -> list[str]:
    lines = [[heading for heading, _ in columns]] if headings else []
    return [
        _GAP.join(
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, (_, numbers) in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in [*lines, *(line for record in records for line in record)]
    ]


def _blocks(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int, *, empty: bool = False) -> list[str]:
    """One block per record, with a line or more per value; where there is none, only if *empty* ones are wanted."""
    named = max(len(heading) for heading, _ in columns)
    lines: list[str] = []
    for row in cells:
        lines += [""] if lines else []
        for (heading, _), cell in zip(columns, row, strict=True):
            if empty or cell != NONE:
                first, *more = _fold(cell, max(_NARROWEST, width - named - len(_GAP)))
                lines.append(f"{heading.ljust(named)}{_GAP}{first}")
                lines += [f"{' ' * named}{_GAP}{each}" for each in more]
    return lines


def say_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names with their values, in two columns; on a terminal, long values are wrapped."""
    if sys.stdout.isatty():
        columns = [(name, False) for name, _ in pairs]
        lines = _blocks(columns, [[value for _, value in pairs]], shutil.get_terminal_size().columns, empty=True)
    else:
        width = max(len(name) for name, _ in pairs)
        lines = [f"{name.ljust(width)}{_GAP}{' '.join(value.split())}" for name, value in pairs]
    for line in lines:
        click.echo(line)

"""What ``pypiproxy stats`` prints of statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from proxy.commands.tables import say_pairs, show
from proxy.core.amounts import NONE, counted, duration, moment, size
from proxy.core.figures import Dimension

#: What there is a table by.
TABLES = tuple(each.value for each in Dimension)
#: The columns of figures, beside those that a table is by.
_FIGURES = ("requests", "hit rate", "bytes", "saved", "stale", "failed")


def show_table(found: dict[str, Any]) -> None:
    """One table of statistics."""
    columns = [(name, False) for name in found["columns"]] + [(name, True) for name in _FIGURES]
    show(columns, [[*(each[name] for name in found["columns"]), *_figures(each)] for each in found["rows"]])


def show_figures(found: dict[str, Any]) -> None:
    """The sums, what is worth doing, and what went wrong."""
    summary = found["summary"]
    period = duration(found["until"] - found["since"])
    say_pairs(
        [
            (f"last {period}", f"{counted(summary['requests'], 'request')}, {size(summary['bytes'])}"),
            ("hit rate", share(summary["hit_rate"])),
            ("saved", f"{size(summary['saved_bytes'])}, about {duration(summary['saved_seconds'])} of waiting"),
            ("stale, failed", f"{summary['stale']:,}, {summary['failed']:,}"),
        ]
    )
    _section(
        "Wheels worth building: these releases are downloaded as source archives again and again",
        ("index", "project", "version", "downloads"),
        found["wheels_worth_building"],
    )
    _section(
        "Agents without a cache of their own: they request the same files on every run",
        ("address", "files", "requests"),
        found["repeated_requests"],
    )
    _section(
        "Agents that request pages and never a file: they may download past the proxy",
        ("address", "pages"),
        found["pages_without_files"],
    )
    problems = [
        {
            "what": each["reason"],
            "about": " ".join(filter(None, (each["index"], each["filename"] or each["project"]))) or NONE,
            "times": each["times"],
            "last": moment(each["last"]),
        }
        for each in found["problems"]
    ]
    _section("Problems of late", ("what", "about", "times", "last"), problems)


def share(rate: float | None) -> str:
    """A share for people, ``-`` for none."""
    return NONE if rate is None else f"{100 * rate:.1f} %"


def _figures(each: dict[str, Any]) -> list[str]:
    return [
        f"{each['requests']:,}",
        share(each["hit_rate"]),
        size(each["bytes"]),
        size(each["saved_bytes"]),
        f"{each['stale']:,}",
        f"{each['failed']:,}",
    ]


def _section(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        click.echo(f"\n{title}:")
        cells = [[f"{each[name]:,}" if isinstance(each[name], int) else str(each[name]) for name in columns] for each in rows]
        show([(name, bool(rows) and isinstance(rows[0][name], int)) for name in columns], cells)

"""The figures of a run: medians and spreads, as a table for people and as values for JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from bench.scenarios import Metric

#: A spread (longest to shortest) of more than this share of the median makes a ratio doubtful.
NOISE = 0.25


class Row(Struct, frozen=True):
    """One metric of one scenario: what each repetition measured, by server.  Ratios are to the *reference*."""

    scenario: str
    metric: Metric
    reference: str
    values: Mapping[str, Sequence[float]]

    def median(self, server: str) -> float | None:
        """The median of a server's repetitions, ``None`` if it was not measured."""
        return statistics.median(self.values[server]) if self.values.get(server) else None

    def ratio(self, server: str) -> float | None:
        """*server*'s median over the reference's."""
        ours, theirs = self.median(server), self.median(self.reference)
        return ours / theirs if ours is not None and theirs else None

    def is_noisy(self, server: str) -> bool:
        """Whether the repetitions of either lie so far apart that :meth:`ratio` says little."""
        return any(
            max(values) - min(values) > NOISE * abs(statistics.median(values))
            for values in (self.values.get(server, ()), self.values.get(self.reference, ()))
            if values
        )

    def document(self) -> dict[str, Any]:
        """All of it, as JSON values; what never ended (an infinite time) is ``null``."""
        others = [server for server in self.values if server != self.reference]
        return {
            "scenario": self.scenario,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "better": "more" if self.metric.more_is_better else "less",
            "goal": self.metric.goal,
            "reference": self.reference,
            "medians": {server: _finite(self.median(server)) for server in self.values},
            "values": {server: [_finite(each) for each in values] for server, values in self.values.items()},
            "ratios": {server: _finite(self.ratio(server)) for server in others},
            "noisy": {server: self.is_noisy(server) for server in others},
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def table(rows: Sequence[Row], servers: Sequence[str]) -> str:
    """The rows in Markdown: medians with the spread of the repetitions, and ratios to the rows' one reference.

    A ratio with a question mark stands between noisy figures: processor time a request says more than it.
    """
    reference = rows[0].reference
    shown = [reference, *(server for server in servers if server != reference)]
    heads = ["", "", *shown, *(f"{server} / {reference}" for server in shown[1:]), "goal"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    last = None
    for row in rows:
        title = row.scenario if row.scenario != last else ""
        last = row.scenario
        ratios = [_ratio(row, server) for server in shown[1:]]
        goal = f"{'≥' if row.metric.more_is_better else '≤'} {row.metric.goal}" if row.metric.goal is not None else ""
        metric = f"{row.metric.name}, {row.metric.unit}" if row.metric.unit else row.metric.name
        lines.append([title, metric, *(_cell(row.values.get(server, ())) for server in shown), *ratios, goal])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _ratio(row: Row, server: str) -> str:
    ratio = row.ratio(server)
    if ratio is None:
        return ""
    return f"{ratio:.2f} ?" if row.is_noisy(server) else f"{ratio:.2f}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    median, low, high = statistics.median(values), min(values), max(values)
    return _number(median) if low == high else f"{_number(median)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return (
        f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
    )

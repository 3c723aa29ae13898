"""The figures of a run: medians and spreads, as a table for people and as values for JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from bench.scenarios import Metric

#: A spread (longest to shortest) of more than this share of the median makes a ratio doubtful.
NOISE = 0.25


@frozen
class Row:
    """One metric of one scenario: what each repetition measured, by server."""

    scenario: str
    metric: Metric
    values: Mapping[str, Sequence[float]]

    def median(self, server: str) -> float | None:
        """The median of a server's repetitions, ``None`` if it was not measured."""
        return statistics.median(self.values[server]) if self.values.get(server) else None

    def ratio(self, server: str, reference: str) -> float | None:
        """*server*'s median over *reference*'s."""
        ours, theirs = self.median(server), self.median(reference)
        return ours / theirs if ours is not None and theirs else None

    def is_noisy(self, server: str, reference: str) -> bool:
        """Whether the repetitions of either lie so far apart that :meth:`ratio` says little."""
        return any(
            max(values) - min(values) > NOISE * abs(statistics.median(values))
            for values in (self.values.get(server, ()), self.values.get(reference, ()))
            if values
        )

    def document(self, servers: Sequence[str]) -> dict[str, Any]:
        """All of it, as JSON values."""
        reference = servers[0]
        return {
            "scenario": self.scenario,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "better": "more" if self.metric.more_is_better else "less",
            "goal": self.metric.goal,
            "medians": {server: self.median(server) for server in servers},
            "values": {server: list(self.values.get(server, ())) for server in servers},
            "ratios": {server: self.ratio(server, reference) for server in servers[1:]},
            "noisy": {server: self.is_noisy(server, reference) for server in servers[1:]},
        }


def table(rows: Sequence[Row], servers: Sequence[str]) -> str:
    """The rows in Markdown: medians with the spread of the repetitions, and ratios to the first server.

    A ratio with a question mark stands between noisy figures: processor time a request says more than it.
    """
    reference = servers[0]
    heads = ["", "", *servers, *(f"{server} / {reference}" for server in servers[1:]), "goal"]
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2)]
    shown = None
    for row in rows:
        title = row.scenario if row.scenario != shown else ""
        shown = row.scenario
        ratios = [_ratio(row, server, reference) for server in servers[1:]]
        goal = f"{'≥' if row.metric.more_is_better else '≤'} {row.metric.goal}" if row.metric.goal is not None else ""
        metric = f"{row.metric.name}, {row.metric.unit}" if row.metric.unit else row.metric.name
        lines.append([title, metric, *(_cell(row.values.get(server, ())) for server in servers), *ratios, goal])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _ratio(row: Row, server: str, reference: str) -> str:
    ratio = row.ratio(server, reference)
    if ratio is None:
        return ""
    return f"{ratio:.2f} ?" if row.is_noisy(server, reference) else f"{ratio:.2f}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    median, low, high = statistics.median(values), min(values), max(values)
    return _number(median) if low == high else f"{_number(median)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return (
        f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
    )

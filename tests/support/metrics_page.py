"""``docs/metrics.md``, made from the definitions: ``python -m tests.support.metrics_page`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from proxy.core.events import Incident, Labelled
from proxy.statistics.address_labels import MOST
from proxy.statistics.definitions import BUCKETS, DEFINITIONS, LABELS, VALUES, Definition

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"

_HEAD = """\
# Metrics

`/-/metrics` serves these metrics in the Prometheus text format, or in the OpenMetrics format to scrapers that accept it.
Counters start at 0 at each start of the proxy. [Operations](operations.md#metrics) describes how Prometheus is configured,
and how the metrics are kept from others.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_BUCKETS = """
The limits of the buckets of all histograms are {limits} s.
Hot answers, which are sent from memory with one write, are counted as 0 s.

## Labels

No label has text of a client, or the name of a project or a user. Most labels have a fixed set of values, which the tables
below list. The others are names from the configuration, and addresses:

| label | values |
|---|---|
"""

_OF_THE_PROCESS = """
## Process

These metrics are those that most Python programs have. Those of the process are available on Linux.

| metric | type | meaning |
|---|---|---|
"""

_EVENTS = """
## Events

`pypiproxy_events_total` counts incidents that an operator may want to examine, by the label `event`:

| event | meaning |
|---|---|
"""

_FOOT = """
## Alerts

[conf/prometheus/alerts.yml](../conf/prometheus/alerts.yml) has alert rules, and the [runbook](runbook.md) describes for each
what it means and what to do. A dashboard is in `conf/grafana/` ([Monitoring](operations.md#monitoring)).

This page is generated from the definitions in the code (`python -m tests.support.metrics_page`).
"""


def page() -> str:
    """The text of the page."""
    limits = ", ".join(f"{each:g}" for each in BUCKETS)
    return "".join(
        (
            _HEAD,
            *map(_row, sorted(DEFINITIONS, key=lambda each: each.full_name)),
            _BUCKETS.format(limits=limits),
            *(f"| `{label}` | {meaning.format(most=MOST)} |\n" for label, meaning in LABELS.items()),
            *_tables(),
            _EVENTS,
            *_values(Incident),
            _OF_THE_PROCESS,
            *sorted(_of_the_process()),
            _FOOT,
        )
    )


def _row(each: Definition) -> str:
    labels = ", ".join(f"`{label}`" for label in each.labels) or "-"
    return f"| `{each.full_name}` | {each.kind} | {labels} | {each.meaning.replace(chr(10), ' ')} |\n"


def _tables() -> Iterator[str]:
    """A table for each set of values."""
    for values in dict.fromkeys(VALUES.values()):
        used = {(label, name) for (label, name), each in VALUES.items() if each is values}
        metrics = [each for each in DEFINITIONS if any(_has(each, *place) for place in used)]
        (label,) = {label for label, _ in used}
        names = ", ".join(f"`{each.full_name}`" for each in metrics)
        yield f"\n### {label} of {names}\n\n| {label} | meaning |\n|---|---|\n"
        yield from _values(values)


def _has(definition: Definition, label: str, name: str | None) -> bool:
    return label in definition.labels and name in (None, definition.name)


def _values(values: type[Labelled]) -> Iterator[str]:
    return (f"| `{each.value}` | {each.meaning} |\n" for each in values)


def _of_the_process() -> Iterator[str]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"| `{name}` | {family.type} | {family.documentation.rstrip('.')}. |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

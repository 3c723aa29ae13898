"""``docs/metrics.md``, made from the definitions: ``python -m tests.support.metrics_page`` writes it anew."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from proxy.core.events import Answered, Evicted, Incident, Notice
from proxy.statistics.metrics import Metrics

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"

_HEAD = """\
# Metrics

`/-/metrics` serves these metrics in the Prometheus text format. Counters start at 0 at each start of the proxy.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_EVENTS = """
## Events

`pypiproxy_events_total` counts incidents that an operator may want to examine, by the label `event`:

| event | meaning |
|---|---|
"""

_FOOT = """
## Alerts

| expression | meaning |
|---|---|
| `pypiproxy_degraded > 0` | Something is wrong while builds are served ([reasons](disk.md#when-the-disk-fails)). |
| `increase(pypiproxy_events_total{event="damaged file set aside"}[1d]) > 0` | The disk damages files. |
| `increase(pypiproxy_events_total{event="changed digest refused"}[1d]) > 0` | An upstream replaced a file. |
| `rate(pypiproxy_requests_total{status="503"}[5m]) > 0` | Clients requested what is not cached and cannot be fetched. |

This page is generated from the definitions in the code (`python -m tests.support.metrics_page`).
"""


def page() -> str:
    """The text of the page."""
    metrics = Metrics()
    metrics.record(Answered("GET", 200, 0, 0.0, "hit", None))
    for incident in Incident:
        metrics.record(Notice(incident))
    metrics.record(Evicted(0))
    rows = []
    for family in sorted(text_string_to_metric_families(metrics.exposition()[1].decode()), key=lambda each: each.name):
        samples = [each for each in family.samples if not each.name.endswith("_created")]
        if samples:
            name = family.name if family.type == "histogram" else samples[0].name
            labels = ", ".join(f"`{label}`" for label in samples[0].labels if label != "le") or "-"
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n")
    events = [f"| `{incident.value}` | {incident.meaning} |\n" for incident in Incident]
    return "".join((_HEAD, *rows, _EVENTS, *events, _FOOT))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

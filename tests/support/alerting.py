"""The alert rules in ``conf/prometheus`` as tests read them, and a copy of them in which time passes faster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tests.support.process import ROOT

RULES = ROOT / "conf" / "prometheus" / "alerts.yml"
EXAMPLE = ROOT / "conf" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "conf" / "grafana" / "dashboard.json"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=for: )(\d+)([smhd])$", re.MULTILINE)
#: What a rate needs of scrapes that are half a second apart (seconds).
_SHORTEST_RANGE = 4.0


class AlertRule(Struct, frozen=True):
    """One alert: its name, its expression, where its section of the runbook is, and whom it wakes."""

    name: str
    expression: str
    severity: str
    summary: str
    runbook: str


def alert_rules() -> list[AlertRule]:
    """All of the rules, in their order.  Each key stands on a line of its own there."""
    return [_rule(text) for text in RULES.read_text("utf-8").split("- alert: ")[1:]]


def _rule(text: str) -> AlertRule:
    name, _, rest = text.partition("\n")
    keys = dict(re.findall(r"^ +(\w+): (.*)$", rest, re.MULTILINE))
    return AlertRule(name, keys["expr"], keys["severity"], keys["summary"].strip('"'), keys["runbook_url"])


def scaled(rules: str, factor: float) -> str:
    """*rules* with every ``for`` and every range divided by *factor*; a range is left what a rate needs."""

    def shorter(match: re.Match[str]) -> str:
        in_range = match[1] is not None
        number, unit = (match[1], match[2]) if in_range else (match[3], match[4])
        seconds = int(number) * _UNITS[unit] / factor
        return f"{max(seconds, _SHORTEST_RANGE if in_range else 0.1) * 1000:.0f}ms"

    return _DURATION.sub(shorter, rules)


def dashboard_queries(path: Path = DASHBOARD) -> Iterator[tuple[str, str]]:
    """(panel, query) of the dashboard, with what Grafana puts in place of its variables."""
    for panel in json.loads(path.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for variable, value in (("$__rate_interval", "5m"), ("$instance", ".*")):
                query = query.replace(variable, value)
            yield panel["title"], query

"""Alerts fire when they should; each has its section of the runbook and its drill; rules and dashboard name real metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from proxy.core.troubles import Reason
from proxy.statistics.definitions import DEFINITIONS
from tests.drills.test_alerts import DRILLS
from tests.support.alerting import DASHBOARD, EXAMPLE, RULES, alert_rules, dashboard_queries, scaled
from tests.support.manual import anchors, blocks
from tests.support.process import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (make system-packages)")


def promtool(*arguments: str | Path) -> str:
    """What promtool prints; it must have succeeded."""
    ended = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


# -- when they fire -----------------------------------------------------------------------------------------------------------


class Case(Struct, frozen=True):
    """Series with a value per minute, and the minutes at which *alert* fires and does not."""

    alert: str
    series: Mapping[str, Sequence[float]]
    fires: Sequence[int]
    silent: Sequence[int]


def steps(*parts: tuple[float, int]) -> list[float]:
    """(value, for how many minutes)."""
    return [value for value, minutes in parts for _ in range(minutes)]


def counter(*parts: tuple[float, int]) -> list[float]:
    """A counter that grows by so much in each of so many minutes."""
    values, total = [], 0.0
    for growth in steps(*parts):
        total += growth
        values.append(total)
    return values


def degraded(reason: str) -> dict[str, list[float]]:
    return {f'pypiproxy_degraded{{instance="a",reason="{reason}"}}': steps((0, 5), (1, 20), (0, 10))}


WELL = 'pypiproxy_requests_total{instance="a",route="file",index="pypi",status="200",cache="hit"}'
FAILED = 'pypiproxy_requests_total{instance="a",route="page",index="pypi",status="503",cache="upstream-failed"}'
PROBES = 'pypiproxy_requests_total{instance="a",route="probe",index="",status="503",cache="-"}'

CASES = [
    Case("PypiproxyDown", {'up{job="pypiproxy",instance="a"}': steps((1, 3), (0, 6), (1, 6))}, [5, 8], [4, 10]),
    Case("PypiproxyDown", {'up{job="node",instance="a"}': steps((0, 20))}, [], [15]),
    Case(
        "PypiproxyRestarts",
        {'process_start_time_seconds{job="pypiproxy",instance="a"}': steps((1, 5), (2, 5), (3, 5), (4, 60))},
        [15, 30],
        [14, 45],
    ),
    Case("PypiproxyBuildsFail", {WELL: counter((60, 70)), FAILED: counter((0, 10), (6, 20), (0, 40))}, [20, 29], [12, 45]),
    Case("PypiproxyBuildsFail", {WELL: counter((60, 70)), FAILED: counter((1, 70))}, [], [30, 60]),
    Case("PypiproxyBuildsFail", {WELL: counter((60, 70)), PROBES: counter((60, 70))}, [], [30, 60]),
    Case(
        "PypiproxyReactorBlocked",
        {'pypiproxy_reactor_delay_seconds_sum{instance="a"}': counter((0.1, 10), (30, 20), (0.1, 20))},
        [20, 29],
        [9, 12, 45],
    ),
    *(
        Case("PypiproxyStoreUnusable", degraded(reason), [10, 24], [9, 25])
        for reason in ("store-not-writable", "store-not-readable", "data-directory-lost")
    ),
    Case("PypiproxyDatabaseUnavailable", degraded("database-unavailable"), [10, 24], [9, 25]),
    Case("PypiproxyRightsUnknown", degraded("rights-unknown"), [7, 24], [6, 25]),
    Case(
        "PypiproxyUpstreamDown",
        {'pypiproxy_upstream_up{instance="a",upstream="pypi"}': steps((1, 5), (0, 10), (1, 5))},
        [10, 14],
        [9, 15],
    ),
    Case(
        "PypiproxyServingStale",
        {'pypiproxy_stale_answers_total{instance="a",reason="upstream-down"}': counter((0, 10), (1, 60), (0, 60))},
        [50, 69],
        [35, 100],
    ),
    Case(
        "PypiproxyOverloaded",
        {'pypiproxy_shed_total{instance="a",reason="max-connections"}': counter((0, 5), (9, 25), (0, 30))},
        [20, 29],
        [12, 40],
    ),
    Case("PypiproxyDiskFull", degraded("disk-full"), [7, 24], [6, 25]),
    Case(
        "PypiproxyDiskFillsSoon",
        {'pypiproxy_disk_free_bytes{instance="a"}': [*(100e9 - 0.1e9 * n for n in range(120)), *steps((88e9, 300))]},
        [90, 119],
        [30, 400],
    ),
    Case(
        "PypiproxyDiskFillsSoon", {'pypiproxy_disk_free_bytes{instance="a"}': [100e9 - 1e7 * n for n in range(300)]}, [], [290]
    ),
    Case("PypiproxyDamage", degraded("damaged-entries"), [5, 24], [4, 25]),
    *(
        Case(
            "PypiproxyDigestChanged",
            {f'pypiproxy_digest_mismatches_total{{instance="a",kind="{kind}"}}': counter((0, 5), (1, 1), (0, 100))},
            [6, 60],
            [4, 70],
        )
        for kind in ("page", "download", "mirror")
    ),
    Case(
        "PypiproxyDigestChanged",
        {'pypiproxy_digest_mismatches_total{instance="a",kind="stored"}': counter((0, 5), (1, 20))},
        [],
        [10, 20],
    ),
    Case(
        "PypiproxyCertificateExpires",
        {'pypiproxy_degraded{instance="a",reason="certificate-expires"}': steps((0, 5), (1, 100), (0, 10))},
        [65, 104],
        [64, 105],
    ),
    *(
        Case("PypiproxyDegraded", degraded(reason), [15, 24], [14, 25])
        for reason in ("commands-unreachable", "credentials-refused", "issuer-down", "secret-not-usable")
    ),
    *(
        Case("PypiproxyDegraded", degraded(reason), [], [20])
        for reason in ("disk-full", "upstream-down", "damaged-entries", "rights-unknown")
    ),
]


def as_promtool_reads_it(case: Case) -> dict[str, Any]:
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    one = [{"labels": "{}", "value": 1}]
    expected = {minute: one if minute in case.fires else [] for minute in (*case.fires, *case.silent)}
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": " ".join(f"{value:.1f}" for value in values)} for name, values in case.series.items()
        ],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{minute}m", "exp_samples": samples} for minute, samples in sorted(expected.items())
        ],
    }


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    test = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [as_promtool_reads_it(each) for each in CASES]}
    file = tmp_path / "alerts.test.yml"  # JSON is YAML
    file.write_text(json.dumps(test), "utf-8")
    promtool("test", "rules", file)


@needs_promtool
def test_the_example_configuration_and_its_rules_are_valid() -> None:
    assert f"{len(alert_rules())} rules found" in promtool("check", "config", EXAMPLE)


def test_every_alert_has_cases_in_which_it_fires() -> None:
    assert {case.alert for case in CASES if case.fires} == {rule.name for rule in alert_rules()}


def test_each_reason_for_being_degraded_has_one_alert() -> None:
    known = {reason.value for reason in Reason}
    found: dict[str, list[str]] = {reason: [] for reason in known}
    found[Reason.UPSTREAM.value].append("PypiproxyUpstreamDown")  # one per upstream
    found[Reason.OVERLOADED.value].append("PypiproxyOverloaded")  # one per kind of limit
    for rule in alert_rules():
        for operator, values in re.findall(r'pypiproxy_degraded\{reason(=|=~|!~)"([^"]+)"\}', rule.expression):
            named = set(values.split("|"))
            assert named <= known, rule.name
            for reason in known - named if operator == "!~" else named:
                found[reason].append(rule.name)
    assert {reason for reason, alerts in found.items() if len(alerts) != 1} == set()


def test_durations_are_scaled_and_other_numbers_are_not() -> None:
    text = "expr: rate(x[1h]) > 24 * 3600 and y[5m]\nfor: 5m\n"
    assert scaled(text, 360) == "expr: rate(x[10000ms]) > 24 * 3600 and y[4000ms]\nfor: 833ms\n"


# -- what belongs to each -----------------------------------------------------------------------------------------------------

PARTS = ("What it means for builds.", "First command.", "What to do.", "When to wake whom.", "It is over when")


def sections(page: str) -> dict[str, str]:
    """Each section of the alerts, by its heading."""
    parts = re.split(r"^##+ (.+)$", page, flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name.startswith("Pypiproxy")}


def test_each_alert_has_a_section_of_the_runbook_and_a_drill_and_there_are_no_others() -> None:
    names = {rule.name for rule in alert_rules()}
    assert set(sections(RUNBOOK.read_text("utf-8"))) == names
    assert set(DRILLS) == names


def test_each_alert_links_its_section() -> None:
    for rule in alert_rules():
        page, _, anchor = rule.runbook.partition("#")
        assert (ROOT / page, anchor) == (RUNBOOK, rule.name.lower())
        assert anchor in anchors(RUNBOOK)


def test_each_section_says_what_it_means_what_to_do_whom_to_wake_and_how_it_ends() -> None:
    for name, text in sections(RUNBOOK.read_text("utf-8")).items():
        assert [text.count(f"**{part}") for part in PARTS] == [1] * len(PARTS), name
        places = [text.index(f"**{part}") for part in PARTS]
        assert places == sorted(places), name
        assert "```console\n" in text.partition("**First command.")[2].partition("**What to do.")[0], name


def test_whether_an_alert_wakes_somebody_is_said_in_its_section_as_in_its_rule() -> None:
    found = sections(RUNBOOK.read_text("utf-8"))
    for rule in alert_rules():
        assert rule.severity in ("critical", "warning")
        assert f"`{rule.severity}`" in found[rule.name], rule.name


def test_most_commands_of_the_runbook_are_run_by_the_tests_of_pages() -> None:
    run = [block for block in blocks(RUNBOOK) if block.not_run is None]
    assert len(run) >= 10


# -- names --------------------------------------------------------------------------------------------------------------------

SERIES = {f"{each.full_name}{end}" for each in DEFINITIONS for end in ("", "_bucket", "_sum", "_count")}
PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")


@pytest.mark.parametrize("path", [RULES, DASHBOARD, RUNBOOK], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"\b(?:pypiproxy|process)_[a-z_]+\b", path.read_text("utf-8")))
    assert {each for each in named if each not in SERIES and f"`{each}`" not in PAGE} == set()


# -- the dashboard ------------------------------------------------------------------------------------------------------------


@needs_promtool
def test_every_query_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    queries = list(dashboard_queries())
    rules = [{"record": f"query:number{number}", "expr": query} for number, (_, query) in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    assert f"{len(queries)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert board["id"] is None  # Grafana gives it one
    assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "instance"}
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            assert panel["fieldConfig"]["defaults"]["unit"]

"""Events: what is recorded of what happens, and what is told of that."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from proxy.core.events import (
    AccessRefused,
    Answered,
    Event,
    Evicted,
    Incident,
    Notice,
    ReactorLagged,
    RefusalReason,
    RequestPlace,
    RouteLabel,
    Shed,
    ShedReason,
    StaleAnswered,
    StaleReason,
    UpstreamAnswered,
    UpstreamEnded,
    UpstreamReceived,
    UpstreamResult,
)
from proxy.interfaces import IRecorder
from proxy.statistics.address_labels import MOST
from proxy.statistics.definitions import DEFINITIONS, DISK_FREE, DOWNLOADS
from proxy.statistics.metrics import Figure, Metrics
from proxy.statistics.recorders import UNRECORDED, MemoryRecorder
from tests.support import metrics_page

EVENTS: tuple[Event, ...] = (
    *(Notice(incident, "pypi", "six", "six-1.0.tar.gz") for incident in Incident),
    Notice(Incident.DATABASE_SET_ASIDE),
    Evicted(100),
    *map(Shed, ShedReason),
    Answered("GET", 200, 5, 0.1, "hit", RequestPlace("pypi", "simple", RouteLabel.PAGE), 0.05),
    Answered("GET", 200, 7, 0.0, "hit", RequestPlace("pypi", "simple", RouteLabel.PAGE)),
    Answered("GET", 0, 0, 70.0, "-", RequestPlace("pypi", "files", RouteLabel.FILE), None),
    Answered("GET", 200, 9, 0.1, "warm", RequestPlace("pypi", None, RouteLabel.PAGE)),
    Answered("BREW", 400, 0, 0.0, "bad-request", None),
    *map(StaleAnswered, StaleReason),
    *map(AccessRefused, RefusalReason),
    *(UpstreamAnswered("pypi", "192.0.2.1", result, None) for result in UpstreamResult),
    UpstreamAnswered("pypi", None, UpstreamResult.OK, 0.3),
    UpstreamEnded("pypi", "192.0.2.1", 1.5),
    UpstreamReceived("pypi", 1_000),
    ReactorLagged(0.25),
)


@pytest.mark.parametrize("recorder", [Metrics(), MemoryRecorder(), UNRECORDED], ids=lambda each: type(each).__name__)
def test_every_recorder_takes_every_event(recorder: IRecorder) -> None:
    assert IRecorder.providedBy(recorder)
    for event in EVENTS:
        recorder.record(event)


def test_the_recorder_for_tests_keeps_events_in_order() -> None:
    recorder = MemoryRecorder()
    for event in EVENTS:
        recorder.record(event)
    assert recorder.events == list(EVENTS)


def test_metrics_count_incidents_by_name_and_evicted_bytes() -> None:
    metrics = Metrics()
    for event in (*EVENTS, Evicted(11)):
        metrics.record(event)
    _, exposition = metrics.exposition()
    for incident in Incident:
        times = 2 if incident is Incident.DATABASE_SET_ASIDE else 1
        assert f'pypiproxy_events_total{{event="{incident.value}"}} {times}.0\n'.encode() in exposition
    assert b"pypiproxy_evicted_files_total 2.0\n" in exposition
    assert b"pypiproxy_evicted_bytes_total 111.0\n" in exposition
    for name, reasons in (("shed", ShedReason), ("stale_answers", StaleReason), ("access_refusals", RefusalReason)):
        for reason in reasons:
            assert f'pypiproxy_{name}_total{{reason="{reason.value}"}} 1.0\n'.encode() in exposition


def test_metrics_count_answers_by_outcome_and_by_index() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    assert metrics.answers() == {"pypi": {"files": {"-": 1}, "simple": {"hit": 2}}}
    assert metrics.saved() == 12
    exposition = metrics.exposition()[1].decode()
    for line in (
        'requests_total{cache="hit",index="pypi",route="page",status="200"} 2.0',
        'requests_total{cache="bad-request",index="",route="none",status="400"} 1.0',
        'requests_total{cache="warm",index="pypi",route="page",status="200"} 1.0',
        "sent_bytes_total 21.0",
        "saved_bytes_total 12.0",
        "saved_requests_total 2.0",
    ):
        assert f"\npypiproxy_{line}\n" in exposition


def test_no_metric_names_a_project_or_a_file() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    assert b"six" not in metrics.exposition()[1]


def test_the_documentation_lists_every_metric_and_event() -> None:
    assert metrics_page.PAGE.read_text("utf-8") == metrics_page.page(), "run python -m tests.support.metrics_page"


def test_metrics_time_answers_and_upstreams() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    exposition = metrics.exposition()[1].decode()
    for line in (
        # A hot answer takes no time; one that never began has no first byte.
        'request_seconds_bucket{le="0.001",route="page"} 1.0',
        'request_seconds_bucket{le="0.1",route="page"} 3.0',
        'request_seconds_bucket{le="60.0",route="file"} 0.0',
        'request_seconds_count{route="file"} 1.0',
        'request_seconds_sum{route="file"} 70.0',
        'first_byte_seconds_bucket{le="0.1",route="page"} 3.0',
        'first_byte_seconds_count{route="file"} 0.0',
        *(
            f'upstream_requests_total{{address="192.0.2.1",result="{result.value}",upstream="pypi"}} 1.0'
            for result in UpstreamResult
        ),
        'upstream_first_byte_seconds_sum{address="-",upstream="pypi"} 0.3',
        'upstream_request_seconds_count{address="192.0.2.1",upstream="pypi"} 1.0',
        'received_bytes_total{upstream="pypi"} 1000.0',
        "reactor_lag_seconds 0.25",
        'reactor_delay_seconds_bucket{le="0.5"} 1.0',
        'digest_mismatches_total{kind="mirror"} 2.0',
    ):
        assert f"\npypiproxy_{line}\n" in exposition, line


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 30_000)), max_size=400))
def test_an_upstream_has_few_addresses_however_many_it_uses(uses: list[tuple[int, float]]) -> None:
    clock = _Clock()
    metrics = Metrics(clock)
    for address, pause in uses:
        clock.now += pause
        metrics.record(UpstreamAnswered("pypi", f"2001:db8::{address:x}", UpstreamResult.OK, 0.1))
        metrics.record(UpstreamEnded("pypi", f"2001:db8::{address:x}", 0.1))
    exposition = metrics.exposition()[1].decode()
    for name in ("upstream_requests_total", "upstream_request_seconds_count", "upstream_first_byte_seconds_count"):
        assert len(re.findall(rf'^pypiproxy_{name}{{address="2001', exposition, re.MULTILINE)) <= MOST
    counted = re.findall(r'^pypiproxy_upstream_requests_total{address="other".* (.*)$', exposition, re.MULTILINE)
    assert bool(counted) <= (len({address for address, _ in uses}) > MOST)


def test_an_address_that_is_not_used_for_a_day_gives_its_label_to_a_new_one() -> None:
    clock = _Clock()
    metrics = Metrics(clock)
    labels = [metrics.address_label("pypi", f"192.0.2.{number}") for number in range(MOST + 1)]
    assert labels == [*(f"192.0.2.{number}" for number in range(MOST)), "other"]
    metrics.record(UpstreamAnswered("pypi", "192.0.2.0", UpstreamResult.OK, 0.1))
    clock.now = 40_000.0
    assert metrics.address_label("pypi", "192.0.2.1") == "192.0.2.1"
    clock.now = 86_400.0
    metrics.record(UpstreamAnswered("pypi", "198.51.100.1", UpstreamResult.OK, 0.1))
    exposition = metrics.exposition()[1].decode()
    assert 'address="198.51.100.1"' in exposition
    assert 'address="192.0.2.0"' not in exposition
    assert metrics.address_label("pypi", "192.0.2.1") == "192.0.2.1"


def test_figures_that_cannot_be_read_leave_the_others() -> None:
    metrics = Metrics()

    def broken() -> Iterator[Figure]:
        yield DOWNLOADS, (), 3
        raise RuntimeError("out of order")

    metrics.watch(broken)
    metrics.watch(lambda: [(DISK_FREE, (), 17)])
    exposition = metrics.exposition()[1]
    assert b"\npypiproxy_downloads 3.0\n" in exposition
    assert b"\npypiproxy_disk_free_bytes 17.0\n" in exposition


def test_open_metrics_are_for_those_who_accept_them_whatever_else_they_write() -> None:
    metrics = Metrics()
    plain = "text/plain; version=0.0.4; charset=utf-8"
    open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    for accept, media in (
        ("", plain),
        ("*/*", plain),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", open_metrics),
        ("application/openmetrics-text;version=9.9<script>;escaping=allow-utf-8", open_metrics),
        ("application/openmetrics-text;q=0,text/plain", plain),
    ):
        found, body = metrics.exposition(accept)
        assert found.startswith(media)
        assert "script" not in found
        assert body.endswith(b"# EOF\n") is (media is open_metrics)
    families = {each.name: each for each in openmetrics_families(metrics.exposition(open_metrics)[1].decode())}
    assert "pypiproxy_requests" in families
    assert "warm: a request" in families["pypiproxy_requests"].documentation.splitlines()[2]


def test_every_definition_is_exposed_once_it_has_a_value() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    exposed = {each.name for each in text_string_to_metric_families(metrics.exposition()[1].decode())}
    gauges = {f"pypiproxy_{each.name}" for each in DEFINITIONS if each.kind == "gauge"}
    assert {f"pypiproxy_{each.name}" for each in DEFINITIONS} - gauges <= exposed
    assert {each for each in exposed if each.startswith("pypiproxy_")} <= {f"pypiproxy_{each.name}" for each in DEFINITIONS}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (make system-packages)")
def test_promtool_has_nothing_to_say() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    checked = subprocess.run(["promtool", "check", "metrics"], input=metrics.exposition()[1], capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")

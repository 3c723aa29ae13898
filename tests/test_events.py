"""Events: what is recorded of what happens, and what is told of that."""

from __future__ import annotations

import pytest

from proxy.core.events import Answered, Event, Evicted, Incident, Notice, RequestPlace, Shed, ShedReason
from proxy.interfaces import IRecorder
from proxy.statistics.metrics import Metrics
from proxy.statistics.recorders import UNRECORDED, MemoryRecorder
from tests.support import metrics_page

EVENTS: tuple[Event, ...] = (
    *(Notice(incident, "pypi", "six", "six-1.0.tar.gz") for incident in Incident),
    Notice(Incident.DATABASE_SET_ASIDE),
    Evicted(100),
    *map(Shed, ShedReason),
    Answered("GET", 200, 5, 0.1, "hit", RequestPlace("pypi", "simple")),
    Answered("BREW", 400, 0, 0.0, "bad-request", None),
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
    for reason in ShedReason:
        assert f'pypiproxy_shed_total{{reason="{reason.value}"}} 1.0\n'.encode() in exposition


def test_metrics_count_answers_by_outcome_and_by_index() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    assert metrics.answers() == {"pypi": {"simple": {"hit": 1}}}
    _, exposition = metrics.exposition()
    assert b'pypiproxy_requests_total{cache="hit",method="GET",status="200"} 1.0\n' in exposition
    assert b'pypiproxy_requests_total{cache="bad-request",method="other",status="400"} 1.0\n' in exposition
    assert b"pypiproxy_sent_bytes_total 5.0\n" in exposition


def test_no_metric_names_a_project_or_a_file() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.record(event)
    assert b"six" not in metrics.exposition()[1]


def test_the_documentation_lists_every_metric_and_event() -> None:
    assert metrics_page.PAGE.read_text("utf-8") == metrics_page.page(), "run python -m tests.support.metrics_page"

"""An exposition: what is sent to Prometheus, made of a snapshot of all figures.

It is imported by the first scrape: prometheus_client takes a while to load, and many services are never scraped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from proxy.simple.media import names
from proxy.statistics import definitions as d
from proxy.statistics.tallies import Buckets, Labels, Snapshot

_OPEN_METRICS = "application/openmetrics-text"
_LIMITS = (*map(floatToGoString, d.BUCKETS), "+Inf")


def exposition_of(snapshot: Snapshot, accept: str) -> tuple[str, bytes]:
    """Content type and body: Prometheus' text format, or OpenMetrics for who names it in the header *accept*.

    It takes milliseconds for some hundred series, so call it in a worker thread.
    """
    # No text of a client reaches the encoder, which would repeat the version that is asked for.
    encode, media = choose_encoder(f"{_OPEN_METRICS}; version=1.0.0" if names(accept, _OPEN_METRICS) else "")
    return media, encode(_Families(snapshot))


class _Families(Collector):
    """Those of *snapshot*, and those of the process as it is when they are collected."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._of_the_process = CollectorRegistry()
        ProcessCollector(registry=self._of_the_process)
        GCCollector(registry=self._of_the_process)

    def collect(self) -> Iterator[Metric]:
        """All families."""
        answered = self._snapshot.answered
        figures = {**self._snapshot.figures, d.REQUESTS: answered.by_outcome()}
        whole, first = answered.times()
        times = {**self._snapshot.times, d.REQUEST_SECONDS: whole, d.FIRST_BYTE_SECONDS: first}
        for definition in d.DEFINITIONS:
            if definition in figures:
                yield _plain(definition, figures[definition])
            elif definition in times:
                yield _histogram(definition, times[definition])
        yield from self._of_the_process.collect()


def _family(definition: d.Definition) -> Metric:
    """An empty family for *definition*."""
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    made: Metric = kinds[definition.kind](f"pypiproxy_{definition.name}", definition.meaning, labels=definition.labels)
    return made


def _plain(definition: d.Definition, values: Mapping[Labels, float]) -> Metric:
    """The family of a counter or a gauge with these *values*."""
    made = _family(definition)
    assert isinstance(made, CounterMetricFamily | GaugeMetricFamily)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def _histogram(definition: d.Definition, buckets: Mapping[Labels, Buckets]) -> Metric:
    """The family of a histogram."""
    made = _family(definition)
    assert isinstance(made, HistogramMetricFamily)
    for labels, each in buckets.items():
        made.add_metric(labels, list(zip(_LIMITS, map(float, accumulate(each.counts)), strict=True)), each.sum)
    return made

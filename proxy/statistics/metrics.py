"""Counters for Prometheus: requests by outcome, bytes, and everything worth a look that should stay at zero."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from zope.interface import implementer

from proxy.core.cache_status import FROM_CACHE
from proxy.core.events import Answered, Event, Evicted, Notice, Shed, ShedReason
from proxy.core.troubles import Reason, Trouble
from proxy.interfaces import IRecorder


@implementer(IRecorder)
class Metrics:
    """All metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "pypiproxy_requests",
            "Requests answered; the cache status of those of pypiproxy warm on the same machine is warm.",
            ["method", "status", "cache"],
            registry=self.registry,
        )
        #: Plain numbers that are added to the counters before these are shown: a hot page is answered in microseconds.
        self._by_kind: Counts[tuple[str, int, str]] = Counts()
        self._more_bytes = 0
        self._bytes = Counter("pypiproxy_sent_bytes", "Body bytes sent to clients.", registry=self.registry)
        self._seconds = Histogram(
            "pypiproxy_request_seconds",
            "Time from a request to the end of its response.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
        )
        self._events = Counter("pypiproxy_events", "Things worth a look, by name.", ["event"], registry=self.registry)
        self._degraded = Gauge(
            "pypiproxy_degraded",
            "Whether this is wrong now (/-/ready says more).",
            ["reason"],
            registry=self.registry,
        )
        self.degraded(())
        self._evicted_files = Counter("pypiproxy_evicted_files", "Files evicted to make room.", registry=self.registry)
        self._evicted_bytes = Counter("pypiproxy_evicted_bytes", "Bytes of files evicted to make room.", registry=self.registry)
        self._shed = Counter(
            "pypiproxy_shed", "Requests refused because of an overload (503), by reason.", ["reason"], registry=self.registry
        )
        for reason in ShedReason:
            self._shed.labels(reason.value)
        self._answers: Counts[tuple[str, str, str]] = Counts()
        #: Body bytes by index, area and cache status.
        self._sent: Counts[tuple[str, str, str]] = Counts()
        self.in_progress = Gauge("pypiproxy_responses_in_progress", "Responses under way.", registry=self.registry)

    def answers(self) -> dict[str, dict[str, dict[str, int]]]:
        """How many answers of each cache status there were, by index and area."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for (index, area, word), count in sorted(self._answers.items()):
            found.setdefault(index, {}).setdefault(area, {})[word] = count
        return found

    def saved(self) -> int:
        """Body bytes that clients were sent from the cache, without waiting for upstream."""
        return sum(size for (_, _, word), size in self._sent.items() if word in FROM_CACHE)

    def record(self, event: Event) -> None:
        match event:
            case Answered():
                method, status, size, seconds, word, place = event
                self._by_kind[method if method in ("GET", "HEAD") else "other", status, word] += 1
                self._more_bytes += size
                self._seconds.observe(seconds)
                if place is not None:
                    self._answers[place.index, place.area, word] += 1
                    self._sent[place.index, place.area, word] += size
            case Notice():
                self._events.labels(event.incident.value).inc()
            case Evicted():
                self._evicted_files.inc()
                self._evicted_bytes.inc(event.size)
            case Shed():
                self._shed.labels(event.reason.value).inc()

    def degraded(self, troubles: Sequence[Trouble]) -> None:
        """Note what is wrong now."""
        wrong = {each.reason for each in troubles}
        for reason in Reason:
            self._degraded.labels(reason.value).set(reason in wrong)

    def exposition(self) -> tuple[str, bytes]:
        """Content type and body in Prometheus' text format."""
        for (method, status, word), count in self._by_kind.items():
            self._requests.labels(method, str(status), word).inc(count)
        self._by_kind.clear()
        self._bytes.inc(self._more_bytes)
        self._more_bytes = 0
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry)

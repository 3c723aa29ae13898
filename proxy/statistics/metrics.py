"""Figures for Prometheus, made of events and of what is read at each scrape.

Theory of operation.  What happens is counted in plain numbers (:mod:`proxy.statistics.tallies`); what is as it is, such as the
length of a queue, is read when somebody asks, from *sources* that answer at once from what is in memory.  So a scrape takes
milliseconds, whatever the proxy does and however much it has stored.
"""

from __future__ import annotations

import platform
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import proxy
import twisted
from proxy.core.cache_status import FROM_CACHE
from proxy.core.events import (
    AccessRefused,
    Answered,
    Event,
    Evicted,
    Incident,
    Notice,
    ReactorLagged,
    Shed,
    StaleAnswered,
    UpstreamAnswered,
    UpstreamEnded,
    UpstreamReceived,
)
from proxy.core.troubles import Reason, Trouble
from proxy.interfaces import IRecorder
from proxy.statistics import definitions as d
from proxy.statistics.address_labels import AddressLabels
from proxy.statistics.tallies import AnswerTally, CounterSeries, Histogram, Labels, Snapshot

#: One figure of now.
Figure = tuple[d.Definition, Labels, float]
#: Reads figures of now from memory, in the reactor's thread.
FigureSource = Callable[[], Iterable[Figure]]

_COUNTERS = (
    d.UPSTREAM_REQUESTS,
    d.RECEIVED_BYTES,
    d.STALE_ANSWERS,
    d.ACCESS_REFUSALS,
    d.DIGEST_MISMATCHES,
    d.EVENTS,
    d.EVICTED_FILES,
    d.EVICTED_BYTES,
    d.SHED,
)
_HISTOGRAMS = (d.UPSTREAM_SECONDS, d.UPSTREAM_FIRST_BYTE_SECONDS, d.REACTOR_DELAY)
#: Which incidents are about wrong bytes or digests.
_WRONG: Mapping[Incident, d.DigestKind] = {
    Incident.CHANGED_DIGEST: d.DigestKind.PAGE,
    Incident.WRONG_BYTES: d.DigestKind.DOWNLOAD,
    Incident.FILE_DAMAGED: d.DigestKind.STORED,
    Incident.MIRROR_WITH_OTHER_DIGESTS: d.DigestKind.MIRROR,
    Incident.MIRROR_WITH_OTHER_BYTES: d.DigestKind.MIRROR,
}


@implementer(IRecorder)
class Metrics:
    """All metrics of one service.  *clock* is steady, in seconds."""

    log = Logger()

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._answered = AnswerTally()
        self._tallies = {each: CounterSeries(each) for each in _COUNTERS}
        self._histograms = {each: Histogram(each) for each in _HISTOGRAMS}
        self._addresses: dict[str, AddressLabels] = {}
        self._wrong: frozenset[Reason] = frozenset()
        self._lag: float | None = None
        self._sources: list[FigureSource] = [self._own]

    def watch(self, source: FigureSource) -> None:
        """Ask *source* for its figures at each scrape."""
        self._sources.append(source)

    def answers(self) -> dict[str, dict[str, dict[str, int]]]:
        """How many answers of each cache status there were, by index and area."""
        found: dict[tuple[str, str, str], int] = Counts()
        for (place, _, word), cell in self._answered.cells.items():
            if place is not None and place.index_name is not None and place.area is not None:
                found[place.index_name, place.area, word] += cell.count
        nested: dict[str, dict[str, dict[str, int]]] = {}
        for (index, area, word), count in sorted(found.items()):
            nested.setdefault(index, {}).setdefault(area, {})[word] = count
        return nested

    def saved(self) -> int:
        """Body bytes that clients were sent from the cache, without waiting for upstream."""
        return self._saved()[1]

    def record(self, event: Event) -> None:
        match event:
            case Answered():
                self._answered.add(event)
            case UpstreamReceived(upstream, size):
                self._tallies[d.RECEIVED_BYTES].add(upstream, by=size)
            case UpstreamAnswered(upstream, address, result, first_byte):
                label = self.address_label(upstream, address)
                self._tallies[d.UPSTREAM_REQUESTS].add(upstream, label, result.value)
                if first_byte is not None:
                    self._histograms[d.UPSTREAM_FIRST_BYTE_SECONDS].observe(first_byte, upstream, label)
            case UpstreamEnded(upstream, address, seconds):
                self._histograms[d.UPSTREAM_SECONDS].observe(seconds, upstream, self.address_label(upstream, address))
            case Notice(incident):
                self._tallies[d.EVENTS].add(incident.value)
                if (wrong := _WRONG.get(incident)) is not None:
                    self._tallies[d.DIGEST_MISMATCHES].add(wrong.value)
            case Evicted(size):
                self._tallies[d.EVICTED_FILES].add()
                self._tallies[d.EVICTED_BYTES].add(by=size)
            case ReactorLagged(seconds):
                self._lag = seconds
                self._histograms[d.REACTOR_DELAY].observe(seconds)
            case StaleAnswered(reason):
                self._tallies[d.STALE_ANSWERS].add(reason.value)
            case AccessRefused(reason):
                self._tallies[d.ACCESS_REFUSALS].add(reason.value)
            case Shed(reason):
                self._tallies[d.SHED].add(reason.value)

    def degraded(self, troubles: Sequence[Trouble]) -> None:
        """Note what is wrong now."""
        self._wrong = frozenset(each.reason for each in troubles)

    def snapshot(self) -> Snapshot:
        """All figures of our own as they are now: a copy, of which an exposition can be made in any thread."""
        figures: dict[d.Definition, dict[Labels, float]] = {
            each.definition: {**each.counts()} for each in self._tallies.values()
        }
        for source in self._sources:
            try:
                for definition, labels, value in source():
                    figures.setdefault(definition, {})[labels] = value
            except Exception:  # noqa: BLE001  # whatever it is, the other figures are worth having
                self.log.failure("figures cannot be read for /-/metrics", Failure())
        times = {each.definition: each.buckets() for each in self._histograms.values()}
        return Snapshot(self._answered.copy(), figures, times)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body of an exposition, now (see :func:`proxy.statistics.exposition.exposition_of`)."""
        from proxy.statistics.exposition import exposition_of  # which is for who asks

        return exposition_of(self.snapshot(), accept)

    def _own(self) -> Iterator[Figure]:
        yield d.BUILD_INFO, (proxy.__version__, platform.python_version(), twisted.__version__), 1
        yield from ((d.DEGRADED, (reason.value,), reason in self._wrong) for reason in Reason)
        if self._lag is not None:
            yield d.REACTOR_LAG, (), self._lag
        requests, size = self._saved()
        yield d.SAVED_REQUESTS, (), requests
        yield d.SAVED_BYTES, (), size
        yield d.SENT_BYTES, (), sum(each.size for each in self._answered.cells.values())

    def _saved(self) -> tuple[int, int]:
        """Requests, and body bytes, that were answered without waiting for upstream."""
        cells = [
            cell
            for (place, _, word), cell in self._answered.cells.items()
            if word in FROM_CACHE and place is not None and place.area is not None
        ]
        return sum(each.count for each in cells), sum(each.size for each in cells)

    def address_label(self, upstream: str, address: str | None) -> str:
        """The label of *address* of *upstream*, which is used now (:mod:`proxy.statistics.address_labels`)."""
        label, forgotten = self._addresses.setdefault(upstream, AddressLabels()).label(address, self._clock())
        if forgotten is not None:
            self._tallies[d.UPSTREAM_REQUESTS].forget((upstream, forgotten))
            for each in (d.UPSTREAM_SECONDS, d.UPSTREAM_FIRST_BYTE_SECONDS):
                self._histograms[each].forget((upstream, forgotten))
        return label

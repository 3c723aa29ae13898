"""What is counted between two scrapes: plain numbers, for a hot request is answered in microseconds.

prometheus_client's own counters and histograms take a lock and several calls each time; here a count is a dictionary look-up
and an addition, and :mod:`proxy.statistics.exposition` makes families of prometheus_client of the numbers when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from threading import Lock

from msgspec import Struct

from proxy.core.events import Answered, RequestPlace, RouteLabel
from proxy.statistics.definitions import BUCKETS, Definition

#: Values of the labels of one series, in the order of its definition.
Labels = tuple[str, ...]


def _present_from_the_start(definition: Definition) -> Iterable[Labels]:
    """The labels of the series that there are before anything is counted."""
    if not definition.labels:
        return [()]
    return [] if definition.values is None else [(each.value,) for each in definition.values]


class CounterSeries:
    """The counts of one counter, by labels.  It may be added to in any thread."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._lock = Lock()
        self._counts: dict[Labels, int] = dict.fromkeys(_present_from_the_start(definition), 0)

    def add(self, *labels: str, by: int = 1) -> None:
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + by

    def forget(self, labels: Labels) -> None:
        """Drop the series that begin with *labels*."""
        with self._lock:
            self._counts = {key: count for key, count in self._counts.items() if key[: len(labels)] != labels}

    def counts(self) -> dict[Labels, int]:
        """A copy of the counts."""
        with self._lock:
            return dict(self._counts)


class Buckets:
    """How often something took how long."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        #: By bucket, not added up; the last is for what is longer than all limits.
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def copy(self) -> Buckets:
        """As it is now."""
        copied = Buckets()
        copied.counts, copied.sum = self.counts[:], self.sum
        return copied

    def merge(self, other: Buckets, instant: int = 0) -> None:
        """Add *other*, and *instant* times that took no time."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.counts[0] += instant
        self.sum += other.sum


class Histogram:
    """The times of one histogram, by labels.  For the reactor's thread."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._buckets: dict[Labels, Buckets] = {} if definition.labels else {(): Buckets()}

    def observe(self, seconds: float, *labels: str) -> None:
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets = self._buckets[labels] = Buckets()
        buckets.observe(seconds)

    def forget(self, labels: Labels) -> None:
        """Drop the series with *labels*."""
        self._buckets.pop(labels, None)

    def buckets(self) -> dict[Labels, Buckets]:
        """A copy of the buckets."""
        return {labels: each.copy() for labels, each in self._buckets.items()}


class AnswerCell:
    """The answers with one place, status and cache status."""

    __slots__ = ("first", "instant", "seconds", "size")

    def __init__(self) -> None:
        #: Hot answers: as far as anybody can tell, they take no time.
        self.instant = 0
        self.size = 0
        self.seconds = Buckets()
        self.first = Buckets()

    def copy(self) -> AnswerCell:
        """As it is now."""
        copied = AnswerCell()
        copied.instant, copied.size = self.instant, self.size
        copied.seconds, copied.first = self.seconds.copy(), self.first.copy()
        return copied

    @property
    def count(self) -> int:
        return self.instant + sum(self.seconds.counts)


#: Place, status and cache status.
CellKey = tuple[RequestPlace | None, int, str]


class AnswerTally:
    """All answers.  For the reactor's thread."""

    def __init__(self) -> None:
        self.cells: dict[CellKey, AnswerCell] = {}

    def add(self, event: Answered) -> None:
        _, status, size, seconds, word, place, first_byte = event
        cell = self.cells.get((place, status, word))
        if cell is None:
            cell = self.cells[place, status, word] = AnswerCell()
        cell.size += size
        if seconds == 0.0:
            cell.instant += 1
            return
        cell.seconds.observe(seconds)
        if first_byte is not None:
            cell.first.observe(first_byte)

    def copy(self) -> AnswerTally:
        """As it is now."""
        copied = AnswerTally()
        copied.cells = {key: each.copy() for key, each in self.cells.items()}
        return copied

    def by_outcome(self) -> Mapping[Labels, int]:
        """How many there were, by route, index, status and cache status."""
        counts: dict[Labels, int] = {}
        for (place, status, word), cell in self.cells.items():
            route, index = (RouteLabel.NONE, None) if place is None else (place.route, place.index_name)
            key = (route.value, index or "", str(status), word)
            counts[key] = counts.get(key, 0) + cell.count
        return counts

    def times(self) -> tuple[Mapping[Labels, Buckets], Mapping[Labels, Buckets]]:
        """To the end, and to the first byte, by route."""
        whole: dict[Labels, Buckets] = {}
        first: dict[Labels, Buckets] = {}
        for (place, _, _), cell in self.cells.items():
            key = ((RouteLabel.NONE if place is None else place.route).value,)
            whole.setdefault(key, Buckets()).merge(cell.seconds, cell.instant)
            first.setdefault(key, Buckets()).merge(cell.first, cell.instant)
        return whole, first


class Snapshot(Struct, frozen=True):
    """All figures at one moment, besides those of the process."""

    answered: AnswerTally
    figures: Mapping[Definition, Mapping[Labels, float]]
    times: Mapping[Definition, Mapping[Labels, Buckets]]

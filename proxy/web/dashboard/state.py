"""What the dashboard shows of the service: plain values, gathered once for all who look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from proxy.core.figures import Bucket, Resolution, Sums
from proxy.core.troubles import Trouble
from proxy.statistics.problems import RecentProblem
from proxy.upstream.pool.upstream import UpstreamState


class DownloadState(Struct, frozen=True):
    """A file that is being downloaded: *arrived* bytes of *size*, ``None`` while that is not known."""

    index: str
    project: str
    filename: str
    arrived: int
    size: int | None


class SpaceState(Struct, frozen=True):
    """The store (bytes, and the number of its files) and its file system; ``None`` is what is not known or not limited."""

    stored: int | None = None
    files: int | None = None
    limit: int | None = None
    free: int | None = None


class HourFigures(Struct, frozen=True):
    """What was answered in the hour that began at *start* (seconds since 1970)."""

    start: int
    total: Sums


class DashboardState(Struct, frozen=True):
    """Everything at one moment, *taken* then (seconds since 1970).

    *hours* are the last ones, the present one last; *day* has the figures of all of them together.  *upstreams* are given with
    the name of their index.
    """

    taken: float
    ready: bool
    troubles: Sequence[Trouble]
    upstreams: Sequence[tuple[str, UpstreamState]]
    downloads: Sequence[DownloadState]
    space: SpaceState
    hours: Sequence[HourFigures]
    day: Bucket
    problems: Sequence[RecentProblem]


class StateSources(Struct, frozen=True):
    """Where the parts of a :class:`DashboardState` are read, from memory and without waiting."""

    upstreams: Callable[[], Sequence[tuple[str, UpstreamState]]]
    downloads: Callable[[], Sequence[DownloadState]]
    space: Callable[[], SpaceState]


#: Of a service that has nothing to show yet.
NO_FIGURES = Bucket(Resolution.DAY)

"""Gathers what the dashboard shows: once per second at the most, whoever looks, and not at all while nobody does.

What is in memory (upstreams, downloads, space) is read each time.  What has to be examined or added up (troubles, figures) is
read again only when it is older than a few seconds; the figures of an hour that is over are read once.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from proxy.core.figures import Bucket, Resolution, Sums
from proxy.core.troubles import Trouble
from proxy.interfaces import Clock
from proxy.mechanism.flight import Flights, uninterrupted
from proxy.mechanism.patience import within
from proxy.statistics.book import StatisticsBook
from proxy.statistics.problems import RecentProblem
from proxy.statistics.report import FigureReport
from proxy.web.dashboard.state import NO_FIGURES, DashboardState, HourFigures, StateSources
from proxy.web.operations import Health

#: Hours that the plots show.
HOURS = 24
#: How old each part may be (seconds).
_STATE_FOR, _TROUBLES_FOR, _FIGURES_FOR, _DAY_FOR = 0.9, 10.0, 5.0, 60.0
#: How long figures are waited for (seconds).
_PATIENCE = 1.0
#: Once an hour is over for so long, nothing is added to it (seconds).
_SETTLED_AFTER = 120.0


class StateGatherer:
    """Reads *sources*, *health* and *book*.  *clock* tells the wall time."""

    def __init__(
        self, sources: StateSources, health: Health, book: StatisticsBook, reactor: IReactorTime, clock: Clock
    ) -> None:
        self._sources = sources
        self._health = health
        self._book = book
        self._reactor = reactor
        self._clock = clock
        self._gathering: Flights[DashboardState] = Flights()
        self._adding_up: Flights[None] = Flights()
        self._state: DashboardState | None = None
        self._read_at: dict[str, float] = {}
        self._settled: dict[int, Sums] = {}
        self._troubles: Sequence[Trouble] = ()
        self._hours: Sequence[HourFigures] = ()
        self._problems: Sequence[RecentProblem] = ()
        self._day: Bucket = NO_FIGURES

    async def state(self) -> DashboardState:
        """How everything stands, as it was less than a second ago."""
        if self._state is None or self._is_older("state", _STATE_FOR):
            return await self._gathering.join("state", self._gathered)
        return self._state

    async def newest(self) -> DashboardState:
        """How everything stands now: what is wrong is examined again."""
        self._read_at.pop("troubles", None)
        self._read_at.pop("state", None)
        return await self.state()

    def close(self) -> None:
        """Give up what is being gathered."""
        self._gathering.close()
        self._adding_up.close()

    def _is_older(self, part: str, age: float) -> bool:
        read = self._read_at.get(part)
        return read is None or self._reactor.seconds() - read >= age

    def _was_read(self, part: str) -> None:
        self._read_at[part] = self._reactor.seconds()

    async def _gathered(self) -> DashboardState:
        now = self._clock()
        if self._is_older("troubles", _TROUBLES_FOR):
            self._troubles = tuple(await self._health.look())
            self._was_read("troubles")
        # The database of figures may be on a disk that does not answer; what stands now is shown all the same.
        await within(_PATIENCE, self._adding_up.join("figures", lambda: self._add_up(now)), self._reactor)
        state = self._state = DashboardState(
            taken=now,
            ready=self._health.is_ready(),
            troubles=self._troubles,
            upstreams=self._sources.upstreams(),
            downloads=self._sources.downloads(),
            space=self._sources.space(),
            hours=self._hours,
            day=self._day,
            problems=self._problems,
        )
        self._was_read("state")
        return state

    async def _add_up(self, now: float) -> None:
        if self._is_older("figures", _FIGURES_FOR):
            self._hours = await self._read_hours(now)
            self._problems = await uninterrupted(self._book.problems())
            self._was_read("figures")
        if self._is_older("day", _DAY_FOR):
            self._day = await uninterrupted(self._book.figures(now - HOURS * Resolution.HOUR.seconds, now))
            self._was_read("day")

    async def _read_hours(self, now: float) -> Sequence[HourFigures]:
        length = Resolution.HOUR.seconds
        present = Resolution.HOUR.start(now)
        starts = [present - length * back for back in reversed(range(HOURS))]
        found = []
        for start in starts:
            total = self._settled.get(start)
            if total is None:
                total = FigureReport(await uninterrupted(self._book.figures(start, start + length))).total()
                if start + length + _SETTLED_AFTER <= now:
                    self._settled[start] = total
            found.append(HourFigures(start, total))
        for start in [each for each in self._settled if each < starts[0]]:
            del self._settled[start]
        return found

"""What operators ask of statistics: sums and tables of the last hours or days, what is worth doing, and what went wrong."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.core.figures import Dimension, Resolution
from proxy.errors import BadRequest
from proxy.interfaces import Clock, Report
from proxy.mechanism.flight import uninterrupted
from proxy.statistics.book import StatisticsBook
from proxy.statistics.problems import of_every_kind
from proxy.statistics.report import FigureReport

#: How far back figures go (seconds).
_FARTHEST = Resolution.DAY.kept
_TABLES = {each.value: each for each in Dimension}


class Evaluating:
    """Answers from *book*; *clock* tells the wall time."""

    def __init__(self, book: StatisticsBook, clock: Clock) -> None:
        self._book = book
        self._clock = clock

    async def statistics(self, report: Report, by: str, seconds: float = 86400.0, top: int = 10) -> dict[str, Any]:
        """The figures of the last *seconds* in a table with *top* rows *by* a dimension.  Raises BadRequest."""
        if by not in _TABLES:
            raise BadRequest(f"{by!r} is nothing that is counted by: {', '.join(_TABLES)}")
        figures, found = await self._figures(seconds)
        return {**found, "by": by, "columns": _TABLES[by].columns, "rows": figures.table(_TABLES[by], top)}

    async def overview(self, seconds: float, top: int) -> dict[str, Any]:
        """The sums of the last *seconds*, what is worth doing, and what went wrong, *top* of each.  Raises BadRequest."""
        figures, found = await self._figures(seconds)
        return {
            **found,
            "wheels_worth_building": figures.wheels_worth_building(top),
            "repeated_requests": figures.repeated_requests(top),
            "pages_without_files": figures.pages_without_files(top),
            "problems": msgspec.to_builtins(of_every_kind(await uninterrupted(self._book.problems()), top)),
            "left_out": self._book.left_out,
        }

    async def _figures(self, seconds: float) -> tuple[FigureReport, dict[str, Any]]:
        if not 0 < seconds <= _FARTHEST:
            raise BadRequest(f"statistics are kept for {_FARTHEST // 86400} days: {seconds:g} seconds are not within them")
        now = self._clock()
        # Further than now: the present minute is not over.
        figures = FigureReport(await uninterrupted(self._book.figures(now - seconds, now + Resolution.MINUTE.seconds)))
        return figures, {"since": now - seconds, "until": now, "summary": figures.summary()}

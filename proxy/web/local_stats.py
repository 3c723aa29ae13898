"""How often each file was downloaded on a day, as a public mirror publishes it (PEP 381, "Statistics"): ``local-stats/``."""

from __future__ import annotations

import bz2
import csv
import io

from proxy.core.days import day_start
from proxy.core.figures import Bucket, Resolution
from proxy.errors import NotFound
from proxy.interfaces import Clock, IOffload, IRepository
from proxy.mechanism.flight import Flights
from proxy.statistics.book import StatisticsBook
from proxy.statistics.report import FigureReport
from proxy.web.answers import Answer
from proxy.web.door import Reading


class LocalStats:
    """Answers from *book*; *clock* tells the wall time."""

    def __init__(self, book: StatisticsBook, offload: IOffload, clock: Clock) -> None:
        self._book = book
        self._offload = offload
        self._clock = clock
        #: The days that are being read, by when they began: each once, however many ask, and to its end.
        self._reading: Flights[Bucket] = Flights()

    async def day(self, repository: IRepository, reading: Reading | None, name: str) -> Answer:
        """Answer a request for the file *name* of a day (``YYYY-MM-DD.bz2``, in UTC).

        *reading* is whose names may be shown, ``None``: all.  Raises NotFound for a day that is not over or too long ago.
        """
        start, now = day_start(name), self._clock()
        end = start + Resolution.DAY.seconds
        if end > now:
            raise NotFound(f"{name}: that day is not over (in UTC); its downloads are published when it is")
        if end + Resolution.DAY.kept <= now:
            raise NotFound(f"{name}: downloads are kept for {Resolution.DAY.kept // Resolution.DAY.seconds} days")
        bucket = await self._reading.join(start, lambda: self._book.figures(start, end))

        def may_name(index: str, project: str) -> bool:
            return index == repository.name and (reading is None or reading.visible(project))

        body = await self._offload.run(_file, FigureReport(bucket, may_name))
        return Answer(200, [("Content-Type", "application/x-bzip2"), ("Cache-Control", "max-age=3600")], body)


def _file(report: FigureReport) -> bytes:
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("package", "filename", "useragent", "count"))
    rows.writerows(report.downloads())
    return bz2.compress(written.getvalue().encode())

"""Statistics that survive restarts: what was answered is counted in memory, and each minute is written when it is over.

Theory of operation.  The hot lane gives one call per request, :meth:`StatisticsBook.note`, which adds three numbers under a
tuple.  Every few seconds these sums are counted by what they are about in a thread of their own, into the bucket of the
present minute (:mod:`proxy.core.figures`).  A crash loses what was not written: a minute at the most.  What cannot be written
stays in memory for an hour's worth, and is tried again; serving never waits for any of this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import Struct, field
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.agents import NOT_STATED, Agent
from proxy.core.events import Answered, Event, Incident, Notice, UpstreamAnswered, UpstreamResult
from proxy.core.figures import (
    Bucket,
    Dimension,
    Resolution,
    Stretch,
    Sums,
    bucket_of,
    covering,
    due,
    outdated,
    wholes_of,
)
from proxy.core.visits import Amount, Subject, Visit, count, problem_with
from proxy.errors import StorageFailed
from proxy.interfaces import Clock, IOffload, IRecorder, IRecordStore, IVisits
from proxy.statistics.problems import RecentProblem, RecentProblems

#: How many sums may wait to be counted; what comes beyond is not counted by what it is about (they are counted within seconds).
_MOST_WAITING = 50_000
#: How many minutes may wait to be written.
_MOST_UNWRITTEN = 60
_PROBLEMS = "problems"
_RESOLUTIONS = {each.value: each for each in Resolution}
#: Incidents that need nobody's attention.
_QUIET = frozenset({Incident.METADATA_READ, Incident.WITHOUT_METADATA, Incident.ROTATED})

#: Answers of an upstream that no build can use.
_FAILED = frozenset(
    {
        UpstreamResult.THROTTLED,
        UpstreamResult.SERVER_ERROR,
        UpstreamResult.UNRESOLVED,
        UpstreamResult.UNREACHABLE,
        UpstreamResult.UNANSWERED,
        UpstreamResult.BROKEN,
    }
)


#: The fields of a `Visit`, which takes longer to make than a tuple of these to find.
_Noted = tuple[Subject, str, int, str, str, Agent]


class _Unwritten(Struct, eq=False):
    """What was counted in the minute that began at *start*, and the stretches to which it has been added in the records."""

    start: int
    bucket: Bucket
    added: set[Stretch] = field(default_factory=set)


@implementer(IRecorder, IVisits)
class StatisticsBook:
    """The statistics in *records*.  *offload* has one thread; *clock* tells the wall time."""

    log = Logger()

    def __init__(self, records: IRecordStore, offload: IOffload, clock: Clock) -> None:
        self._records = records
        self._offload = offload
        self._clock = clock
        self._waiting: dict[_Noted, Amount] = {}
        self._events: deque[tuple[float, Notice | UpstreamAnswered]] = deque(maxlen=_MOST_WAITING)
        self._problems = RecentProblems()
        #: The minute that is being counted: when it began, and its bucket, which only the thread touches.
        self._minute = Resolution.MINUTE.start(clock())
        self._bucket = Bucket(Resolution.MINUTE)
        self._unwritten: list[_Unwritten] = []
        self._there: set[Stretch] | None = None
        self._alone = DeferredLock()
        #: Requests that were not counted by what they were about, because too many different ones came at once.
        self.left_out = 0
        #: Why nothing can be written, ``None`` when all is well.
        self.trouble: str | None = None

    # -- what happens ------------------------------------------------------------------------------------------------------

    def note(self, event: Answered, subject: Subject, client: str, agent: Agent) -> None:
        """A request of *agent* at the address *client* for *subject* has been answered as *event* says."""
        method, status, size, seconds, word, _, _ = event
        visit = subject, method, status, word, client, agent
        amount = self._waiting.get(visit)
        if amount is None:
            if len(self._waiting) >= _MOST_WAITING:
                self.left_out += 1
                return
            amount = self._waiting[visit] = Amount()
        amount.requests += 1
        amount.bytes += size
        amount.seconds += seconds

    def record(self, event: Event) -> None:
        """Any thread may call this."""
        if isinstance(event, UpstreamAnswered) or (isinstance(event, Notice) and event.incident not in _QUIET):
            self._events.append((self._clock(), event))

    # -- what is kept of it ------------------------------------------------------------------------------------------------

    async def settle(self, *, closing: bool = False) -> None:
        """Count what has come, and write the minutes that are over; when *closing*, the present one too.

        A failure of the disk is told by ``trouble`` and logged once.
        """
        async with self._alone:
            try:
                await self._count()
                await self._write(Resolution.MINUTE.start(self._clock()), closing=closing)
            except StorageFailed as error:
                if self.trouble is None:
                    self.log.error("statistics cannot be written and are kept in memory for an hour: {error}", error=error)
                self.trouble = str(error)
            else:
                self.trouble = None

    async def figures(self, since: float, until: float) -> Bucket:
        """What was counted between *since* and *until* (seconds since 1970), as exactly as it is known.

        What cannot be read is left out.  Not to be cancelled: what has come since the last time is counted first.
        """
        async with self._alone:
            await self._count()
            found = Bucket(Resolution.DAY)
            try:
                there = await self._stretches()
            except StorageFailed:
                there = set()
            chosen = covering(there, since, until)
            for each in chosen:
                with suppress(StorageFailed):
                    if (part := await self._read(each)) is not None:
                        await self._offload.run(found.add, part)
            for late in (*self._unwritten, _Unwritten(self._minute, self._bucket)):
                within = late.start < until and since < late.start + Resolution.MINUTE.seconds
                if within and late.added.isdisjoint(chosen):
                    await self._offload.run(found.add, late.bucket)
            await self._offload.run(found.trim)
            return found

    async def problems(self) -> list[RecentProblem]:
        """What went wrong lately; what happened last comes first.  Not to be cancelled, as `figures`."""
        async with self._alone:
            await self._count()
            with suppress(StorageFailed):
                await self._stretches()
            return self._problems.latest()

    async def close(self) -> None:
        """Write what is in memory."""
        await self.settle(closing=True)
        await self._records.close()

    async def _count(self) -> None:
        waiting, self._waiting = self._waiting, {}
        now = self._clock()
        answers = []
        while self._events:
            moment, event = self._events.popleft()
            if isinstance(event, UpstreamAnswered):
                answers.append(event)
            else:
                about = event.index or "", event.project or "", event.filename or ""
                self._problems.note(moment, event.incident.value, *about)
        if waiting or answers:
            for reason, subject, times in await self._offload.run(_count_all, self._bucket, waiting, answers):
                self._problems.note(now, reason, subject.index, subject.project, subject.filename, times)

    async def _write(self, minute: int, *, closing: bool) -> None:
        if minute != self._minute or closing:
            if self._bucket:
                self._is_over(self._minute, self._bucket)
            self._minute, self._bucket = minute, Bucket(Resolution.MINUTE)
        elif not self._unwritten:
            return
        there = await self._stretches()
        for late in list(self._unwritten):
            stretch = Resolution.MINUTE, late.start
            for each in (stretch, *(whole for whole in wholes_of(stretch) if whole in there)):
                if each not in late.added:  # the disk may have taken one, and then no more
                    await self._add(each, late.bucket)
                    late.added.add(each)
            self._unwritten.remove(late)
        if self._problems.changed:
            await self._records.set(_PROBLEMS, self._problems.encoded())
        await self._tidy(there)

    def _is_over(self, minute: int, bucket: Bucket) -> None:
        """Have *bucket* of *minute* written; let go of the oldest minute when too many could not be."""
        same = next((each for each in self._unwritten if each.start == minute and not each.added), None)
        if same is not None:
            same.bucket.add(bucket)
            return
        self._unwritten.append(_Unwritten(minute, bucket))
        if len(self._unwritten) > _MOST_UNWRITTEN:
            self._unwritten.remove(min(self._unwritten, key=lambda each: each.start))

    async def _tidy(self, there: set[Stretch]) -> None:
        now = self._clock()
        for merging in due(there, now):
            whole = Bucket(merging.whole[0])
            for part in merging.parts:
                found = await self._read(part)
                if found is not None:
                    await self._offload.run(whole.add, found)
            await self._put(merging.whole, whole)
        for each in outdated(there, now):
            await self._records.delete(_name(each))
            there.discard(each)

    async def _add(self, stretch: Stretch, bucket: Bucket) -> None:
        """Add *bucket* to what is known of *stretch*: something is after a restart, and when the clock was set back."""
        whole = await self._read(stretch) if stretch in await self._stretches() else None
        whole = whole or Bucket(stretch[0])
        await self._offload.run(whole.add, bucket)
        await self._put(stretch, whole)

    async def _put(self, stretch: Stretch, bucket: Bucket) -> None:
        data = await self._offload.run(_trimmed, bucket)
        await self._records.set(_name(stretch), data)
        (await self._stretches()).add(stretch)

    async def _read(self, stretch: Stretch) -> Bucket | None:
        """The bucket of *stretch*; ``None`` when there is none, or what is there is none, which is logged.

        Raises StorageFailed while that cannot be told.
        """
        data = await self._records.get(_name(stretch))
        try:
            return None if data is None else await self._offload.run(bucket_of, stretch[0], data)
        except ValueError as error:
            what = "the statistics of {stretch} cannot be read and are left out: {error}"
            self.log.error(what, stretch=_name(stretch), error=error)
            return None

    async def _stretches(self) -> set[Stretch]:
        """What there is in the records.  Raises StorageFailed."""
        if self._there is None:
            found = {each for key in await self._records.keys("") if (each := _stretch(key)) is not None}
            data = await self._records.get(_PROBLEMS)
            if data is not None:
                try:
                    self._problems.read(data)
                except ValueError as error:
                    self.log.error("the problems of earlier runs cannot be read and are forgotten: {error}", error=error)
            self._there = found
        return self._there


def _name(stretch: Stretch) -> str:
    return f"{stretch[0].value}/{stretch[1]}"


def _stretch(key: str) -> Stretch | None:
    label, _, start = key.partition("/")
    resolution = _RESOLUTIONS.get(label)
    return None if resolution is None or not start.isascii() or not start.isdigit() else (resolution, int(start))


def _count_all(
    bucket: Bucket, waiting: Mapping[_Noted, Amount], answers: Sequence[UpstreamAnswered]
) -> list[tuple[str, Subject, int]]:
    """Count all that is *waiting* in *bucket*; the problems among it, each with what it is about and how often."""
    problems = []
    for noted, amount in waiting.items():
        visit = Visit(*noted)
        count(bucket, visit, amount)
        reason = problem_with(visit)
        if reason is not None:
            problems.append((reason, visit.subject, amount.requests))
    for each in answers:
        if each.result is not UpstreamResult.CANCELLED:
            tally = Sums(1, waited=1, waited_seconds=each.first_byte or 0.0, failed=int(each.result in _FAILED))
            bucket.count(Dimension.UPSTREAMS, (each.upstream, each.address or NOT_STATED), tally)
    return problems


def _trimmed(bucket: Bucket) -> bytes:
    bucket.trim()
    return bucket.encoded()

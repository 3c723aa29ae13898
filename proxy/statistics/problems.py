"""What went wrong lately: stale and failed answers, and incidents, each with what it was about and how often it happened.

Clients invent names, and each of them may be one more problem of the same kind, which is a reason in an index.  So the kind
with the most of them gives way when there are too many, and is left with their sum: no kind displaces another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

#: How many different ones are remembered.
_MOST = 200

#: A reason, and the index that it is about.
_Kind = tuple[str, str]
#: What those are about that are forgotten.
_FORGOTTEN = ("", "")


class RecentProblem(msgspec.Struct, frozen=True):
    """One thing that went wrong *times* times, *first* at that moment and *last* at that (seconds since 1970).

    *index*, *project* (normalised) and *filename* are empty where that is not about any, or about some that are forgotten.
    """

    reason: str
    index: str
    project: str
    filename: str
    first: float
    last: float
    times: int = 1

    @property
    def kind(self) -> _Kind:
        """What it is one of."""
        return self.reason, self.index

    @property
    def about(self) -> tuple[str, str]:
        """What it is about, in its index."""
        return self.project, self.filename

    def with_earlier(self, earlier: RecentProblem) -> RecentProblem:
        """The same, with what happened of it *earlier*."""
        first, last = min(self.first, earlier.first), max(self.last, earlier.last)
        return msgspec.structs.replace(self, first=first, last=last, times=self.times + earlier.times)


class RecentProblems:
    """The problems of late; of the kind with the most, the one that has not happened for longest is forgotten first."""

    def __init__(self) -> None:
        #: By what they are about; both what has not happened for longest and its kind come first.
        self._of: dict[_Kind, OrderedDict[tuple[str, str], RecentProblem]] = {}
        self._count = 0
        #: Whether there is news since :meth:`encoded`.
        self.changed = False

    def note(self, now: float, reason: str, index: str = "", project: str = "", filename: str = "", times: int = 1) -> None:
        """It happened *times* times by *now*."""
        self._add(RecentProblem(reason, index, project, filename, now, now, times))
        self.changed = True

    def latest(self) -> list[RecentProblem]:
        """What happened last comes first."""
        found = [each for those in reversed(self._of.values()) for each in reversed(those.values())]
        return sorted(found, key=lambda each: each.last, reverse=True)

    def encoded(self) -> bytes:
        """The bytes for :meth:`read`."""
        self.changed = False
        return msgspec.msgpack.encode(self.latest()[::-1])

    def read(self, data: bytes) -> None:
        """Remember what *data* has, as older than all that is known.  Raises ValueError for what is none."""
        try:
            found = msgspec.msgpack.decode(data, type=list[RecentProblem])
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error
        newer = self.latest()[::-1]
        self._of, self._count = {}, 0
        for each in (*found[-_MOST:], *newer):
            self._add(each)

    def _add(self, problem: RecentProblem) -> None:
        those = self._of[problem.kind] = self._of.pop(problem.kind, OrderedDict())
        there = those.pop(problem.about, None)
        if there is None:
            self._count += 1
        those[problem.about] = problem if there is None else problem.with_earlier(there)
        while self._count > _MOST:
            self._forget()

    def _forget(self) -> None:
        """Add the oldest one of the kind with the most to the sum of what is forgotten of that."""
        kind = max(self._of, key=lambda each: len(self._of[each]))
        those = self._of[kind]
        if len(those) == 1:  # so is every other kind
            kind = min(self._of, key=lambda each: next(iter(self._of[each].values())).last)
            self._count -= len(self._of.pop(kind))
            return
        oldest = those.pop(next(each for each in those if each != _FORGOTTEN))
        there = those.pop(_FORGOTTEN, None)
        if there is not None:
            self._count -= 1
        those[_FORGOTTEN] = msgspec.structs.replace(
            oldest if there is None else oldest.with_earlier(there), project="", filename=""
        )


def of_every_kind(problems: Sequence[RecentProblem], most: int) -> list[RecentProblem]:
    """*most* of *problems*, of which what happened last comes first: the last of each kind before others."""
    kinds: set[_Kind] = set()
    last: list[RecentProblem] = []
    others: list[RecentProblem] = []
    for each in problems:
        (others if each.kind in kinds else last).append(each)
        kinds.add(each.kind)
    return sorted([*last, *others][:most], key=lambda each: each.last, reverse=True)


def by_kind(problems: Iterable[RecentProblem]) -> list[list[RecentProblem]]:
    """*problems*, of which what happened last comes first, by their kind in the same order."""
    found: dict[_Kind, list[RecentProblem]] = {}
    for each in problems:
        found.setdefault(each.kind, []).append(each)
    return list(found.values())

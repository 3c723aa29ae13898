"""What went wrong lately: stale and failed answers, and incidents, each with what it was about and how often it happened."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

#: How many different ones are remembered.
_MOST = 200


class RecentProblem(msgspec.Struct, frozen=True):
    """One thing that went wrong *times* times, *first* at that moment and *last* at that (seconds since 1970).

    *index*, *project* (normalised) and *filename* are empty where that is not about any.
    """

    reason: str
    index: str
    project: str
    filename: str
    first: float
    last: float
    times: int = 1


class RecentProblems:
    """The problems of late; the one that has not happened for longest is forgotten first."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, str, str], RecentProblem] = OrderedDict()
        #: Whether there is news since :meth:`encoded`.
        self.changed = False

    def note(self, now: float, reason: str, index: str = "", project: str = "", filename: str = "", times: int = 1) -> None:
        """It happened *times* times by *now*."""
        key = reason, index, project, filename
        there = self._found.pop(key, None)
        first, before = (now, 0) if there is None else (there.first, there.times)
        self._found[key] = RecentProblem(*key, first, now, before + times)
        while len(self._found) > _MOST:
            self._found.popitem(last=False)
        self.changed = True

    def latest(self) -> list[RecentProblem]:
        """What happened last comes first."""
        return list(reversed(self._found.values()))

    def encoded(self) -> bytes:
        """The bytes for :meth:`read`."""
        self.changed = False
        return msgspec.msgpack.encode(list(self._found.values()))

    def read(self, data: bytes) -> None:
        """Remember what *data* has, as older than all that is known.  Raises ValueError for what is none."""
        try:
            found = msgspec.msgpack.decode(data, type=list[RecentProblem])
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error
        newer, self._found = self._found, OrderedDict()
        for each in (*found[-_MOST:], *newer.values()):
            key = each.reason, each.index, each.project, each.filename
            there = self._found.pop(key, None)
            if there is not None:
                each = msgspec.structs.replace(each, first=there.first, times=there.times + each.times)
            self._found[key] = each

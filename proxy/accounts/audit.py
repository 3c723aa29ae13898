"""The audit log: a line of JSON for each thing that somebody did, in a file that is rotated and bounded.

Requests without a credential that need one are the noise of every scanner, and the first request of most clients: once a minute
there is one line with their number.  Of other refusals the first of a kind has a line at once, and those of the same kind that
follow within a minute have one together.  Lines that cannot be written wait, a bounded number of them; what is dropped is
counted.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.audited import Audited, AuditOutcome
from proxy.interfaces import Clock, IAuditLog, IOffload

#: Its name in the data directory.
NAME = "audit.jsonl"
#: How long a line may wait for others to be written with, and for how long refusals are counted (seconds).
_SOON, _COUNTED = 0.2, 60.0
#: Lines that may wait for a disk that takes none.
_MOST_WAITING = 10_000
#: Kinds of refusals that are told from each other; the projects of others are not.
_MOST_KINDS = 1000
#: The longest text of a field (characters).
_LONGEST = 1000


class AuditFile(Struct, frozen=True):
    """The file at *path*, which is rotated when it has *size* bytes, and has *files* parts in all.

    It is only written while *ours* says that its directory is the right one.  Everything here blocks.
    """

    path: Path
    size: int
    files: int
    ours: Callable[[], bool]

    def append(self, lines: Sequence[bytes]) -> None:
        """Raises OSError."""
        if not self.ours():
            raise OSError(errno.ENOENT, "the data directory is not there")
        with suppress(FileNotFoundError):
            if self.path.stat().st_size >= self.size:
                self._rotate()
        with open(self.path, "ab", opener=_opened) as file:
            file.write(b"".join(lines))

    def _rotate(self) -> None:
        """``audit.jsonl.1`` is the newest of the others."""
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{number}") for number in range(1, self.files))]
        for old, new in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                old.replace(new)
        if self.files == 1:
            self.path.unlink()


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@implementer(IAuditLog)
class Unaudited:
    """Records nothing."""

    def note(self, entry: Audited) -> None:
        pass

    async def close(self) -> None:
        pass


@implementer(IAuditLog)
class AuditLog:
    """Writes to *file* in a thread of *disk*; *clock* tells the time of each line."""

    log = Logger()

    def __init__(self, file: AuditFile, disk: IOffload, reactor: IReactorTime, clock: Clock) -> None:
        self._file = file
        self._disk = disk
        self._reactor = reactor
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        #: Refusals that have no line yet, by what they have in common.
        self._refused: dict[Audited, int] = {}
        self._later: IDelayedCall | None = None
        self._counting: IDelayedCall | None = None
        self._writing: Deferred[None] = succeed(None)
        self._failing = False

    def configure(self, size: int, files: int) -> None:
        """Rotate the file when it has *size* bytes from now on, and keep *files* parts in all."""
        self._file = replace(self._file, size=size, files=files)

    def note(self, entry: Audited) -> None:
        if entry.outcome is AuditOutcome.DONE or entry.outcome is AuditOutcome.FAILED:
            self._add(entry)
            return
        if entry.outcome is AuditOutcome.LOGIN:
            entry = replace(entry, origin="-", project=None)
        if entry not in self._refused and len(self._refused) >= _MOST_KINDS:
            entry = Audited("others", "-", entry.action, entry.outcome)
        if entry not in self._refused and entry.outcome is not AuditOutcome.LOGIN:
            self._add(entry)
            self._refused[entry] = 0
        else:
            self._refused[entry] = self._refused.get(entry, 0) + 1
        if self._counting is None:
            self._counting = self._reactor.callLater(_COUNTED, self._tell_refused)

    def _add(self, entry: Audited, count: int | None = None) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._dropped += 1
            return
        time = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        members = {
            "time": time,
            "who": entry.who,
            "from": entry.origin,
            "action": entry.action,
            "outcome": entry.outcome.value,
            "index": entry.index,
            "project": entry.project,
            "what": entry.what,
            "count": count,
        }
        self._waiting.append(_line({name: value for name, value in members.items() if value is not None}))
        if self._later is None:
            self._later = self._reactor.callLater(_SOON, self._write)

    def _tell_refused(self) -> None:
        self._counting = None
        refused, self._refused = self._refused, {}
        for entry, count in refused.items():
            if count:
                self._add(entry, count)

    def _write(self) -> None:
        self._later = None
        self._writing.addCallback(lambda _: Deferred.fromCoroutine(self._written()))
        self._writing.addErrback(lambda failure: self.log.failure("bug: the audit log failed", failure))

    async def _written(self) -> None:
        waiting, dropped = list(self._waiting), self._dropped
        if not waiting:
            return
        told = [_line({"action": "lines were dropped", "count": dropped})] if dropped else []
        try:
            await self._disk.run(self._file.append, [*told, *waiting])
        except OSError as error:
            if not self._failing:
                self.log.error("{path} cannot be written: {why}; its lines wait", path=self._file.path, why=error.strerror)
            self._failing = True
            return
        self._failing = False
        self._dropped -= dropped
        for _ in waiting:
            self._waiting.popleft()

    async def close(self) -> None:
        """Write what waits."""
        counting = self._counting
        self._tell_refused()
        for call in (counting, self._later):
            if call is not None and call.active():
                call.cancel()
        self._write()
        await self._writing


def _line(members: dict[str, str | int | None]) -> bytes:
    """*members* as a line; text that is none (half a surrogate pair, as arguments of commands may have) is written escaped."""
    told = {name: _cut(value) if isinstance(value, str) else value for name, value in members.items()}
    return msgspec.json.encode(told) + b"\n"


def _cut(text: str) -> str:
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode()

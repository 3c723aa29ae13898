"""What happened: counts by kind, a short trail for each subject, and the violations with that trail."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict, deque

from msgspec import Struct

#: Events that are kept for each subject, and for what concerns all of them.
_TRAIL = 25
#: Violations that are remembered with their trail, in all and of one kind and subject; the rest are counted.
_MOST, _EACH = 300, 3

#: The subject of what concerns everything: restarts, damage to the database.
WORLD = "world"


class Violation(Struct, frozen=True):
    """One broken promise: what was promised, of what, and what had happened before."""

    kind: str
    subject: str
    what: str
    trail: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"VIOLATION ({self.kind}) {self.subject}: {self.what}", *(f"    {each}" for each in self.trail)])


class Journal:
    """The record of one run.  *loud*: violations are printed as they come."""

    def __init__(self, *, loud: bool = False) -> None:
        self.answers: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.damage: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self._told: Counter[tuple[str, str]] = Counter()
        self.round = 0
        self._loud = loud
        self._number = 0
        self._trails: defaultdict[str, deque[tuple[int, str]]] = defaultdict(lambda: deque(maxlen=_TRAIL))

    @property
    def checked(self) -> int:
        """Complete answers that were checked."""
        return self.answers.total()

    def note(self, subject: str, what: str) -> None:
        """Something has happened to *subject*."""
        self._number += 1
        self._trails[subject].append((self._number, f"round {self.round}: {what}"))

    def answered(self, kind: str, status: int, subject: str, what: str) -> None:
        """A complete answer has come and is being checked."""
        self.answers[f"{kind} {status}"] += 1
        self.note(subject, what)

    def violated(self, kind: str, subject: str, what: str) -> None:
        """A promise was broken."""
        self.kinds[kind] += 1
        self._told[kind, subject] += 1
        if self._told[kind, subject] > _EACH or len(self.violations) >= _MOST:
            return
        events = sorted([*self._trails[subject], *(self._trails[WORLD] if subject != WORLD else ())])[-_TRAIL:]
        violation = Violation(kind, subject, what, tuple(f"{number} {text}" for number, text in events))
        self.violations.append(violation)
        if self._loud:
            print(violation, file=sys.stderr, flush=True)

    def report(self) -> str:
        """Everything that was counted, as a table."""
        lines = []
        for title, counts in (
            ("answers checked", self.answers),
            ("events", self.events),
            ("faults of upstream", self.faults),
            ("damage", self.damage),
            ("violations", self.kinds),
        ):
            lines.append(f"{title}: {counts.total():,}")
            lines += [f"    {count:8,}  {what}" for what, count in sorted(counts.items())]
        return "\n".join(lines)

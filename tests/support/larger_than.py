"""A rule as anybody may write one: it hides large files, from some moment on."""

from __future__ import annotations

import math

from proxy.model import File, LedgerEntry
from proxy.policy.rules import Project, Rule, Viewpoint
from proxy.policy.verdicts import VISIBLE, Verdict


class LargerThan(Rule, frozen=True):
    """Hides files of more than *size* bytes, from *since* on (seconds since the epoch), and none whose size is unknown."""

    name = "larger-than"

    size: int
    since: float = -math.inf

    def file(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        size = file.size if facts is None else facts.size
        if size is None or size <= self.size:
            return VISIBLE
        if now < self.since:
            return Verdict(until=self.since)
        return self.hides(f"larger than {self.size:,} bytes")

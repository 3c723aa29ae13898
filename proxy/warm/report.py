"""What came of a run: for people as a few lines, for programs as JSON."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from proxy.core.amounts import counted, duration, size
from proxy.warm.fetching import Traffic
from proxy.warm.inputs import Problem


class Outcome(Struct, frozen=True):
    """One file.  ``state`` is ``there``, ``fetched``, ``wanted`` (a dry run) or ``failed``; then ``why`` says it."""

    project: str
    version: str
    filename: str
    state: str
    size: int | None = None
    why: str | None = None


class WarmReport(Struct):
    """One run."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)
    stopped: bool = False

    def count(self, state: str) -> int:
        """How many files came out as *state*."""
        return sum(outcome.state == state for outcome in self.outcomes)

    @property
    def status(self) -> int:
        """The exit status: 0 all there, 1 something failed, 130 stopped."""
        if self.stopped:
            return 130
        return 1 if self.problems or self.count("failed") else 0

    @property
    def there(self) -> list[Outcome]:
        """The files that are in the cache now."""
        return [outcome for outcome in self.outcomes if outcome.state in ("there", "fetched")]

    @property
    def failures(self) -> list[str]:
        """What failed, each with its reason."""
        files = [f"{each.filename}: {each.why}" for each in self.outcomes if each.state == "failed"]
        return [*map(str, dict.fromkeys(self.problems)), *files]

    def lines(self, *, dry: bool = False, proxy: str = "") -> list[str]:
        """The notes, and the summary with the URL of the *proxy* if that is another process; :attr:`failures` are apart."""
        lines = [f"note: {note}" for note in dict.fromkeys(self.notes)]
        failed = len(self.failures)
        if dry:
            lines.append(
                f"{_there(self.count('there'), 'is', 'are')}, {self.count('wanted')} would be asked for, {failed} failed"
            )
            return lines
        traffic, asked = self.traffic, f"requests to {proxy}" if proxy else "requests"
        lines.append(
            f"{_there(self.count('there'), 'was', 'were')}, {self.count('fetched')} fetched, {failed} failed; "
            f"{size(traffic.bytes)} in {duration(self.seconds)}; "
            f"{traffic.upstream} of {traffic.requests} {asked} went upstream"
        )
        if self.stopped:
            lines.append("stopped: what was fetched stays, the next run goes on from there")
        return lines

    def document(self) -> dict[str, Any]:
        """All of it as JSON values.  Sizes are bytes, times seconds."""
        return {
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "bytes": self.traffic.bytes,
            "requests": self.traffic.requests,
            "upstream_requests": self.traffic.upstream,
            "there": self.count("there"),
            "fetched": self.count("fetched"),
            "failed": len(self.failures),
            "stopped": self.stopped,
            "files": [
                {
                    "project": each.project,
                    "version": each.version,
                    "filename": each.filename,
                    "state": each.state,
                    "size": each.size,
                    "why": each.why,
                }
                for each in self.outcomes
            ],
            "problems": [{"where": each.where, "why": each.why} for each in dict.fromkeys(self.problems)],
            "notes": list(dict.fromkeys(self.notes)),
        }


def _there(count: int, one: str, several: str) -> str:
    return f"{counted(count, 'file')} {one if count == 1 else several} there"

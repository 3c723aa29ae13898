"""What probes are answered: is it alive (``/-/live``), is it ready (``/-/ready``).

Ready means that builds are served: only who has not begun to serve, or is about to stop, is not ready.  What is wrong beside
that is one line per trouble: a balancer that drops a node for it would drop all of them at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from msgspec import Struct

from proxy.core.amounts import duration

#: A report that is older than this (seconds) shows that the process is stuck.
FRESH_FOR = 30.0


class Phase(enum.Enum):
    """The life of a service; the value is what a probe is told while it is not ready."""

    STARTING = "starting"
    SERVING = "ready"
    STOPPING = "stopping"


class HealthReport(Struct, frozen=True):
    """What the reactor said of the service *at* a moment (seconds of a steady clock); *troubles* are words for operators."""

    at: float
    phase: Phase
    troubles: tuple[str, ...] = ()


class ProbeAnswer(Struct, frozen=True):
    """A status and a text."""

    status: int
    text: str


def readiness(phase: Phase, troubles: Iterable[str]) -> ProbeAnswer:
    """The answer to ``/-/ready``."""
    if phase is not Phase.SERVING:
        return ProbeAnswer(503, f"{phase.value}\n")
    return ProbeAnswer(200, "".join(f"degraded: {each}\n" for each in troubles) or "ready\n")


def reported_liveness(report: HealthReport, now: float) -> ProbeAnswer:
    """The answer to ``/-/live`` by the last *report*: a process that reports nothing is stuck, and has to be restarted."""
    age = now - report.at
    if age > FRESH_FOR:
        return ProbeAnswer(503, f"stuck: nothing was reported for {duration(age)}, restart this proxy\n")
    return ProbeAnswer(200, "alive\n")


def reported_readiness(report: HealthReport, now: float) -> ProbeAnswer:
    """The answer to ``/-/ready`` by the last *report*."""
    age = now - report.at
    silent = (f"nothing was reported for {duration(age)}: this proxy is stuck, restart it",) if age > FRESH_FOR else ()
    return readiness(report.phase, (*silent, *report.troubles))

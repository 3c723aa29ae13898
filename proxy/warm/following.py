"""Keeping ready what is wanted: look again and again, and tell of it only when something has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import deferLater

from proxy.warm.report import WarmReport


async def follow(
    look: Callable[[], Awaitable[WarmReport]], interval: float, reactor: Any, tell: Callable[[WarmReport], object]
) -> WarmReport:
    """Call *look* now and every *interval* seconds, until one was stopped (it is returned) or this is cancelled.

    *tell* is given each report that fetched something, or failed otherwise than the one before.
    """
    before: list[str] | None = None
    while True:
        report = await look()
        failures = report.failures
        if report.stopped:
            return report
        if report.count("fetched") or failures != before:
            tell(report)
        before = failures
        await deferLater(reactor, interval)

"""How far a mirror is behind: PEP 381's ``/last-modified``, looked at on demand and not often."""

from __future__ import annotations

import datetime
import re
from urllib.parse import urljoin

from proxy.settings import UpstreamSettings
from proxy.upstream.http.attempt import Attempt

#: A mirror is looked at once in this many seconds.
LOOK_EVERY = 180.0
#: The document is one line (bytes).
_LONGEST = 1024

_STAMP = re.compile(r"\d{8}T\d\d:\d\d:\d\d")


def lag_url(upstream: UpstreamSettings) -> str:
    """Where *upstream* says when it was last updated."""
    return urljoin(upstream.url, "../last-modified")


async def ask_lag(attempt: Attempt, upstream: UpstreamSettings, now: float) -> float | None:
    """Seconds since the mirror's last update, ``None`` when it does not say.  Raises Failed."""
    exchange = await attempt.ask("GET", lag_url(upstream), {"Accept": "text/plain"})
    return _seconds_behind((await exchange.read(_LONGEST)).decode("latin-1").strip(), now)


def _seconds_behind(stamp: str, now: float) -> float | None:
    if not _STAMP.fullmatch(stamp):
        return None
    try:
        then = datetime.datetime.strptime(stamp, "%Y%m%dT%H:%M:%S").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return max(0.0, now - then.timestamp())

"""How far a mirror is behind: PEP 381's ``/last-modified``, looked at on demand and not often."""

from __future__ import annotations

import datetime
import re
from urllib.parse import urljoin

from proxy.upstream.client import UpstreamClient
from proxy.upstream.failures import Failed

#: A mirror is looked at once in this many seconds.
LOOK_EVERY = 180.0
#: The document is one line (bytes).
_LONGEST = 1024

_STAMP = re.compile(r"\d{8}T\d\d:\d\d:\d\d")


async def look(client: UpstreamClient, now: float) -> None:
    """Learn ``client.lag``: seconds since the mirror's last update, ``None`` when it does not say.  Raises nothing."""
    try:
        exchange = await client.ask("GET", urljoin(client.settings.url, "../last-modified"), {"Accept": "text/plain"})
    except Failed:
        client.lag = None
        return
    try:
        text = (await exchange.read(_LONGEST)).decode("latin-1").strip()
        exchange.trial.succeeded()
        client.lag = _seconds_behind(text, now)
    except Failed as error:
        exchange.trial.failed(str(error))
        client.lag = None
    finally:
        exchange.close()


def _seconds_behind(stamp: str, now: float) -> float | None:
    if not _STAMP.fullmatch(stamp):
        return None
    try:
        then = datetime.datetime.strptime(stamp, "%Y%m%dT%H:%M:%S").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return max(0.0, now - then.timestamp())

"""Amounts as people read them: bytes, and points in time.  What they write is read by :mod:`proxy.config.quantities`."""

from __future__ import annotations

from datetime import datetime


def size(count: int) -> str:
    """*count* bytes, in the power of 1000 that leaves at most three digits before the point: ``"1.5 MB"``."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def moment(seconds: float | None) -> str:
    """A point in time (seconds since 1970), in local time to the second; ``-`` for none."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""Amounts as people read them: bytes, durations and points in time.  Exact numbers of bytes are written out, with commas."""

from __future__ import annotations

import math
from datetime import datetime

#: What stands for an amount that there is none of, and for any other value in a table.
NONE = "-"


def size(count: int) -> str:
    """*count* bytes, in the power of 1000 that leaves at most three digits before the point: ``"1.5 MB"``."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


#: Units of time, their lengths (seconds), and how many of each are the most.
_UNITS = (("s", 1.0, 120.0), ("min", 60.0, 120.0), ("h", 3600.0, 48.0), ("d", 86400.0, math.inf))


def duration(seconds: float) -> str:
    """So many *seconds*, in the unit that suits, to two or three digits: ``"3 ms"``, ``"0.25 s"``, ``"12.5 s"``."""
    if 0 < seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    unit, length, _ = next(each for each in _UNITS if seconds < each[1] * each[2])
    number = seconds / length
    return f"{number:.2g} {unit}" if number < 9.95 else f"{round(number, 1 if number < 99.95 else None):g} {unit}"


def moment(seconds: float | None) -> str:
    """A point in time (seconds since 1970), in local time to the second; ``-`` for none."""
    if seconds is None:
        return NONE
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # a year that no calendar here has
        return "after 9999" if seconds > 0 else "before 1"


def clock_time(seconds: float) -> str:
    """A point in time of today (seconds since 1970), as the local time of day to the second."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def counted(count: int, what: str) -> str:
    """So many of *what*, a noun in the singular: ``"1 file"``, ``"1,200 files"``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"

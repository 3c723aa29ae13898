"""Files that are named after a day, as a mirror publishes its statistics (PEP 381): ``2024-10-04.bz2``, a day of UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime

_ENDING = ".bz2"


def is_day(name: str) -> bool:
    """Whether *name* is that of the file of a day."""
    try:
        day = date.fromisoformat(name.removesuffix(_ENDING))
    except ValueError:
        return False
    return name == f"{day}{_ENDING}" and day.year >= 1970


def day_start(name: str) -> float:
    """When the day begins that the file *name* is of (seconds since 1970).  Raises ValueError."""
    day = date.fromisoformat(name.removesuffix(_ENDING))
    return datetime.combine(day, datetime.min.time(), UTC).timestamp()

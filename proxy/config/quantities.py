"""Durations and sizes as people write them: ``10m``, ``1h30m``, ``20GB``, ``512MiB``."""

from __future__ import annotations

import re

from proxy.expressions import expression

#: Milliseconds, so that decimal fractions of a second come out as written.
DURATION_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

#: Bytes.  ``kB`` and its like are powers of 1000, ``KiB`` and its like powers of 1024 (IEC 80000-13).
SIZE_UNITS: dict[str, int] = {"b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}

_NUMBER = r"(\d{1,12}(?:\.\d{1,6})?)"
_DURATION_PART = expression(rf"{_NUMBER}\s*(ms|[smhdw])\s*", re.ASCII)
_SIZE = expression(rf"{_NUMBER}\s*([kmgt]i?b|b)", re.ASCII | re.IGNORECASE)


def seconds_in(text: str) -> float:
    """Seconds in *text*: one or more numbers with a unit each.  Raises ValueError."""
    text = text.strip()
    milliseconds, position = 0.0, 0
    while part := _DURATION_PART.match(text, position):
        milliseconds += float(part[1]) * DURATION_UNITS[part[2]]
        position = part.end()
    if position == 0 or position < len(text):
        raise ValueError(text)
    return milliseconds / 1000


def bytes_in(text: str) -> int:
    """Bytes in *text*: a number with a unit.  Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return round(float(match[1]) * SIZE_UNITS[match[2].lower()])

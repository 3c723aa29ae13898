"""Numbers that others write: out of text of any length, without an error and without a long computation.

``int`` raises for more than 4,300 digits and for digits such as ``²``, which ``str.isdigit`` accepts.
"""

from __future__ import annotations

import re

#: What clients and databases hold a number in.
LARGEST = 2**63 - 1

_DIGITS = re.compile(r"[0-9]{1,19}")


def whole(text: str | None) -> int | None:
    """The number that *text* is, from 0 to :data:`LARGEST`; ``None`` when it is anything else."""
    return in_bounds(int(text)) if text is not None and _DIGITS.fullmatch(text) else None


def in_bounds(value: object) -> int | None:
    """*value* if it is a whole number from 0 to :data:`LARGEST`, else ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST else None

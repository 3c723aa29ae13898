"""Regular expressions that are compiled when they are first used: a start compiles none that only some requests need.

Compiling one takes a quarter of a millisecond, as long as loading a module does.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class _Expression:
    """What compiles itself when it is first asked for a method, which it has as an attribute of its own from then on."""

    def __init__(self, pattern: Any, flags: int) -> None:
        self._pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self._pattern, self._flags), name)
        setattr(self, name, found)
        return found


def expression(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What ``re.compile`` gives, later: a *pattern* that is wrong raises re.error at its first use."""
    return cast("re.Pattern[AnyStr]", _Expression(pattern, flags))

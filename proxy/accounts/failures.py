"""Failed logins: who goes on guessing waits longer and longer for each answer.  Right credentials never wait for that."""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.bounded import BoundedTable

#: The first wait, and the longest (seconds): clients give up later than that.
_FIRST, _MOST = 0.1, 5.0
#: For how long failures count (seconds).
_REMEMBERED = 600.0
#: What may be remembered, and what one entry weighs at the least (bytes).
_MEMORY, _WEIGHT = 1 << 20, 200


class FailedLogins:
    """Counts them by the address and the name that they came with; an answer waits at most *longest* seconds.

    *seconds* tells the time, which is only measured.
    """

    def __init__(self, seconds: Callable[[], float], longest: float = _MOST) -> None:
        self._seconds = seconds
        self._longest = longest
        self._counts: BoundedTable[tuple[str, str], tuple[int, float]] = BoundedTable(
            _MEMORY, lambda entry: _WEIGHT, lambda key: sum(map(len, key))
        )

    def failed(self, address: str, name: str) -> float:
        """Note one more, and return how long its answer has to wait (seconds)."""
        count, at = self._counts.get((address, name)) or (0, 0.0)
        now = self._seconds()
        count = count + 1 if now - at < _REMEMBERED else 1
        self._counts.put((address, name), (count, now))
        return min(self._longest, _FIRST * 2.0 ** min(count - 1, 16))

    def succeeded(self, address: str, name: str) -> None:
        """Forget what failed before."""
        self._counts.discard((address, name))

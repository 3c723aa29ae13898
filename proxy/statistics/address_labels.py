"""Which addresses of upstreams are told apart: few, so that a host with ever new addresses makes no ever new series."""

from __future__ import annotations

#: Addresses of one upstream that are told apart.
MOST = 32
#: Seconds after which an address that was not used gives its place to another one.
_FORGOTTEN_AFTER = 86_400.0
UNKNOWN, OTHER = "-", "other"


class AddressLabels:
    """The labels of the addresses of one upstream."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}

    def label(self, address: str | None, now: float) -> tuple[str, str | None]:
        """The label of *address*, which is used *now* (seconds), and the address whose label it has taken over, if any.

        :data:`UNKNOWN` stands for ``None``, :data:`OTHER` for those that there is no place for.
        """
        if address is None:
            return UNKNOWN, None
        if address in self._used:
            self._used[address] = now
            return address, None
        if len(self._used) < MOST:
            self._used[address] = now
            return address, None
        oldest = min(self._used, key=self._used.__getitem__)
        if now - self._used[oldest] < _FORGOTTEN_AFTER:
            return OTHER, None
        del self._used[oldest]
        self._used[address] = now
        return address, oldest

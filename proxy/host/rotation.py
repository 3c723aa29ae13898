"""Regular looks at the files that may be replaced while the proxy runs: secrets, certificates and authorities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from proxy.core.troubles import Reason, Trouble
from proxy.interfaces import Clock
from proxy.mechanism.certificates import Expiring, expiry
from proxy.mechanism.patience import within
from proxy.mechanism.rotating import Rotating

#: How long the file system may take (seconds).
_PATIENCE = 1.0
_SILENT = "a file of a password, a token or a certificate cannot be looked at: its file system does not answer"


class Rotation:
    """Looks at all of *rotating*, which is asked for anew each time; *clock* tells whether a certificate is about to expire."""

    log = Logger()

    def __init__(self, rotating: Callable[[], Iterable[Rotating[Any]]], reactor: Any, clock: Clock) -> None:
        self._clock = clock
        self._rotating = rotating
        self._reactor = reactor
        self._silent = False

    async def look(self) -> Sequence[Trouble]:
        """Read changed files again, and return what is wrong with those that cannot be used and with certificates that end."""
        rotating = list(self._rotating())
        late = not await within(_PATIENCE, _all_looked(rotating), self._reactor)
        if late and not self._silent:
            self.log.error("{words}", words=_SILENT)
        self._silent = late
        words = [f"{each.trouble}: {each.consequence}" for each in rotating if each.trouble is not None]
        return [
            *(Trouble(Reason.ROTATION, each) for each in (*words, *([_SILENT] if late else []))),
            *(Trouble(Reason.CERTIFICATE, each) for each in self._expiring(rotating)),
        ]

    def _expiring(self, rotating: Iterable[Rotating[Any]]) -> Iterable[str]:
        for each in rotating:
            if isinstance(each.value, Expiring) and each.value.validity is not None:
                words = expiry(each.value.validity, self._clock())
                if words is not None:
                    yield words


async def _all_looked(rotating: Iterable[Rotating[Any]]) -> None:
    looks = [Deferred.fromCoroutine(each.look()) for each in rotating]
    for each in looks:
        await each

"""One fake upstream at several addresses: what it has is the same everywhere, how it behaves is each address's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.error import CannotListenError

from tests.support.fake_upstream import FakeUpstream, Fault

U = TypeVar("U", bound=FakeUpstream)

#: Ports to try: one that is free at the first address may be in use at another.
_TRIES = 20

#: What may be wrong with an address, by name.  "slow": 3 s before each answer; "dies": every file breaks off after 5,000 bytes.
SICK: Mapping[str, Callable[[FakeUpstream], Any]] = {
    "dead": FakeUpstream.down,
    "deaf": FakeUpstream.deaf,
    "silent": FakeUpstream.silent,
    "reset": lambda each: each.script("*", Fault(reset=True)),
    "dropping": lambda each: each.script("*", Fault(drop=True)),
    "502": lambda each: each.script("*", Fault(status=502)),
    "slow": lambda each: each.script("*", Fault(delay=3.0)),
    "dies": lambda each: each.script("/packages/*", Fault(reset_after=5_000)),
}


async def sicken(upstream: FakeUpstream, what: str) -> None:
    """Have *upstream*, which is one address, fail as *what*, a key of :data:`SICK`, says."""
    done = SICK[what](upstream)
    if inspect.isawaitable(done):
        await done


class Addresses(Generic[U]):
    """The host *name* at *addresses*, on one *port*; 0: any that is free.

    *make*, given what `FakeUpstream` takes and *options*, makes what listens at one address.
    """

    def __init__(self, name: str, addresses: Sequence[str], make: Callable[..., U], *, port: int = 0, **options: Any) -> None:
        self.name = name
        self._addresses = addresses
        self._make = make
        self._port = port
        self._options = options
        self.at: list[U] = []

    async def start(self) -> Addresses[U]:
        """Listen at all of them."""
        for _ in range(_TRIES):
            try:
                for each in self._addresses:
                    port = self.at[0].port if self.at else self._port
                    upstream = self._make(address=each, host=self.name, port=port, **self._options)
                    upstream.start()
                    self.at.append(upstream)
            except CannotListenError:
                await self.close()
                continue
            for upstream in self.at[1:]:
                upstream.content = self.at[0].content
            return self
        raise RuntimeError(f"no port is free at all of {', '.join(self._addresses)}")

    async def close(self) -> None:
        while self.at:
            await self.at.pop().close()

    @property
    def first(self) -> U:
        """The upstream at the first address, where what all of them have is put in."""
        return self.at[0]

    @property
    def url(self) -> str:
        return self.first.url

    def counts(self, match: str = "*") -> list[int]:
        """Requests that *match*, by address."""
        return [each.count(match) for each in self.at]

"""Which stored bytes a proxy index may serve by the word of a page alone, and which came here by another index.

All indexes share one store, and a page may state any digest: whoever can have a page list a file, and knows the digest of
somebody else's, would get its bytes.  Digests are no secrets; they stand in lock files.
"""

from __future__ import annotations

from collections.abc import Collection

from proxy.cache.ledger import Ledger
from proxy.errors import StorageFailed
from proxy.mechanism.flight import Flights


class PrivateBytes:
    """The bytes that other indexes than the *proxies* have, or had.

    *divided* is whether proxy indexes have different readers: then none of them gets what another has fetched.
    """

    def __init__(self, ledger: Ledger, proxies: Collection[str], *, divided: bool = False) -> None:
        self._ledger = ledger
        self._proxies = frozenset(proxies)
        self._divided = divided
        self._digests: set[str] = set()
        self._is_read = False
        self._reads: Flights[None] = Flights()
        #: Counts what may have changed an answer of :meth:`held_of`.
        self.changes = 0

    def configure(self, proxies: Collection[str], *, divided: bool) -> None:
        """From now on the *proxies* are these, with different readers or not.  What was for others stays so."""
        if frozenset(proxies) != self._proxies:
            self._proxies = frozenset(proxies)
            self._is_read = False
        self._divided = divided
        self.changes += 1

    def add(self, sha256: str) -> None:
        """Told of bytes that are about to be stored for a hosted index."""
        if sha256 not in self._digests:
            self._digests.add(sha256)
            self.changes += 1

    async def hold(self, sha256: str) -> bool:
        """Whether these bytes are for others, as long as the index that asks has not obtained them by itself.

        So is everything while the ledger cannot be read.
        """
        return bool(await self.held_of({sha256}))

    async def held_of(self, digests: Collection[str]) -> Collection[str]:
        """Those of *digests* for which :meth:`hold` is true."""
        if self._divided:
            return digests
        if not self._is_read:
            try:
                await self._reads.join("all", self._read)
            except StorageFailed:
                return digests
        return self._digests.intersection(digests)

    async def _read(self) -> None:
        for index, project in await self._ledger.places():
            if index not in self._proxies:
                entries = await self._ledger.peek(index, project)
                # What an index that is not configured any more has fetched has a URL: it was a proxy index.
                self._digests.update(entry.sha256 for entry in entries.values() if not entry.url)
        self._is_read = True
        self.changes += 1

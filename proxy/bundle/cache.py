"""The part of a data directory that bundles are made of and put into: the pages, ledger entries and files of one index."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from proxy.cache.claims import ClaimBook
from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook
from proxy.cache.private_bytes import PrivateBytes
from proxy.cache.records import HeadedRecords
from proxy.core.claims import NameClaim
from proxy.interfaces import IFileStore, IOffload, IOwnership
from proxy.policy.policy import STANDARD, Policy


class CarriedClaims(Struct, frozen=True):
    """The claims that go into a bundle, and that one out of a bundle is entered beside.

    Those of the hosted *indexes* matter to the index of the bundle.
    """

    book: ClaimBook
    claims: IOwnership
    indexes: Collection[str]

    async def all(self) -> list[NameClaim]:
        """Those that go into a bundle, by index and project.  Raises StorageFailed."""
        await self.book.read()
        return [each for each in self.book.all() if each.index in self.indexes]


class IndexCache(Struct, frozen=True):
    """What is kept of the index *name*.

    *offload* is where the bundle itself is read and written.  *policy* says what may leave in one, and *private* which of the
    files are for other indexes.
    """

    name: str
    pages: HeadedRecords
    ledger: Ledger
    pinned: PinnedBook
    files: IFileStore
    offload: IOffload
    policy: Policy = STANDARD
    claims: CarriedClaims | None = None
    private: PrivateBytes | None = None

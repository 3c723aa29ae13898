"""The part of a data directory that bundles are made of and put into: the pages, ledger entries and files of one index."""

from __future__ import annotations

from attrs import frozen

from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook
from proxy.cache.records import HeadedRecords
from proxy.interfaces import IFileStore, IOffload
from proxy.policy.policy import STANDARD, Policy


@frozen
class IndexCache:
    """What is kept of the index *name*.

    *offload* is where the bundle itself is read and written.  *policy* says what may leave in one.
    """

    name: str
    pages: HeadedRecords
    ledger: Ledger
    pinned: PinnedBook
    files: IFileStore
    offload: IOffload
    policy: Policy = STANDARD
